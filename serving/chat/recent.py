"""A replica's last answers, for who compares replicas: a release's controller joins them by their requests' ids.

Gateways throw the answers to mirrored requests away, so each replica says what it has answered. Bounded, in memory, and
without a word of what customers wrote: an answer is known by its digest alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

CAPACITY: Final = 8192
"""Some 3 MB; at 100 requests/s the last 80 s."""
LIMIT: Final = 1000
MOST: Final = 2000
"""Answers in one reply: where nothing is said, and at most (300 kB)."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: `intent` is what the model takes the question for, or `handover` where `fallback` stands in the place
    of an answer that there is no text for. `shadow`: no customer waited for it."""

    at: float
    request_id: str
    digest: str
    intent: str
    fallback: bool
    shadow: bool
    language: str


class Recent:
    """The last answers with their sequence numbers, from 1 on; `started` tells a process from the one before."""

    def __init__(self, started: float, capacity: int = CAPACITY) -> None:
        self._started = started
        self._kept: deque[Answered] = deque(maxlen=capacity)
        self._last = 0

    def add(self, answered: Answered) -> None:
        self._kept.append(answered)
        self._last += 1

    def after(self, sequence: int, limit: int) -> dict[str, Any]:
        """The document: at most `limit` answers after that number, the oldest first."""
        first = self._last - len(self._kept) + 1
        begin = max(sequence + 1, first)
        found = islice(self._kept, begin - first, begin - first + limit)
        return {
            "started": self._started,
            "first": first,
            "last": self._last,
            "answers": [
                [
                    number,
                    one.at,
                    one.request_id,
                    one.digest,
                    one.intent,
                    one.fallback,
                    one.shadow,
                    one.language,
                ]
                for number, one in enumerate(found, begin)
            ],
        }
