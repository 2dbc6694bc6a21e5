"""Personal data in a text: Chinese identity numbers, card numbers, telephone numbers and e-mail addresses.

Numbers with a checksum count only where it is right, so an amount or an order's number is none. Identity numbers are
looked for first: one of them can pass the checksum of cards, too. Patterns end at digits rather than at `\\b`, which
sees no edge between a digit and a Chinese character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Found:
    """What kind was found, and in which text (counted from 0); never what it was."""

    kind: str
    index: int


def _identity(number: str) -> bool:
    from stdnum.cn import ric

    return bool(ric.is_valid(number))


def _card(number: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"[ -]", "", number)
    return len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _any(_: str) -> bool:
    return True


_KINDS: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]] = (
    (
        "e-mail address",
        re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
        _any,
    ),
    ("identity number", re.compile(r"(?<![0-9A-Za-z])\d{17}[0-9Xx](?![0-9A-Za-z])"), _identity),
    ("card number", re.compile(r"(?<![\d+])\d(?:[ -]?\d){12,18}(?!\d)"), _card),
    (
        "telephone number",
        re.compile(
            r"(?<![\d+])(?:"
            r"(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"  # a Chinese mobile
            r"|0\d{2,3}[ -]\d{7,8}"  # a Chinese fixed line
            r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"  # North America
            r"|\+\d{1,3}(?:[ -]?\d{2,4}){2,5}"  # any other, with its country
            r")(?!\d)"
        ),
        _any,
    ),
)


def kinds_in(text: str) -> list[str]:
    """The kinds of personal data in a text, one for each that is found."""
    kinds: list[str] = []
    for kind, pattern, true in _KINDS:
        spans = [match.span() for match in pattern.finditer(text) if true(match[0])]
        kinds += [kind] * len(spans)
        for start, end in reversed(spans):
            # What was recognised is not looked at again as something else.
            text = f"{text[:start]}\0{text[end:]}"
    return kinds


def find(texts: Iterable[str]) -> list[Found]:
    """All that is found in some texts."""
    return [Found(kind, index) for index, text in enumerate(texts) for kind in kinds_in(text)]
