"""The simulated service: replicas behind one queue, a tenth of a second at a time.

A fluid of requests in order of arrival. A replica serves `slots` requests at a time, each in `service_s`; what finds
no free slot waits in the gateway, and gives up after `timeout_s`. A request is in time if its wait and its service
take no longer than `bound_s`. Replicas are paid for from their creation to the end of their drain, and serve from
`start_s` after it. A *second is out of service level* when fewer than 99 % of the requests due in it were in time.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from operators.simulator.traffic import BINS_PER_S, Arrivals

BIN_S = 1 / BINS_PER_S
LEVEL = 0.99
_PAGE_S = 3600
"""Counts become plain numbers, which are quicker, an hour at a time: two weeks of them would fill the memory."""


@dataclass(frozen=True)
class Replica:
    """What one replica can do; times in seconds."""

    slots: float = 4
    service_s: float = 0.1
    bound_s: float = 0.3
    timeout_s: float = 10.0
    drain_s: float = 5.0

    @property
    def capacity_rps(self) -> float:
        """Requests/s at most."""
        return self.slots / self.service_s


class Second(NamedTuple):
    """What a second looked like from the gateway: counts, and averages over the second."""

    end_s: int
    arrived: float
    served: float
    in_service: float
    queued: float
    ready: int

    @property
    def in_flight(self) -> float:
        """Requests being served or waiting."""
        return self.in_service + self.queued


class Fleet:
    """Replicas: how many serve, and when those that start will."""

    def __init__(self, ready: int) -> None:
        self._ready = ready
        self._starting: list[float] = []
        self._draining_s = 0.0

    @property
    def size(self) -> int:
        """Those that serve and those that start."""
        return self._ready + len(self._starting)

    def ready(self, now: float) -> int:
        """Replicas that serve; time only goes forward."""
        while self._starting and self._starting[0] <= now:
            self._starting.pop(0)
            self._ready += 1
        return self._ready

    def grow(self, ready_at: Sequence[float]) -> None:
        """Create replicas that will serve from these times on."""
        self._starting = sorted([*self._starting, *ready_at])

    def shrink(self, count: int, drain_s: float) -> None:
        """Remove as many: those that don't serve yet first, the latest before the others."""
        starting = min(count, len(self._starting))
        del self._starting[len(self._starting) - starting :]
        self._ready -= count - starting
        self._draining_s += (count - starting) * drain_s

    def paid_s(self) -> float:
        """Replica-seconds of one second; a drain is paid for at once."""
        paid = self.size + self._draining_s
        self._draining_s = 0.0
        return paid


class Plant:
    """One service under one stream of requests."""

    def __init__(self, arrivals: Arrivals, replica: Replica) -> None:
        self._all = arrivals.counts
        self._counts: list[int] = []
        self._replica = replica
        self._queue: deque[list[float]] = deque()  # [bin of arrival, requests left]
        self._queued = 0.0
        self._late = array("d", bytes(8 * len(self._all)))
        self._patience = round(replica.timeout_s * BINS_PER_S)
        self._in_time = int((replica.bound_s - replica.service_s) * BINS_PER_S + 1e-9)

    def second(self, start_s: int, ready: int) -> Second:
        """Serve the requests of one second by `ready` replicas."""
        first, room = start_s * BINS_PER_S, ready * self._replica.capacity_rps * BIN_S
        page, offset = divmod(start_s, _PAGE_S)
        if not offset or not self._counts:
            self._counts = self._all[page * _PAGE_S * BINS_PER_S :][: _PAGE_S * BINS_PER_S].tolist()
        counts = self._counts[offset * BINS_PER_S : (offset + 1) * BINS_PER_S]
        arrived = sum(counts)
        if not self._queued and max(counts) <= room:
            return Second(start_s + 1, arrived, arrived, arrived * self._replica.service_s, 0.0, ready)
        served = waiting = 0.0
        for index, count in enumerate(counts, first):
            if count:
                self._queue.append([index, count])
                self._queued += count
            served += self._serve(index, room)
            self._give_up(index)
            waiting += self._queued
        in_service = served * self._replica.service_s
        return Second(start_s + 1, arrived, served, in_service, waiting / BINS_PER_S, ready)

    def _serve(self, index: int, room: float) -> float:
        left, queue = room, self._queue
        while queue and left > 0:
            head = queue[0]
            taken = min(left, head[1])
            if index - head[0] > self._in_time:
                self._late[int(head[0])] += taken
            left -= taken
            head[1] -= taken
            if head[1] <= 1e-9:
                queue.popleft()
        served = room - left
        self._queued = self._queued - served if queue else 0.0
        return served

    def _give_up(self, index: int) -> None:
        queue = self._queue
        while queue and index - queue[0][0] >= self._patience:
            at, left = queue.popleft()
            self._late[int(at)] += left
            self._queued = self._queued - left if queue else 0.0

    def finish(self) -> np.ndarray:
        """Whether each second was out of service level; who still waits is late."""
        for at, left in self._queue:
            self._late[int(at)] += left
        late = np.asarray(self._late).reshape(-1, BINS_PER_S).sum(axis=1)
        due = self._all.reshape(-1, BINS_PER_S).sum(axis=1)
        return np.asarray(late > (1 - LEVEL) * due + 1e-9)
