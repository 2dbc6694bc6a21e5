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
from typing import Any
from urllib.parse import urlsplit

from loadtests.expected import wrong_with
from loadtests.spoken import audio, recordings
from switchboard import questions
from switchboard.errors import SwitchboardError

LOCAL = "local"
AT_ONCE = 4
PATIENCE_S = 10.0
SPOKEN_PATIENCE_S = 60.0
"""A service of which there is none while nobody speaks has to start."""
NOT_FOUND, TOO_MANY = 404, 429


@dataclass(frozen=True)
class Asked:
    """A question, and what it is about, as those know who wrote it."""

    text: str
    language: str
    intent: str
    recording: str | None = None
    """Where it is spoken."""

    def __str__(self) -> str:
        return "a question" if self.recording is None else f"the recording {self.recording}"


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


def check_voice(url: str, *, what: str = "--target") -> None:
    """Whether a target that answers what is written answers what is spoken, too.

    Raises:
        SwitchboardError: it doesn't.
    """
    asked = recorded()[0]
    try:
        answer = _answer(url, asked)
    except questions.Refused as error:
        if error.status == NOT_FOUND:
            raise SwitchboardError(
                f"{what} {url} has no voice service: it knows no {questions.VOICE_PATH}",
                "declare one in the stack, or leave `voice` out of the scenario's users",
            ) from None
        raise SwitchboardError(f"{what} {url} refuses {asked}: {error.status} {error.reason}") from None
    except questions.NoAnswer as error:
        raise SwitchboardError(f"{what} {url} doesn't answer {asked}: {error}") from None
    if problem := wrong_with(answer, asked.language, spoken=True):
        raise SwitchboardError(f"{what} {url} is no voice service of Switchboard's: {problem}")


def known(url: str, asked: Sequence[Asked], *, most: int, seed: int = 1) -> tuple[list[Asked], list[Asked]]:
    """Of so many of these questions: those that the service knows, and those that it doesn't.

    Raises:
        SwitchboardError: it refuses one, or doesn't answer.
    """
    chosen = random.Random(seed).sample(list(asked), min(most, len(asked)))  # noqa: S311

    def right(one: Asked) -> bool:
        try:
            body = _answer(url, one)
        except questions.Refused as error:
            raise SwitchboardError(f"{url} refuses {one}: {error.status} {error.reason}") from None
        except questions.NoAnswer as error:
            raise SwitchboardError(f"{url} doesn't answer {one}: {error}") from None
        return isinstance(body, dict) and body.get("intent") == one.intent

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(right, chosen))
    return (
        [one for one, good in zip(chosen, answers, strict=True) if good],
        [one for one, good in zip(chosen, answers, strict=True) if not good],
    )


def recorded() -> list[Asked]:
    """All recordings."""
    return [Asked(one.text, one.language, str(one.intent), one.recording) for one in recordings()]


def find_out(url: str, asked: Sequence[Asked], file: Path, *, most: int | None = None) -> str:
    """Which of them the service knows, into a file as `loadtests.questions` reads it (of those that it doesn't know,
    any intent is as good); in words.

    Raises:
        SwitchboardError: it doesn't answer.
    """
    good, others = known(url, asked, most=len(asked) if most is None else most)
    lines = [asdict(one) for one in good] + [{**asdict(one), "intent": None} for one in others]
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")
    return f"{len(good)} of {len(lines)}"


def _answer(url: str, asked: Asked) -> Any:
    """The answer's body. A service that is busy, or has to start, is waited for.

    Raises:
        Refused, NoAnswer: as `questions.put`.
    """
    patience_s = PATIENCE_S if asked.recording is None else SPOKEN_PATIENCE_S
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if asked.recording is None:
                return questions.put(url, asked.text, language=asked.language, timeout_s=patience_s).body
            said = audio(asked.recording)
            return questions.say(url, said, language=asked.language, timeout_s=patience_s).body
        except questions.Refused as error:
            if not (error.status == TOO_MANY or error.status >= 500) or time.monotonic() > deadline:
                raise
        except questions.NoAnswer:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)  # nothing tells when it is less busy


def _is_here(host: str) -> bool:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found)
