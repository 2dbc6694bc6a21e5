"""All policies on all scenarios: the cells of the comparison, and their sums.

A cell is a scenario with a start time and a seed under one policy. Cells are independent, and are spread over the
machine's processors; the same arguments give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from operators.parallel import spread
from operators.scaling import Capacity
from operators.simulator.rivals import Autoscaler, HpaOnConcurrency, HpaOnRate, Keda, Kpa, RayServe, Target
from operators.simulator.run import Outcome, Run, least_constant, simulate
from operators.simulator.scenarios import STEP, TRACES, UTILIZATION, Scenario, from_trace, standard
from operators.simulator.switchboard import Switchboard
from switchboard.api.scaling import Scaling
from switchboard.errors import SwitchboardError

OURS = "switchboard"
RIVALS: dict[str, Callable[..., Autoscaler]] = {
    "kpa": Kpa,
    "hpa-concurrency": HpaOnConcurrency,
    "hpa-rate": HpaOnRate,
    "keda": Keda,
    "ray": RayServe,
}
POLICIES = (OURS, *RIVALS)


@dataclass(frozen=True)
class Job:
    """A scenario by its name (a trace by its file) and a seed; with all start times, for all policies."""

    scenario: str
    seed: int
    starts_s: tuple[int, ...]
    trace: Path | None = None
    traces: Path = TRACES
    policies: tuple[str, ...] = POLICIES
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Cell:
    """What came of one. `least_constant`: the count that, kept all the time, would have been enough."""

    scenario: str
    start_s: int
    seed: int
    policy: str
    violation_s: int
    replica_h: float
    peak: int
    reversals: int
    least_constant: int


def policy(name: str, run: Run, scaling: Scaling | None = None) -> Autoscaler:
    """The policy of that name for a run; `scaling` is Switchboard's, by default its defaults in the run's bounds."""
    replica, bounds = run.replica, run.bounds
    if name != OURS:
        target = Target(UTILIZATION * replica.slots, UTILIZATION * replica.capacity_rps)
        return RIVALS[name](target, bounds)
    if scaling is None:
        scaling = Scaling(min_replicas=bounds.least, max_replicas=bounds.most)
    wait_s = replica.bound_s - replica.service_s
    return Switchboard(scaling, Capacity(replica.capacity_rps, replica.slots, wait_s, run.start_s))


def find(job: Job) -> Scenario:
    """The scenario that a job names."""
    if job.trace is not None:
        return from_trace(job.trace)
    return next(one for one in standard(job.traces) if one.name == job.scenario)


def work(job: Job) -> list[Cell]:
    """The cells of one job."""
    first = find(job).run(job.starts_s[0], job.seed)
    least = least_constant(first)
    return [
        cell(job.scenario, name, run, simulate(run, policy(name, run, job.scaling)), least)
        for run in (replace(first, start_s=start) for start in job.starts_s)
        for name in job.policies
    ]


def cell(scenario: str, name: str, run: Run, outcome: Outcome, least: int) -> Cell:
    """The figures of one run."""
    return Cell(
        scenario=scenario,
        start_s=round(run.start_s),
        seed=run.seed,
        policy=name,
        violation_s=outcome.violation_s,
        replica_h=round(outcome.replica_h, 3),
        peak=outcome.peak,
        reversals=outcome.reversals,
        least_constant=least,
    )


def jobs(
    names: Sequence[str],
    starts_s: Sequence[int],
    seeds: int,
    *,
    trace: Path | None = None,
    traces: Path = TRACES,
    scaling: Scaling | None = None,
) -> list[Job]:
    """The jobs for scenarios of these names (all, where there are none), and for a user's trace.

    Raises:
        SwitchboardError: a name is no scenario's, or the trace is none or of too much.
    """
    own = None
    if trace is not None:
        mine = from_trace(trace)
        mine.bounds(mine.rates(0))  # said before anything is simulated
        own = mine.name
    known = [one.name for one in standard(traces)]
    if own in known:
        raise SwitchboardError(f"the trace {trace} has the name of a scenario", "rename the file")
    everything = [*known, *([own] if own else [])]
    if unknown := [name for name in names if name not in everything]:
        raise SwitchboardError(f"no scenario {unknown[0]!r}; there are {', '.join(everything)}")
    return [
        Job(name, seed, tuple(starts_s), trace if name == own else None, traces, scaling=scaling)
        for name in names or everything
        for seed in range(seeds)
    ]


def compare(todo: Sequence[Job], done: Callable[[int], None] = lambda _: None) -> list[Cell]:
    """All cells, in the order of the jobs; `done` hears how many jobs are."""
    cells: list[Cell] = []
    for number, found in enumerate(spread(work, todo), 1):
        cells += found
        done(number)
    return cells


def totals(cells: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """Over all cells of each policy: sums, and the highest peak."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        one = found.setdefault(cell.policy, {"violation_s": 0, "replica_h": 0.0, "peak": 0, "reversals": 0})
        one["violation_s"] += cell.violation_s
        one["replica_h"] = round(one["replica_h"] + cell.replica_h, 3)
        one["peak"] = max(one["peak"], cell.peak)
        one["reversals"] += cell.reversals
    return found


def highest_peak(cells: Iterable[Cell]) -> dict[str, float]:
    """Over all cells of each policy: the highest peak as a multiple of the smallest constant count that is enough."""
    found: dict[str, float] = {}
    for cell in cells:
        found[cell.policy] = max(found.get(cell.policy, 0.0), cell.peak / cell.least_constant)
    return found


def turns_after_a_step(cells: Iterable[Cell]) -> dict[str, int]:
    """Of each policy: the most turns in a run of STEP, where up, and at its end down, is one. Empty without such."""
    found: dict[str, int] = {}
    for cell in cells:
        if cell.scenario == STEP:
            found[cell.policy] = max(found.get(cell.policy, 0), cell.reversals)
    return found


def as_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """`{"totals": {policy: {…}}, "cells": […]}`"""
    return {"totals": totals(cells), "cells": [asdict(cell) for cell in cells]}
