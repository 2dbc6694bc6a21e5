"""What the cloud did during a run: replicas wanted and ready, and the candidate's share, looked at once a second.

It is beside the run and never in its way: where the API server doesn't answer, there is a gap in the picture.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from switchboard.api.model_server import MODEL_SERVERS
from switchboard.kinds import MODEL_RELEASES, PODS
from switchboard.kube import ApiError, Credentials, Kube, Object, Unreachable
from switchboard.labels import NAME
from switchboard.pods import start_s

PERIOD_S = 1.0
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Look:
    """At a time (seconds since the epoch): a ModelServer's replicas, and a release's weight in percent."""

    at: float
    desired: int
    ready: int
    weight: float | None = None


class Observer:
    """Looks while it is entered (`with Observer(...)`); `looks` is what it saw; `starts`: how long each
    replica took to start that came meanwhile, in seconds."""

    def __init__(self, credentials: Credentials, namespace: str, server: str) -> None:
        self._credentials, self._namespace, self._server = credentials, namespace, server
        self.looks: list[Look] = []
        self._known: set[str] | None = None
        self._starts: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run()), name="observer", daemon=True
        )

    @property
    def starts(self) -> list[float]:
        return list(self._starts.values())

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(2 * TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _run(self) -> None:
        async with Kube(self._credentials, timeout_s=TIMEOUT_S) as kube:
            while not self._ended.is_set():
                due = self._loop.time() + PERIOD_S
                with suppress(ApiError, Unreachable, TimeoutError):  # a gap
                    self.looks.append(await self._look(kube))
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._ended.wait()

    async def _look(self, kube: Kube) -> Look:
        server = await kube.get(MODEL_SERVERS, self._server, self._namespace)
        status = server.get("status") or {}
        self._note(await kube.list(PODS, self._namespace, label_selector=f"{NAME}={self._server}"))
        weight = None
        try:
            for release in await kube.list(MODEL_RELEASES, self._namespace):
                weight = _weight(release, self._server) or weight
        except ApiError as error:
            if not error.not_found:
                raise
        return Look(time.time(), status.get("desiredReplicas", 0), status.get("readyReplicas", 0), weight)

    def _note(self, pods: list[Object]) -> None:
        if self._known is None:
            self._known = {one["metadata"]["uid"] for one in pods}  # they were there before
        for one in pods:
            uid, took_s = one["metadata"]["uid"], start_s(one)
            if took_s is not None and uid not in self._known:
                self._starts.setdefault(uid, took_s)


def _weight(release: dict[str, Any], server: str) -> float | None:
    if release["spec"].get("server") != server:
        return None
    return (release.get("status") or {}).get("weight")
