"""One autoscaler on one run of traffic: the loop, and what came of it.

Each second: replicas that have started serve, requests are served, the sample is on its way to the autoscaler, which is
asked when its time has come. Nothing here depends on a clock or on chance beyond the scenario's seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from operators.simulator.metrics import Metrics
from operators.simulator.plant import Fleet, Plant, Replica
from operators.simulator.rivals.base import Autoscaler, Bounds, Replicas
from operators.simulator.traffic import Arrivals

START_SPREAD = 0.1
"""Start times are spread evenly by this share around their mean."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in seconds from the start: spans without samples, restarts, spans with a cap on replicas."""

    gaps: tuple[tuple[int, int], ...] = ()
    restarts: tuple[int, ...] = ()
    caps: tuple[tuple[int, int, int], ...] = ()

    def cap(self, second: int) -> int | None:
        """The most replicas that can be had then, if there is a cap."""
        return next((most for start, end, most in self.caps if start <= second < end), None)


@dataclass(frozen=True)
class Run:
    """Traffic, the service under it, and what goes wrong."""

    arrivals: Arrivals
    replica: Replica
    start_s: float
    bounds: Bounds
    initial: int
    seed: int
    faults: Faults = field(default_factory=Faults)
    metric_delay_s: int = 2


@dataclass(frozen=True)
class Outcome:
    """What came of it: seconds out of service level, replica-hours, the most replicas asked for, turns.

    `wanted`, `ready` and `out` have a value for each second.
    """

    violation_s: int
    replica_h: float
    peak: int
    reversals: int
    wanted: NDArray[np.int32]
    ready: NDArray[np.int32]
    out: NDArray[np.bool_]


def simulate(run: Run, autoscaler: Autoscaler) -> Outcome:
    """Let the autoscaler size the service for the whole run."""
    plant, fleet, metrics = Plant(run.arrivals, run.replica), Fleet(run.initial), Metrics(run.metric_delay_s)
    spread = np.random.default_rng([run.seed, 3]).uniform(1 - START_SPREAD, 1 + START_SPREAD, 4096).tolist()
    seconds, wanted, paid_s, started = run.arrivals.seconds, run.initial, 0.0, 0
    wanted_of, ready_of = [0] * seconds, [0] * seconds
    gaps, restarts = _seconds_of(run.faults.gaps), set(run.faults.restarts)
    for second in range(seconds):
        ready = fleet.ready(second)
        sample = plant.second(second, ready)
        metrics.add(None if second in gaps else sample)
        now = second + 1
        if now in restarts:
            autoscaler.restart()
        if now % autoscaler.every_s == 0:
            wanted = autoscaler.decide(now, metrics, Replicas(ready, wanted))
        cap = run.faults.cap(second) if run.faults.caps else None
        size = wanted if cap is None else min(wanted, cap)
        if size > fleet.size:
            more = size - fleet.size
            fleet.grow([now + run.start_s * spread[(started + i) % len(spread)] for i in range(more)])
            started += more
        elif size < fleet.size:
            fleet.shrink(fleet.size - size, run.replica.drain_s)
        paid_s += fleet.paid_s()
        wanted_of[second], ready_of[second] = wanted, ready
    out = plant.finish()
    return Outcome(
        violation_s=int(out.sum()),
        replica_h=paid_s / 3600,
        peak=max(wanted_of),
        reversals=reversals(wanted_of),
        wanted=np.asarray(wanted_of, dtype=np.int32),
        ready=np.asarray(ready_of, dtype=np.int32),
        out=out,
    )


def reversals(wanted: Sequence[int]) -> int:
    """How often the direction of change turned: up, down is one; up, down, up two."""
    turns, last = 0, 0
    for before, after in pairwise(wanted):
        if after != before:
            direction = 1 if after > before else -1
            turns += last not in (0, direction)
            last = direction
    return turns


def constant(run: Run, count: int) -> int:
    """Seconds out of service level with as many replicas all the time."""
    plant = Plant(run.arrivals, run.replica)
    for second in range(run.arrivals.seconds):
        plant.second(second, count)
    return int(plant.finish().sum())


def least_constant(run: Run) -> int:
    """The smallest count that, kept all the time, would have stayed within the level in every second."""
    low, high = 1, 1
    while constant(run, high) > 0:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if constant(run, middle) == 0 else (middle + 1, high)
    return high


def _seconds_of(spans: tuple[tuple[int, int], ...]) -> set[int]:
    return {second for start, end in spans for second in range(start, end)}
