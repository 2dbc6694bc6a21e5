"""Sends requests when they are due, whatever became of those before them (open arrivals), in one greenlet.

Locust's users are the dial: each stands for so many requests/s, and does nothing else. So Locust's own shapes, its web
page and its distributed mode set the rate, and no user that waits for an answer holds up the next request.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.pool import Pool

from loadtests.alarm import alarm
from loadtests.arrivals import Arrivals

MOST_IN_FLIGHT = 20_000
"""Of one process. Beyond that requests are dropped, and counted so: it has no sockets for more."""


NEAR_S = 0.0003
"""A processor that sleeps takes a while to wake up: it is awake so long before a request is due, while answers that
come have their turn."""
AWAKE = 0.1
"""But for no more of its time than that."""


class Pacer:
    """Calls `send(due)` in a greenlet of its own for each request; `due` is of `clock`."""

    def __init__(
        self,
        arrivals: Arrivals,
        send: Callable[[float], None],
        *,
        most_in_flight: int = MOST_IN_FLIGHT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._arrivals, self._send, self._clock = arrivals, send, clock
        self._pool = Pool(most_in_flight)
        self._alarm = alarm()
        self._priority = gevent.get_hub().loop.MAXPRI
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self.offered = 0
        """So many were due."""
        self.dropped = 0

    @property
    def rate(self) -> float:
        return self._arrivals.rate

    def set_rate(self, rate: float) -> None:
        """From now on so many requests/s."""
        now = self._clock()
        self._take(now)
        self._arrivals.change(now, rate)
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)
        self._alarm.wake()

    def finish(self, within_s: float) -> int:
        """Wait for the answers that are still to come; how many weren't waited for."""
        self.set_rate(0.0)
        self._pool.join(timeout=within_s)
        left = len(self._pool)
        self._pool.kill(block=True)
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        return left

    def _run(self) -> None:
        while True:
            wait_s = self._arrivals.due() - self._clock()
            near_s = min(NEAR_S, AWAKE / self.rate) if self.rate else 0.0
            if wait_s > near_s:
                self._alarm.wait(wait_s - near_s)
            elif wait_s > 0:
                gevent.idle(self._priority)  # a turn of the loop, in which sockets are looked at
            self._take(self._clock())

    def _take(self, now: float) -> None:
        while self._arrivals.due() <= now:
            due = self._arrivals.take()
            self.offered += 1
            if self._pool.free_count() > 0:
                self._pool.spawn(self._send, due)
            else:
                self.dropped += 1
