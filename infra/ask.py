"""A customer's question, as `up` asks it at the end: the proof that the cloud answers."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

from switchboard.errors import SwitchboardError


@dataclass(frozen=True)
class Answered:
    """A question, the gateway's answer (the body's fields) and how long it took."""

    question: str
    url: str
    body: dict[str, Any]
    seconds: float


def ask(url: str, question: str, *, language: str | None = None, deadline_s: float = 60.0) -> Answered:
    """POST `question` to the gateway at `url` until it is answered.

    Raises:
        SwitchboardError: not answered within `deadline_s`, with the last reason.
    """
    body: dict[str, Any] = {"text": question}
    if language:
        body["language"] = language
    end = time.monotonic() + deadline_s
    while True:
        request = urllib.request.Request(  # noqa: S310 - the address is the stack's own gateway
            f"{url}/v1/chat",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "X-Session-Id": f"up-{uuid.uuid4()}"},
        )
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                return Answered(question, url, json.load(response), time.monotonic() - started)
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.read(500).decode(errors='replace').strip()}"
            if error.code not in (502, 503, 504):
                raise SwitchboardError(f"{url} refused the question: {reason}") from None
        except (OSError, ValueError) as error:
            reason = str(error)
        if time.monotonic() >= end:
            raise SwitchboardError(
                f"{url} did not answer within {deadline_s:.0f} s: {reason}",
                "`switchboard status` shows what is unhealthy",
            )
        # The gateway is up before its health checks have found the replicas: ask again, 5 times a second.
        time.sleep(0.2)
