"""Asks replicas what they have answered, while requests are mirrored, and joins it (`answers`).

From when it is first asked on: what was answered before is somebody else's, or was counted by who led before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from models.intents import HANDOVER
from operators.releases.answers import NOTHING, Answer, Joined, Joins
from switchboard import workload
from switchboard.api.model_server import Arm, fleet_of

MOST_PODS = 32
"""Of a fleet: what some of them answered is enough to join."""
LIMIT = 2000
TIMEOUT_S = 2.0
MOST_BYTES = 2 * 1024 * 1024
END = 10**15
"""After so many answers there is none: a replica says which was its last."""


class Mirrored:
    """The answers of one release's fleets, from when this was made on."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._joins = Joins(service)
        self._after: dict[str, tuple[float, int]] = {}
        """Of each pod: which process answered last (when it began), and with which number."""

    async def look(self, fleets: Mapping[str, Mapping[str, str]]) -> tuple[Joined, Joined]:
        """Of the candidate's pods and of the baseline's: answers other than the customers', among those that are new.

        `fleets`: addresses by fleet and pod.
        """
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(
                *(
                    self._ask(session, fleet, pod, address)
                    for fleet, pods in fleets.items()
                    for pod, address in sorted(pods.items())[:MOST_PODS]
                )
            )
        found = self._joins.take()
        return (
            found.get(fleet_of(self._service, Arm.CANDIDATE), NOTHING),
            found.get(fleet_of(self._service, Arm.BASELINE), NOTHING),
        )

    async def _ask(self, session: aiohttp.ClientSession, fleet: str, pod: str, address: str) -> None:
        """One that doesn't answer is asked again at the next look."""
        started, after = self._after.get(pod, (0.0, END))
        url = f"http://{address}:{workload.PORT}/answers"
        try:
            async with session.get(url, params={"limit": str(LIMIT), "after": str(after)}) as response:
                if response.status != 200 or (response.content_length or 0) > MOST_BYTES:
                    return
                said = await response.json()
            if after == END:
                self._after[pod] = (float(said["started"]), int(said["last"]))
                return
            if said["started"] != started:
                self._after[pod] = (float(said["started"]), 0)  # another process, which counts from 1 on
                return
            answers, last = read(said["answers"], shadow=fleet != self._service)
            self._after[pod] = (float(said["started"]), max(after, last))
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, IndexError):
            return
        self._joins.add(fleet, pod, answers)


def read(rows: Sequence[Sequence[Any]], *, shadow: bool) -> tuple[list[Answer], int]:
    """The answers to customers, or to mirrored requests, and the last number; a row is what `serving.chat.recent` says:
    number, time, request, digest, intent, fallback, shadow, language.

    What the champion hands to a person is no kind of its own: a candidate that answers half of it may well be better.
    """
    found = [
        Answer(str(row[2]), str(row[3]), tuple(kind for kind in (row[4], *row[7:8]) if _is_kind(kind)))
        for row in rows
        if bool(row[6]) is shadow
    ]
    return found, max((int(row[0]) for row in rows), default=0)


def _is_kind(said: Any) -> bool:
    """Not what a replica of before says in its place."""
    return isinstance(said, str) and said != HANDOVER
