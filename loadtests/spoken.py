"""What callers say: recordings of customers' questions in both languages (`loadtests/recordings`), and how a request is
made of a question, written or spoken.

A spoken one is uploaded as a whole: `POST /v1/voice` with the recording as the body (audio/wav) and its language in
Content-Language. Its answer is that of a written one, and the `transcript`, what was understood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from loadtests.conversations import Question
from switchboard.questions import AUDIO, PATH, VOICE_PATH

FOLDER: Final = Path(__file__).with_name("recordings")


@cache
def recordings() -> tuple[Question, ...]:
    """All that there are, with what they are about, as those know who wrote them."""
    document = yaml.safe_load((FOLDER / "recordings.yaml").read_text(encoding="utf-8"))
    return tuple(
        Question(one["text"], language, one["intent"], name)
        for language, some in document["recordings"].items()
        for name, one in some.items()
    )


@cache
def audio(recording: str) -> bytes:
    """A WAV file: telephone's 8 kHz, 16 bit, one channel."""
    return (FOLDER / f"{recording}.wav").read_bytes()


def request_of(question: Question) -> tuple[str, bytes, Mapping[str, str]]:
    """Where it is put, the body, and the headers that say what that is."""
    if question.recording is None:
        body = json.dumps({"text": question.text, "language": question.language}).encode()
        return PATH, body, {"Content-Type": "application/json"}
    headers = {"Content-Type": AUDIO, "Content-Language": question.language}
    return VOICE_PATH, audio(question.recording), headers
