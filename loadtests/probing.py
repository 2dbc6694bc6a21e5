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
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtests.conversations import Question
from loadtests.expected import wrong_with
from loadtests.spoken import recordings, request_of
from switchboard import questions
from switchboard.errors import SwitchboardError

LOCAL = "local"
AT_ONCE = 4
PATIENCE_S = 10.0
SPOKEN_PATIENCE_S = 60.0
"""A service of which there is none while nobody speaks has to start."""
NOT_FOUND, TOO_MANY = 404, 429


def check_target(url: str, stack: str, *, what: str = "--target") -> None:
    """
    Raises:
        SwitchboardError: it is no address, isn't on this machine for the stack `local`, doesn't answer, or isn't ours.
    """
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise SwitchboardError(f"{what} {url!r} is no address; it must begin with http:// or https://")
    if stack == LOCAL and not is_here(host):
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


def check_voice(url: str, *, what: str = "--target") -> None:
    """Whether a target that answers what is written answers what is spoken, too.

    Raises:
        SwitchboardError: it doesn't.
    """
    asked = recordings()[0]
    answer = _answer(url, asked, f"{what} {url}")
    if problem := wrong_with(answer, asked.language, spoken=True):
        raise SwitchboardError(f"{what} {url} is no voice service of Switchboard's: {problem}")


def known(
    url: str, asked: Sequence[Question], *, most: int, seed: int = 1
) -> tuple[list[Question], list[Question]]:
    """Of so many of these questions: those that the service knows, and those that it doesn't.

    Raises:
        SwitchboardError: it refuses one, or doesn't answer.
    """
    chosen = random.Random(seed).sample(list(asked), min(most, len(asked)))  # noqa: S311

    def right(one: Question) -> bool:
        body = _answer(url, one, url)
        return isinstance(body, dict) and body.get("intent") == one.intent

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(right, chosen))
    return (
        [one for one, good in zip(chosen, answers, strict=True) if good],
        [one for one, good in zip(chosen, answers, strict=True) if not good],
    )


def find_out(url: str, asked: Sequence[Question], file: Path, *, most: int | None = None) -> str:
    """Which of them the service knows, into a file as `loadtests.questions` reads it (of those that it doesn't know,
    any intent is as good); in words.

    Raises:
        SwitchboardError: it doesn't answer.
    """
    good, others = known(url, asked, most=len(asked) if most is None else most)
    lines = [asdict(one) for one in good] + [{**asdict(one), "intent": None} for one in others]
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")
    return f"{len(good)} of {len(lines)}"


def _answer(url: str, asked: Question, who: str) -> Any:
    """The answer's body. A service that is busy, or has to start, is waited for.

    Raises:
        SwitchboardError: it refuses, or doesn't answer; `who` is what it is called.
    """
    spoken = asked.recording is not None
    what = f"the recording {asked.recording}" if spoken else "a question"
    patience_s = SPOKEN_PATIENCE_S if spoken else PATIENCE_S
    deadline = time.monotonic() + patience_s
    path, body, headers = request_of(asked)
    while True:
        try:
            return questions.post(url, path, body, headers, timeout_s=patience_s).body
        except questions.Refused as error:
            if spoken and error.status == NOT_FOUND:
                raise SwitchboardError(
                    f"{who} has no voice service: it knows no {path}",
                    "declare one in the stack, or leave `voice` out of the scenario's users",
                ) from None
            busy = error.status == TOO_MANY or error.status >= 500
            if not busy or time.monotonic() > deadline:
                raise SwitchboardError(f"{who} refuses {what}: {error.status} {error.reason}") from None
        except questions.NoAnswer as error:
            if time.monotonic() > deadline:
                raise SwitchboardError(f"{who} doesn't answer {what}: {error}") from None
        time.sleep(0.2)  # nothing tells when it is less busy


def is_here(host: str) -> bool:
    """Whether it is this machine's loopback, by every address of its name."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # the latter of a label that no name can have
        return False
    return bool(found) and all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found)
