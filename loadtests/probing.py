"""What is looked at before any load: that the target answers, is a chat service of ours, and may be loaded; and which
questions its model knows.

A known question is one of the held-out set that the service has answered with the right intent once. From then on
another answer to it is a failure, so that a fast wrong answer doesn't pass for a good one. The others are asked as
well.
"""

from __future__ import annotations

import ipaddress
import json
import random
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.expected import wrong_with
from switchboard import questions
from switchboard.errors import SwitchboardError

LOCAL = "local"
AT_ONCE = 4
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Asked:
    """A question, and what it is about, as those know who wrote it."""

    text: str
    language: str
    intent: str


def check_target(url: str, stack: str, *, what: str = "--target") -> None:
    """
    Raises:
        SwitchboardError: it is no address, isn't on this machine for the stack `local`, doesn't answer, or isn't ours.
    """
    parts = urlsplit(url)
    try:
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if parts.scheme not in ("http", "https") or not host:
        raise SwitchboardError(f"{what} {url!r} is no address; it must begin with http:// or https://")
    if stack == LOCAL and not _is_here(host):
        raise SwitchboardError(
            f"{what} {url} isn't on this machine, and the stack is called {LOCAL}",
            "name the stack that it belongs to: --stack",
        )
    try:
        answer = questions.put(url, "hello there", language="en", timeout_s=PATIENCE_S).body
    except questions.NoAnswer as error:
        raise SwitchboardError(f"{what} {url} doesn't answer: {error}") from None
    except questions.Refused as error:
        raise SwitchboardError(f"{what} {url} refuses a question: {error.status} {error.reason}") from None
    if problem := wrong_with(answer, "en"):
        raise SwitchboardError(f"{what} {url} is no chat service of Switchboard's: {problem}")


def known(url: str, asked: Sequence[Asked], *, most: int, seed: int = 1) -> tuple[list[Asked], list[Asked]]:
    """Of so many of these questions: those that the service knows, and those that it doesn't.

    Raises:
        SwitchboardError: it doesn't answer.
    """
    chosen = random.Random(seed).sample(list(asked), min(most, len(asked)))  # noqa: S311

    def right(one: Asked) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                body = questions.put(url, one.text, language=one.language, timeout_s=PATIENCE_S).body
            except (questions.NoAnswer, questions.Refused) as error:
                if time.monotonic() > deadline:
                    raise SwitchboardError(f"{url} doesn't answer a question: {error}") from None
                time.sleep(0.2)  # nothing tells when it is less busy
                continue
            return isinstance(body, dict) and body.get("intent") == one.intent

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(right, chosen))
    return (
        [one for one, good in zip(chosen, answers, strict=True) if good],
        [one for one, good in zip(chosen, answers, strict=True) if not good],
    )


def write(file: Path, those: tuple[Sequence[Asked], Sequence[Asked]]) -> None:
    """As `loadtests.questions` reads them: of those that the service doesn't know, any intent is as good."""
    known_ones, others = those
    lines = [asdict(one) for one in known_ones] + [{**asdict(one), "intent": None} for one in others]
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")


def _is_here(host: str) -> bool:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found)
