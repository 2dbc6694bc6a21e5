"""Text as the models see it: one normal form, shared by training and serving.

Pure Python without dependencies, so that a copy of this file and of its table (`models/traditional.py`) travels with
the registered model. Nothing here keeps or logs a text.
"""

from __future__ import annotations

import re
import unicodedata

from models.traditional import PAIRS

MAX_CHARS = 2000
"""Longer texts are cut: the wish of a customer is in the beginning, and time for a prediction stays bounded."""

_SPACES = re.compile(r"\s+")
_REPEATS = re.compile(r"(\D)\1{3,}")
_NUMBERS = re.compile(r"\d+(?:[.,:]\d+)*")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "`": "'", "“": '"', "”": '"', "。": ".", "、": ","})
_FOLDED = _QUOTES | str.maketrans(PAIRS[::2], PAIRS[1::2])
"""One table, so that traditional characters cost no pass of their own."""
_CJK = re.compile(r"[㐀-䶿一-鿿]")
# Zero-width and direction marks, soft hyphens, control characters: seen in pasted texts, never meant.
_INVISIBLE = ("Cf", "Cc", "Cs", "Co", "Cn")


def normalise(text: str) -> str:
    """NFKC, lower case, simplified characters, plain quotes, single spaces, numbers as `0`, at most three repeats of a
    character.

    Idempotent: `normalise(normalise(text)) == normalise(text)`.
    """
    text = _plain(text[:MAX_CHARS])
    # Folding can make new compatible sequences, so it goes on until nothing changes; twice is the rule.
    for _ in range(4):
        again = _plain(text)
        if again == text:
            break
        text = again
    return text


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower().translate(_FOLDED)
    if not text.isprintable():  # seldom: all others have no such character, and no space but the usual one
        text = "".join(
            " " if char.isspace() else char
            for char in text
            if char.isspace() or unicodedata.category(char) not in _INVISIBLE
        )
    text = _REPEATS.sub(r"\1\1\1", _NUMBERS.sub("0", text))
    return _SPACES.sub(" ", text).strip()[:MAX_CHARS]


def language(text: str) -> str:
    """`zh` where there is any Chinese character, else `en`; mixed texts count as Chinese."""
    return "zh" if _CJK.search(text) else "en"
