"""The Horizontal Pod Autoscaler, as of `pkg/controller/podautoscaler`, with its default behaviour.

Every 15 s. Within 10 % of the target nothing changes. Up at most by 100 % or 4 pods in 15 s, whichever is more; down
to the highest recommendation of the last 300 s, of which the number that a controller finds when it starts is the
first. On concurrency it is a metric of the pods (those that aren't ready count as idle, which shrinks a step up but
doesn't turn it); on rate it is one value for all of them, as KEDA's is.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from operators.simulator.metrics import Metrics
from operators.simulator.rivals.base import Bounds, Replicas, Target

TOLERANCE = 0.1


@dataclass
class Behaviour:
    """The default `behavior` of autoscaling/v2: what is done of what is recommended."""

    bounds: Bounds
    period_s: int = 15
    up_factor: float = 2.0
    up_pods: int = 4
    down_window_s: int = 300
    _ups: deque[tuple[int, int]] = field(default_factory=deque, init=False)
    _recommended: deque[tuple[int, int]] = field(default_factory=deque, init=False)
    _begun: bool = field(default=False, init=False)

    def begin(self, now: int, current: int) -> None:
        """As `recordInitialRecommendation`: what there is counts as recommended, whether or not anything is known."""
        if not self._begun:
            self._begun = True
            self._recommended.append((now, current))

    def limit(self, now: int, current: int, wanted: int) -> int:
        """The number that is set, of the recommended one."""
        self.begin(now, current)
        self._recommended.append((now, wanted))
        while self._recommended[0][0] <= now - self.down_window_s:
            self._recommended.popleft()
        if wanted < current:
            wanted = min(current, max(one for _, one in self._recommended))
        elif wanted > current:
            while self._ups and self._ups[0][0] <= now - self.period_s:
                self._ups.popleft()
            before = current - sum(added for _, added in self._ups)
            wanted = min(wanted, max(math.ceil(before * self.up_factor), before + self.up_pods))
            wanted = max(wanted, current)
        wanted = self.bounds.clip(wanted)
        if wanted > current:
            self._ups.append((now, wanted - current))
        return wanted


def pods_metric(total: float, target: float, ready: int, size: int) -> int:
    """The recommendation for a metric of each pod: `total` over the `ready` ones, of `size` there are."""
    if ready == 0:
        return size
    ratio = total / (target * ready)
    if size > ready and ratio > 1:
        with_idle = total / (target * size)
        if abs(1 - with_idle) <= TOLERANCE or with_idle < 1:
            return size
        return max(size, math.ceil(with_idle * size))
    if abs(1 - ratio) <= TOLERANCE:
        return size
    return math.ceil(ratio * ready)


def external_metric(total: float, target: float, size: int) -> int:
    """The recommendation for one value with an `averageValue`."""
    if size and abs(1 - total / (target * size)) <= TOLERANCE:
        return size
    return math.ceil(total / target)


@dataclass
class _Hpa:
    """What both have in common: what is recommended, within the behaviour; nothing new where nothing is known."""

    target: Target
    bounds: Bounds
    every_s: int = 15
    _behaviour: Behaviour = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        self._behaviour.begin(now, replicas.size)
        wanted = self._recommended(now, metrics, replicas)
        return replicas.size if wanted is None else self._behaviour.limit(now, replicas.size, wanted)

    def restart(self) -> None:
        self._behaviour = Behaviour(self.bounds)

    def _recommended(self, now: int, metrics: Metrics, replicas: Replicas) -> int | None:
        raise NotImplementedError


class HpaOnConcurrency(_Hpa):
    """Requests in flight, on average over the last 15 s."""

    def _recommended(self, now: int, metrics: Metrics, replicas: Replicas) -> int | None:
        total = metrics.in_flight(now, self.every_s)
        if total is None:
            return None
        return pods_metric(total, self.target.in_flight, replicas.ready, replicas.size)


class HpaOnRate(_Hpa):
    """Requests/s that arrive, on average over the last 15 s."""

    def _recommended(self, now: int, metrics: Metrics, replicas: Replicas) -> int | None:
        total = metrics.rate(now, self.every_s)
        return None if total is None else external_metric(total, self.target.rps, replicas.size)
