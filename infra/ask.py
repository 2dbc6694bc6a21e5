"""A customer's question, as `up` asks it at the end: the proof that the cloud answers."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from switchboard import questions
from switchboard.errors import SwitchboardError

NOT_YET = (502, 503, 504)
"""A gateway's answers while it is up and hasn't found its replicas."""


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
    end = time.monotonic() + deadline_s
    while True:
        try:
            answered = questions.put(url, question, language=language, session=f"up-{uuid.uuid4()}")
            return Answered(question, url, answered.body, answered.seconds)
        except questions.Refused as error:
            reason = str(error)
            if error.status not in NOT_YET:
                raise SwitchboardError(f"{url} refused the question: {reason}") from None
        except questions.NoAnswer as error:
            reason = str(error)
        if time.monotonic() >= end:
            raise SwitchboardError(
                f"{url} did not answer within {deadline_s:.0f} s: {reason}",
                "`switchboard status` shows what is unhealthy",
            )
        # The gateway is up before its health checks have found the replicas: ask again, 5 times a second.
        time.sleep(0.2)
