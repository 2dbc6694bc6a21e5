"""What a replica can take, measured: its processor time for a request, and how long it takes to start.

A replica's processor time is a part that it takes whether asked or not (probes, scrapes) and a part for each request:
`cpu = base + cost * rate`, fitted by least squares over the last minutes. What its limit leaves for requests, divided
by what one costs, is its capacity. While the rate has hardly changed, the two parts can't be told apart, and all of it
is taken for cost: too much, on the safe side. A replica that answers more than that shows it to be more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

MEMORY_S = 900.0
"""The time in which a sample's weight falls to 1/e."""
LEAST_SAMPLES = 4.0
"""Of windows that don't overlap (`query.CPU_WINDOW_S`)."""
LEAST_RPS = 1.0
"""Of a replica: with less, what it takes is mostly not for requests."""
LEAST_CPU = 0.005
LEAST_SPREAD = 0.15
"""The standard deviation of the rates, relative to their mean, from which the two parts can be told apart."""
MOST_BASE = 0.5
"""The base can't be more than this part of the limit: a fit that says so is no fit."""
MOST_BY_BASE = 4.0
"""A replica is said to take at most so many times as much as if all of it were cost: where requests seem to take next
to nothing, it runs out of something else than processor time."""
STARTS_KEPT = 20
ENOUGH_STARTS = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """Weighted sums over samples (requests/s and cores of one replica), and the most that one has answered."""

    at: float = 0.0
    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    most: float = 0.0

    def add(self, rate: float, cpu: float, now: float) -> Fit:
        """With a sample: what a replica answers in requests/s, and what it takes in cores."""
        if not (math.isfinite(rate) and math.isfinite(cpu)) or rate < LEAST_RPS or cpu < LEAST_CPU:
            return self
        kept = math.exp(-max(0.0, now - self.at) / MEMORY_S) if self.n else 1.0
        return replace(
            self,
            at=now,
            n=self.n * kept + 1,
            x=self.x * kept + rate,
            y=self.y * kept + cpu,
            xx=self.xx * kept + rate * rate,
            xy=self.xy * kept + rate * cpu,
            most=max(self.most * kept, rate),
        )

    def rps(self, limit: float) -> float | None:
        """What a replica with `limit` cores can answer in requests/s; None where too little is known."""
        if self.n < LEAST_SAMPLES or self.y <= 0:
            return None
        mean = self.x / self.n
        variance = max(0.0, self.xx / self.n - mean * mean)
        cost, base = self.y / self.x, 0.0
        if math.sqrt(variance) >= LEAST_SPREAD * mean:
            slope = (self.xy / self.n - mean * self.y / self.n) / variance
            rest = self.y / self.n - slope * mean
            if slope > 0 and 0 <= rest <= MOST_BASE * limit:
                cost, base = max(slope, cost / MOST_BY_BASE), rest
        return max((limit - base) / cost, self.most)


NO_FIT = Fit()


def p95_start_s(starts: Iterable[float], stated_s: float) -> float:
    """The 95th percentile of measured start times; what is stated until there are enough."""
    known = sorted(one for one in starts if math.isfinite(one) and one >= 0)
    if len(known) < ENOUGH_STARTS:
        return max([stated_s, *known])
    return max(1.0, known[math.ceil(0.95 * len(known)) - 1])
