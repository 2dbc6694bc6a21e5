"""Knative's autoscaler (KPA), as of `pkg/autoscaler/scaling/autoscaler.go`, on concurrency.

Two windows of mean concurrency. The stable one (60 s) decides, unless the panic one (6 s) wants twice the ready pods:
then, until 60 s after the last time that it did, the number only goes up. Per tick at most x 1000 up, / 2 down.
One that starts beside more than one ready pod starts in panic, with these as the least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from operators.simulator.metrics import Metrics
from operators.simulator.rivals.base import Bounds, Replicas, Target


@dataclass
class Kpa:
    """`target.in_flight` is the container's concurrency times the target utilisation."""

    target: Target
    bounds: Bounds
    every_s: int = 2
    stable_s: int = 60
    panic_s: int = 6
    panic_threshold: float = 2.0
    max_up: float = 1000.0
    max_down: float = 2.0
    _panic_since: int | None = field(default=None, init=False)
    _panic_most: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        if not self._begun:
            self._begun = True
            if replicas.ready > 1:
                self._panic_since, self._panic_most = now, replicas.ready
        stable, panic = metrics.in_flight(now, self.stable_s), metrics.in_flight(now, self.panic_s)
        if stable is None or panic is None:
            return replicas.size
        ready = max(1, replicas.ready)
        most, least = math.ceil(self.max_up * ready), math.floor(ready / self.max_down)

        def limited(concurrency: float) -> int:
            return min(max(math.ceil(concurrency / self.target.in_flight), least), most)

        over = math.ceil(panic / self.target.in_flight) / ready >= self.panic_threshold
        if over:
            if self._panic_since is None:
                self._panic_most = 0
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since > self.stable_s:
            self._panic_since = None
        wanted = limited(stable)
        if self._panic_since is not None:
            self._panic_most = max(self._panic_most, wanted, limited(panic))
            wanted = self._panic_most
        return self.bounds.clip(wanted)

    def restart(self) -> None:
        self._panic_since, self._panic_most, self._begun = None, 0, False
