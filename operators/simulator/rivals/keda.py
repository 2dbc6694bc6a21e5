"""KEDA: above one replica it is the HPA on an external metric; its own poll and cooldown govern 0 to 1 and back."""

from __future__ import annotations

from dataclasses import dataclass, field

from operators.simulator.metrics import Metrics
from operators.simulator.rivals.base import Bounds, Replicas, Target
from operators.simulator.rivals.hpa import HpaOnRate


@dataclass
class Keda:
    """Active while requests arrive; with a least of 0 it goes to 0 when it wasn't for `cooldown_s`."""

    target: Target
    bounds: Bounds
    every_s: int = 15
    poll_s: int = 30
    cooldown_s: int = 300
    _hpa: HpaOnRate = field(init=False)
    _polled: int = field(default=-(10**9), init=False)
    _active: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.restart()

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        if now - self._polled >= self.poll_s:
            self._polled = now
            rate = metrics.rate(now, self.every_s)
            if rate is None or rate > 0:
                self._active = now
        if self.bounds.least == 0:
            if replicas.size == 0:
                return 1 if self._active == now else 0
            if now - self._active > self.cooldown_s:
                return 0
        return self._hpa.decide(now, metrics, replicas)

    def restart(self) -> None:
        """When it was last active is kept: that is in the ScaledObject's status."""
        self._hpa = HpaOnRate(self.target, Bounds(max(1, self.bounds.least), self.bounds.most))
