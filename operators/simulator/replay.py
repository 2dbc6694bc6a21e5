"""Recorded traffic under two policies of Switchboard's: the new one, and the one to compare it with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from operators.simulator.compare import Cell, cell, policy
from operators.simulator.plant import Replica
from operators.simulator.report import Plot
from operators.simulator.run import least_constant, simulate
from operators.simulator.scenarios import Scenario
from switchboard.api.scaling import Scaling

NEW, BEFORE, DEFAULT = "new", "before", "defaults"


@dataclass(frozen=True)
class Replayed:
    """The figures of each policy, and their picture."""

    cells: list[Cell]
    plot: Plot


def replay(
    scenario: Scenario,
    replica: Replica,
    start_s: float,
    new: Scaling,
    before: Scaling | None = None,
    *,
    seed: int = 0,
) -> Replayed:
    """Both policies on the scenario; without one to compare with, the defaults in the new one's bounds."""
    policies = {NEW: new}
    if before is None:
        policies[DEFAULT] = Scaling(min_replicas=new.min_replicas, max_replicas=new.max_replicas)
    else:
        policies[BEFORE] = before
    run = replace(scenario, replica=replica).run(start_s, seed)
    least = least_constant(run)
    outcomes = {
        name: simulate(run, policy("switchboard", run, scaling)) for name, scaling in policies.items()
    }
    cells = [cell(scenario.name, name, run, outcome, least) for name, outcome in outcomes.items()]
    return Replayed(cells, Plot(f"{scenario.what}, replicas start in {start_s:g} s", run, outcomes))
