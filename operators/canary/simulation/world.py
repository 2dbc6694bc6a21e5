"""Releases that are made up: what candidate and champion count in each block, for many releases at once.

Traffic follows the day; pods differ for as long as they live; an incident may hit both arms for minutes. All of it
comes from one seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from operators.canary.values import METRICS, USUAL, Metric, Unit

Array = NDArray[np.float64]

DAY_S = 86_400.0
BASE = USUAL
"""The champion's rates, by metric."""
ANOTHER_MODEL = 0.06
"""A candidate that is as good answers so many of the questions in another way."""
INCIDENT_S, INCIDENT_TIMES, HIT = 300.0, 10.0, frozenset({"failed", "slow"})
BEFORE_S = 1800.0


@dataclass(frozen=True)
class Scenario:
    """How a candidate differs, and what befalls both arms; `what` says it in words.

    `times`: by metric, how many times the champion's rate is the candidate's; `drift_s`: it gets there slowly, in so
    long; `spread`: the standard deviation of the logarithm of pods' own rates.
    """

    name: str
    what: str
    times: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)
    drift_s: float = 0.0
    spread: float = 0.1
    incident: bool = False
    silent_for_s: float = 0.0
    """For so long in every ten minutes nothing is known of either arm."""

    @property
    def harmful(self) -> bool:
        return bool(self.times)


SLOWER = 2.5
"""A fifth slower: of answers whose times are lognormal (sigma 0.5) with 1 % over the bound, 2.5 % are then."""

SCENARIOS = (
    Scenario("same", "the champion once more, as another version"),
    Scenario("same+shared-incident", "ten times the failures of both arms for 5 min", incident=True),
    Scenario("same+overdispersed", "pods whose own rates differ by 30 %", spread=0.3),
    Scenario("same+gaps", "nothing is known for 2 of every 10 min", silent_for_s=120.0),
    Scenario("errors-1.5x", "failed requests: 0.5 % to 0.75 %", {"failed": 1.5}),
    Scenario("errors-2x", "failed requests: 0.5 % to 1 %", {"failed": 2.0}),
    Scenario("errors-4x", "failed requests: 0.5 % to 2 %", {"failed": 4.0}),
    Scenario("errors-4x+shared-incident", "the same in an incident", {"failed": 4.0}, incident=True),
    Scenario("errors-2x+overdispersed", "1 %, of pods that differ", {"failed": 2.0}, spread=0.3),
    Scenario("errors-drift-to-3x", "0.5 % to 1.5 % in half an hour", {"failed": 3.0}, drift_s=1800.0),
    Scenario("errors-sparse-10x", "0.02 % to 0.2 %", {"failed": 10.0}, base={"failed": 0.0002}),
    Scenario("slower-20%", "answers a fifth slower: 1 % to 2.5 % over the bound", {"slow": SLOWER}),
    Scenario("handoffs-1.5x", "hand-offs to a person: 8 % to 12 %", {"handoff": 1.5}),
    Scenario("leak", "a candidate's memory grows in 4 of 5 times 20 s", {"grew": 40.0}),
)


@dataclass(frozen=True)
class Setting:
    """The same for all releases: the traffic, the candidate's share of it, and how long it goes on at most."""

    releases: int = 2000
    rps: float = 100.0
    weight: float = 0.1
    horizon_s: float = 3600.0
    block_s: float = 10.0
    champion_pods: int = 10
    candidate_pods: int = 2
    seed: int = 0


Arm = dict[str, tuple[Array, Array]]
"""By metric, the events and the exposure of each pod; shape (releases, pods)."""


class World:
    """A scenario's releases: what the champion's pods did before, and then block after block."""

    def __init__(self, scenario: Scenario, setting: Setting, metrics: Sequence[Metric] = METRICS) -> None:
        self._scenario, self._setting, self._metrics = scenario, setting, metrics
        self._random = np.random.default_rng([setting.seed, *scenario.name.encode()])
        shape = (setting.releases, 1)
        self._phase = self._random.uniform(0, DAY_S, shape)
        self._incident_at = self._random.uniform(0, setting.horizon_s / 2, shape)
        pods = {"candidate": setting.candidate_pods, "champion": setting.champion_pods}
        spread = scenario.spread
        self._effects = {
            (arm, metric.name): np.exp(
                self._random.normal(-(spread**2) / 2, spread, (setting.releases, count))
            )
            for arm, count in pods.items()
            for metric in metrics
        }

    def before(self) -> Arm:
        """What each of the champion's pods has counted in the half hour before, without incidents."""
        return self._arm("champion", 1.0, BEFORE_S, -BEFORE_S)

    def blocks(self) -> Iterator[tuple[Arm, Arm] | None]:
        """Candidate and champion; None where nothing is known."""
        setting, scenario = self._setting, self._scenario
        for number in range(round(setting.horizon_s / setting.block_s)):
            at = number * setting.block_s
            if at % 600.0 < scenario.silent_for_s:
                yield None
                continue
            hit = scenario.incident & (self._incident_at <= at) & (at < self._incident_at + INCIDENT_S)
            bad = np.where(hit, INCIDENT_TIMES, 1.0)
            yield (
                self._arm("candidate", setting.weight, setting.block_s, at, bad),
                self._arm("champion", 1 - setting.weight, setting.block_s, at, bad),
            )

    def _arm(self, arm: str, share: float, length_s: float, at: float, bad: Array | float = 1.0) -> Arm:
        count = self._effects[arm, self._metrics[0].name].shape[1]
        rps = self._setting.rps * (1 + 0.5 * np.sin(2 * np.pi * (at + self._phase) / DAY_S))
        requests = self._random.poisson(rps * share * length_s / count, (self._setting.releases, count))
        found: Arm = {}
        for metric in self._metrics:
            rate = _rate(self._scenario, metric, arm, at) * self._effects[arm, metric.name]
            if metric.name in HIT:
                rate = rate * bad
            found[metric.name] = _counted(self._random, metric, rate, requests, length_s)
        return found


def _rate(scenario: Scenario, metric: Metric, arm: str, at: float) -> float:
    base = scenario.base.get(metric.name, BASE[metric.name])
    if arm == "champion":
        return base
    if metric.name == "disagreed":
        return ANOTHER_MODEL * scenario.times.get(metric.name, 1.0)
    reached = min(1.0, max(0.0, at) / scenario.drift_s) if scenario.drift_s else 1.0
    return base * (1 + (scenario.times.get(metric.name, 1.0) - 1) * reached)


def _counted(
    random: np.random.Generator, metric: Metric, rate: Array, requests: NDArray[np.int64], length_s: float
) -> tuple[Array, Array]:
    if metric.unit is Unit.REQUESTS:
        return random.binomial(requests, np.minimum(rate, 1.0)).astype(np.float64), requests.astype(
            np.float64
        )
    exposure = np.full(rate.shape, metric.unit.of(length_s))
    return random.poisson(rate * exposure).astype(np.float64), exposure
