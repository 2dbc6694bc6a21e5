"""Switchboard's own policy in the simulation: the operator's code, told what the operator would see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from operators.scaling import Capacity, Decision, Observation, State, begin, decide
from operators.scaling.history import BUCKET_S, History
from operators.simulator.metrics import Metrics
from operators.simulator.rivals.base import Replicas
from switchboard.api.scaling import Scaling


@dataclass
class Switchboard:
    """`record`, where given, is called with every decision."""

    scaling: Scaling
    capacity: Capacity
    every_s: int = 2
    record: Callable[[Decision], None] | None = None
    _state: State | None = field(default=None, init=False)

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        if self._state is None:
            self._state = begin(now, self._known(now, metrics))
        window_s = self.scaling.up_window_seconds
        seen = Observation(
            current=replicas.size,
            ready=replicas.ready,
            rate=metrics.rate(now, window_s),
            in_service=metrics.in_service(now, window_s),
            queued=metrics.queued(now, self.every_s),
            latest_rate=metrics.rate(now, self.every_s),
            tick_s=self.every_s,
        )
        decision, self._state = decide(self.scaling, self.capacity, seen, self._state, now)
        if self.record is not None:
            self.record(decision)
        return decision.wanted

    def restart(self) -> None:
        self._state = None

    def _known(self, now: int, metrics: Metrics) -> History:
        """What a query to Prometheus gives an operator that starts."""
        last = now // BUCKET_S * BUCKET_S
        first = max(BUCKET_S, last - round(self.scaling.headroom.history_seconds))
        rates = [metrics.rate(end, BUCKET_S) for end in range(first, last + 1, BUCKET_S)]
        return History.of(
            (math.nan if rate is None else rate for rate in rates),
            level_s=self.scaling.headroom.level_seconds,
            keep_s=self.scaling.headroom.history_seconds,
        )
