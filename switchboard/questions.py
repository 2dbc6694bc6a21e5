"""A customer's question, written or spoken, as those put it who ask the services: one turn, over plain HTTP.

What goes wrong is told apart: a server's refusal (`Refused`), and no answer at all (`NoAnswer`). Whether to ask again,
and what to tell a person, is the caller's to decide.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH = "/v1/chat"
VOICE_PATH = "/v1/voice"
AUDIO = "audio/wav"
"""What a spoken question is."""


class Refused(Exception):
    """The server's refusal: HTTP `status` and its own words (`body`, as they came)."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}".strip())
        self.status = status
        self.body = body

    @property
    def reason(self) -> str:
        """The service's message where the body is its own, else the body."""
        try:
            return str(json.loads(self.body)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return self.body[:200] or "no reason given"


class NoAnswer(Exception):
    """Nobody answered in time, or with something that isn't JSON."""


@dataclass(frozen=True)
class Answered:
    """The answer's body as the service sends it, and how long it took."""

    body: Any
    seconds: float


def put(
    url: str,
    text: str,
    *,
    language: str | None = None,
    session: str | None = None,
    timeout_s: float = 10.0,
) -> Answered:
    """POST one question to the gateway or replica at `url` (http or https, the caller has checked it).

    It has an idempotency key of its own, so that a gateway that tries another replica has it answered once.

    Raises:
        Refused: an HTTP status of 400 or more.
        NoAnswer: refused, timed out, broken off, or no JSON.
    """
    body = {"text": text} if language is None else {"text": text, "language": language}
    headers = {"Content-Type": "application/json", "X-Session-Id": session or uuid.uuid4().hex}
    return post(url, PATH, json.dumps(body).encode(), headers, timeout_s=timeout_s)


def post(url: str, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answered:
    """The same with a question as its service takes it; without an X-Session-Id it is a session's of its own.

    Raises:
        Refused, NoAnswer: as `put`.
    """
    own = {"X-Session-Id": uuid.uuid4().hex, **headers, "Idempotency-Key": uuid.uuid4().hex}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=own)  # noqa: S310 - as `put`
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return Answered(json.load(response), time.monotonic() - started)
    except urllib.error.HTTPError as error:
        raise Refused(error.code, error.read(2000).decode(errors="replace").strip()) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswer(str(getattr(error, "reason", None) or error) or type(error).__name__) from None
