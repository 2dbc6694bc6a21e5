"""All judges on the same simulated releases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from operators.canary import evidence
from operators.canary.evidence import Tally
from operators.canary.judge import SAFE_BOUND, harm_bound
from operators.canary.simulation import rivals
from operators.canary.simulation.outcome import Outcome
from operators.canary.simulation.world import SCENARIOS, Arm, Scenario, Setting, World
from operators.canary.values import METRICS, Metric
from operators.parallel import spread
from switchboard.errors import SwitchboardError

Array = NDArray[np.float64]
JUDGES = ("switchboard", *rivals.RIVALS)


@dataclass(frozen=True)
class Cell:
    """What became of a scenario's releases, by judge."""

    scenario: Scenario
    judges: dict[str, Outcome]

    def document(self) -> dict[str, object]:
        judges = {name: outcome.figures() for name, outcome in self.judges.items()}
        return {"scenario": self.scenario.name, "judges": judges}


def simulate(
    scenarios: Sequence[Scenario], setting: Setting, done: Callable[[int], None] = lambda _: None
) -> list[Cell]:
    """All scenarios, on all cores; `done` hears how many are."""
    cells = []
    for cell in spread(partial(run, setting=setting), scenarios):
        cells.append(cell)
        done(len(cells))
    return cells


def chosen(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, all where none is said.

    Raises:
        SwitchboardError: there is no such scenario.
    """
    known = {one.name: one for one in SCENARIOS}
    if unknown := [name for name in names if name not in known]:
        raise SwitchboardError(f"no scenario {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names or known]


def run(scenario: Scenario, setting: Setting) -> Cell:
    """One scenario's releases under all judges."""
    world = World(scenario, setting)
    ours = _Ours(setting, world.before())
    minutes = round(setting.horizon_s / 60)
    counted = {
        arm: {
            metric.name: (np.zeros((setting.releases, minutes)), np.zeros((setting.releases, minutes)))
            for metric in METRICS
        }
        for arm in ("candidate", "champion")
    }
    for number, block in enumerate(world.blocks()):
        end_s = (number + 1) * setting.block_s
        if block is None:
            continue
        minute = min(minutes - 1, int(number * setting.block_s // 60))
        for arm, pods in zip(counted, block, strict=True):
            for name, (events, exposure) in pods.items():
                counted[arm][name][0][:, minute] += events.sum(axis=1)
                counted[arm][name][1][:, minute] += exposure.sum(axis=1)
        ours.look(*block, end_s)
    return Cell(
        scenario,
        {
            "switchboard": Outcome.of(ours.aborted, ours.promoted, minutes),
            "threshold": rivals.threshold(counted["candidate"]),
            "mann-whitney": rivals.mann_whitney(counted["candidate"], counted["champion"]),
        },
    )


class _Ours:
    """The judge's own evidence and bounds, for many releases at once; those with a verdict are looked at no more."""

    def __init__(self, setting: Setting, before: Arm, metrics: Sequence[Metric] = METRICS) -> None:
        self._metrics = metrics
        self.aborted, self.promoted = (np.full(setting.releases, math.inf) for _ in range(2))
        self._open = np.arange(setting.releases)
        self._tallies = {one.name: Tally.empty((setting.releases,)) for one in metrics}
        shape = (setting.releases, setting.champion_pods)
        self._events, self._expected = ({one.name: np.zeros(shape) for one in metrics} for _ in range(2))
        self._arms = evidence.between_arms(setting.candidate_pods, setting.champion_pods)
        for name in self._tallies:
            self._noise(name, *before[name])

    def _noise(self, name: str, events: Array, of: Array) -> None:
        rate = events.sum(axis=1) / np.maximum(of.sum(axis=1), 1e-12)
        self._events[name] += events
        self._expected[name] += of * rate[:, None]

    def look(self, candidate: Arm, champion: Arm, end_s: float) -> None:
        if not len(self._open):
            return
        abort = np.zeros(len(self._open), dtype=bool)
        safe = np.ones(len(self._open), dtype=bool)
        for metric in self._metrics:
            name = metric.name
            mine, theirs = ([part[self._open] for part in arm[name]] for arm in (candidate, champion))
            x, n, y, m = (part.sum(axis=1) for part in (*mine, *theirs))
            tally = self._tallies[name].add(x, n, y, m, tolerated=metric.tolerated, margin=metric.margin)
            self._tallies[name] = tally
            self._noise(name, *theirs)
            usual, sure = evidence.spread_of_pods(self._events[name], self._expected[name])
            abort |= evidence.log_harm(tally, usual * self._arms, sure) >= harm_bound(metric.of_all)
            safe &= evidence.log_safe(tally, metric.quiet) >= SAFE_BOUND
        self.aborted[self._open[abort]] = end_s / 60
        self.promoted[self._open[safe & ~abort]] = end_s / 60
        self._keep(~abort & ~safe)

    def _keep(self, still: NDArray[np.bool_]) -> None:
        if still.all():
            return
        self._open = self._open[still]
        for name, tally in self._tallies.items():
            self._tallies[name] = Tally(tally.harm[still], tally.safe[still])
            self._events[name], self._expected[name] = (
                self._events[name][still],
                self._expected[name][still],
            )
