"""When the next request is due, at a rate that may change at any time: no effects, times are passed in.

By chance, the distances are exponential, in units of what is expected (a Poisson process of rate 1); a change of the
rate stretches what is left of a distance. So whoever lets users come and go gets what was asked for at each moment.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable


class Arrivals:
    """A stream of requests that are due at `due()`, one after the other; without a rate none is."""

    def __init__(self, distance: Callable[[], float], first: float | None = None) -> None:
        """`distance`: between two arrivals, in units of the mean one."""
        self._distance = distance
        self._at = 0.0
        self._rate = 0.0
        self._left = distance() if first is None else first

    @property
    def rate(self) -> float:
        return self._rate

    def change(self, now: float, rate: float) -> None:
        """From `now` on so many a second.

        Raises:
            ValueError: such a rate can't be, or something was due before and hasn't been taken.
        """
        if not 0 <= rate < math.inf:
            raise ValueError(f"{rate} requests/s can't be")
        if self.due() < now:
            raise ValueError("take what is due first")
        self._left -= self._rate * (now - self._at)
        self._at = now
        self._rate = rate

    def due(self) -> float:
        """When the next one is; infinite without a rate."""
        return self._at + self._left / self._rate if self._rate > 0 else math.inf

    def take(self) -> float:
        """That one, and on to the next."""
        due = self.due()
        if math.isinf(due):
            raise ValueError("nothing is due")
        self._at, self._left = due, self._distance()
        return due


def poisson(seed: int | str) -> Arrivals:
    """As customers come who know nothing of each other."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return Arrivals(lambda: chance.expovariate(1.0))


def even(seed: int | str) -> Arrivals:
    """All at the same distance; the first at any time within one."""
    return Arrivals(lambda: 1.0, random.Random(seed).random())  # noqa: S311
