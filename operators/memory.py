"""What a new leader remembers: the history of each server's arrivals, as Prometheus has it.

Until it is there nothing goes down: a headroom that isn't known would be taken for none. Where it can't be had, or is
empty, a leader has to see for itself first, for as long as the headroom's level is a mean of.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque

from operators.facts import seconds
from operators.scaling import policy
from operators.scaling.history import History
from operators.servers.server import Server
from operators.signals.prometheus import Prometheus
from operators.signals.values import Key

log = logging.getLogger(__name__)

AT_ONCE = 50
"""Services in one question."""
PATIENCE_S = 30.0
NEW_S = 120.0
"""A ModelServer that was made so recently has no history worth asking for."""
GIVEN_UP_S = 60.0
"""After so long without an answer nobody is asked any more."""


class Memory:
    """Asks for histories beside the ticks, some servers at a time."""

    def __init__(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus
        self._wanted: deque[tuple[Server, float]] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._watched: dict[str, tuple[Server, float]] = {}
        """Servers without a past, and since when they are watched."""

    def want(self, server: Server, now: float) -> None:
        """A server of which nothing is remembered."""
        created = seconds(server.object["metadata"].get("creationTimestamp")) or 0.0
        if self._prometheus is None or now - created < NEW_S:
            server.view_from = now
            return
        server.view_from = math.inf
        self._watched.pop(server.name, None)
        self._wanted.append((server, now + GIVEN_UP_S))

    def poll(self, now: float) -> None:
        """Ask for more, if nobody is asked; what was watched for long enough is known."""
        for name, (server, since) in list(self._watched.items()):
            if server.spec is None or not 0 <= now - since < server.spec.scaling.headroom.level_seconds:
                server.view_from = now
                del self._watched[name]
        if self._wanted and (self._asking is None or self._asking.done()):
            some = [self._wanted.popleft() for _ in range(min(AT_ONCE, len(self._wanted)))]
            self._asking = asyncio.create_task(self._ask(some, now))

    async def _ask(self, some: list[tuple[Server, float]], now: float) -> None:
        assert self._prometheus is not None  # noqa: S101 - else nothing is wanted
        length_s = max(
            (one.spec.scaling.headroom.history_seconds for one, _ in some if one.spec is not None), default=0
        )
        keys: list[Key] = [one.key for one, _ in some if one.spec is not None]
        found: dict[Key, list[float]] | str = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._prometheus.histories(keys, length_s, now) if keys else {}
        except TimeoutError:
            found = "Prometheus gave no answer"
        if isinstance(found, str):
            log.warning("no histories yet: %s", found)
        for server, deadline in some:
            if server.spec is None:
                server.view_from = now
            elif isinstance(found, str) and now >= deadline:
                self._watch(server, now)
            elif isinstance(found, str):
                self._wanted.append((server, deadline))
            else:
                await asyncio.sleep(0)
                rates = [rate * server.share for rate in found.get(server.key, [])]
                if not any(map(math.isfinite, rates)):
                    self._watch(server, now)
                    continue
                try:
                    _remember(server, rates, now)
                except Exception:  # of one server; without its history it would wait for ever
                    log.exception("the history of %s", server.name)
                    self._watch(server, now)

    def _watch(self, server: Server, now: float) -> None:
        if server.spec is None or server.spec.scaling.headroom.price == 0:
            server.view_from = now  # it keeps no headroom that could be lost
        else:
            self._watched[server.name] = (server, now)


def _remember(server: Server, rates: list[float], now: float) -> None:
    assert server.spec is not None  # noqa: S101
    headroom = server.spec.scaling.headroom
    known = History.of(rates, level_s=headroom.level_seconds, keep_s=headroom.history_seconds)
    state = server.state or policy.begin(now, key=server.name)
    server.state = policy.recall(server.spec.scaling, server.capacity(), state, known)
    server.view_from = now
