"""Ray Serve's default policy, as of `serve/autoscaling_policy.py`: requests in flight over the last 30 s.

A larger number has to be wanted for 30 s without a break before it is set, a smaller one for 600 s. The number that is
set survives a restart of the controller (a checkpoint has it), the counts of how long another was wanted don't.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from operators.simulator.metrics import Metrics
from operators.simulator.rivals.base import Bounds, Replicas, Target


@dataclass
class RayServe:
    """`target.in_flight` is `target_ongoing_requests`."""

    target: Target
    bounds: Bounds
    every_s: int = 1
    look_back_s: int = 30
    up_delay_s: int = 30
    down_delay_s: int = 600
    _counter: int = field(default=0, init=False)

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        total = metrics.in_flight(now, self.look_back_s)
        if total is None:
            return replicas.size
        wanted = self.bounds.clip(math.ceil(total / self.target.in_flight))
        if wanted > replicas.size:
            self._counter = max(0, self._counter) + self.every_s
            if self._counter > self.up_delay_s:
                self._counter = 0
                return wanted
        elif wanted < replicas.size:
            self._counter = min(0, self._counter) - self.every_s
            if self._counter < -self.down_delay_s:
                self._counter = 0
                return wanted
        else:
            self._counter = 0
        return replicas.size

    def restart(self) -> None:
        self._counter = 0
