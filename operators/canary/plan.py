"""What a release can be expected to show, before it begins: how long it takes, the smallest harm that it sees, and what
a candidate that fails every request would cost. Pure.

The judge's own evidence is fed with the counts that are expected, block after block; where they come to a verdict is
about the median of when real ones do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.canary.evidence import USUAL_SPREAD, USUAL_SURE, Tally, between_arms, log_harm, log_safe
from operators.canary.judge import SAFE_BOUND, harm_bound
from operators.canary.values import METRICS, Metric, Unit
from switchboard.api.model_release import MetricName, Shadow

BLOCK_S, MOST_BLOCKS = 10.0, 120
REACTION_S = 12.0
"""From a request that is seen to fail until no other is sent: its block, and the two seconds of the gateways."""
AVAILABILITY, PART = 0.9999, 0.05
"""A candidate that fails every request may cost so much of the failures that a month's availability leaves."""
WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
MONTH_S = 30 * 86_400.0
MOST_AN_HOUR, MOST_ASKED = 3600.0, 1000
FINER, SIDE_BY_SIDE = 1.03, 64
DISAGREED = MetricName.DISAGREED


@dataclass(frozen=True, slots=True)
class Step:
    """So much of the traffic for so long; the last one lasts until there is a verdict."""

    weight: float
    hold_s: float


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Before the first customer: such a share of the requests is sent to the candidate as well, and to a baseline that
    is as young, for so long, and until it is known whether they answer alike. A share of 0: nothing is."""

    share: float
    hold_s: float


USUAL_MIRRORED, NOT_MIRRORED = Mirrored(Shadow().percent / 100, Shadow().seconds), Mirrored(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a release is planned for: requests/s, the champion's rates by metric, and the pods of either arm."""

    rps: float
    rates: Mapping[str, float]
    champion_pods: int = 2
    candidate_pods: int = 1


@dataclass(frozen=True, slots=True)
class Visible:
    """Of a metric: the champion's rate, when harm beyond the margin is excluded (None: not in time), and the lowest
    rate of a candidate that is shown to be harm in time (None: none is)."""

    metric: Metric
    rate: float
    safe_s: float | None
    harm: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """`mirrored_s`: how long requests are mirrored before the first step. `promote_s`: when a candidate that is as good
    is promoted (None: not in time). `failures`: requests that fail if all of the candidate's do, out of `allowed`."""

    mirrored_s: float
    steps: tuple[Step, ...]
    within_s: float
    metrics: tuple[Visible, ...]
    promote_s: float | None
    failures: float
    allowed: float

    @property
    def refusal(self) -> str | None:
        """Why such a release could come to nothing; None where it can."""
        if late := [one for one in self.metrics if one.safe_s is None]:
            return _unseen(late[0].metric, late[0].rate, self.within_s)
        if self.failures > self.allowed:
            return (
                f"weight {self.steps[0].weight:g}: a candidate that fails every request would cost "
                f"{self.failures:,.0f} of them before it is stopped; {self.allowed:,.0f} are allowed: begin with less"
            )
        return None


def allowed_failures(rps: float, availability: float = AVAILABILITY, part: float = PART) -> float:
    """Requests that one release may cost: a part of what a month's availability leaves."""
    return rps * MONTH_S * (1 - availability) * part


def weigh(traffic: Traffic, allowed: float, hold_s: float = 60.0) -> tuple[Step, ...]:
    """Steps of rising weight, from the largest at which a candidate that fails every request costs what is allowed at
    most; the least there is where none does."""
    fit = [weight for weight in WEIGHTS if worst_case(traffic, weight) <= allowed] or [WEIGHTS[0]]
    first = min(max(fit), 0.1)
    return tuple(Step(weight, hold_s) for weight in WEIGHTS if weight >= first)


def plan(
    traffic: Traffic,
    steps: Sequence[Step],
    within_s: float,
    allowed: float,
    metrics: Sequence[Metric] = METRICS,
    mirrored: Mirrored = USUAL_MIRRORED,
) -> Plan:
    """What a release in these steps is expected to show within so long."""
    course = _course(traffic, steps, within_s, metrics, mirrored)
    found = tuple(_visible(course, metric) for metric in course.judged(metrics))
    times = [one.safe_s for one in found]
    known = [one for one in times if one is not None]
    # each step is gone, whatever is known before
    last_s = course.mirrored_s + sum(step.hold_s for step in steps[:-1])
    promote_s = max(*known, last_s) if len(known) == len(times) else None
    if promote_s is not None and promote_s > within_s:
        promote_s = None
    cost = worst_case(traffic, steps[0].weight)
    return Plan(course.mirrored_s, tuple(steps), within_s, found, promote_s, cost, allowed)


def blind(
    traffic: Traffic,
    steps: Sequence[Step],
    within_s: float,
    metrics: Sequence[Metric] = METRICS,
    mirrored: Mirrored = USUAL_MIRRORED,
) -> str | None:
    """The metric of which nothing is seen in time, as the plan's refusal says it; None where all are. It takes some
    hundredths of a second, and not the seconds that a whole plan does."""
    course = _course(traffic, steps, within_s, metrics, mirrored)
    for metric in course.judged(metrics):
        if _safe_at(course, metric) is None:
            return _unseen(metric, traffic.rates.get(metric.name, 0.0), within_s)
    return None


def _unseen(metric: Metric, rate: float, within_s: float) -> str:
    return (
        f"{metric.what}: {metric.said(metric.margin)} more than the champion's {metric.said(rate)} can't be excluded "
        f"within {within_s / 60:.0f} min; it takes more traffic, weight or time, or a wider margin"
    )


def worst_case(traffic: Traffic, weight: float, metrics: Sequence[Metric] = METRICS) -> float:
    """Requests that fail until a candidate that fails all of them gets none any more; infinite: nobody would see it."""
    metric = next(one for one in metrics if one.name == "failed")
    rate = traffic.rates.get(metric.name, 0.0)
    for asked in range(1, MOST_ASKED):
        others = asked * (1 - weight) / weight
        tally = Tally.empty().add(
            asked, asked, others * rate, others, tolerated=metric.tolerated, margin=metric.margin
        )
        if _shows_harm(tally, traffic, metric):
            return asked + traffic.rps * weight * REACTION_S
    return math.inf


def _shows_harm(tally: Tally, traffic: Traffic, metric: Metric) -> NDArray[np.bool_]:
    """With pods that differ by what is usual, which their half hour before has shown."""
    spread = USUAL_SPREAD * between_arms(traffic.candidate_pods, traffic.champion_pods)
    evidence = log_harm(tally, spread, USUAL_SURE + traffic.champion_pods - 1)
    found: NDArray[np.bool_] = evidence >= harm_bound(metric.of_all)
    return found


@dataclass(frozen=True, slots=True)
class _Course:
    """What is expected to happen, and when: `mirrored_s` is when the first step begins."""

    traffic: Traffic
    mirrored: Mirrored
    mirrored_s: float
    steps: Sequence[Step]
    within_s: float

    def judged(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Without mirrored requests nobody answers what another has answered."""
        return [one for one in metrics if self.mirrored.share > 0 or one.name != DISAGREED]

    def blocks(self, metric: Metric) -> Iterator[tuple[float, float, float]]:
        """The end of each block, and what either arm is exposed to in it."""
        traffic, at = self.traffic, 0.0
        block_s = max(BLOCK_S, self.within_s / MOST_BLOCKS)
        while at < self.within_s:
            mirrored = at < self.mirrored_s
            if metric.name == DISAGREED and not mirrored:
                return
            weight = self.mirrored.share if mirrored else self._weight(at)
            at += block_s
            if metric.unit is Unit.REQUESTS:
                theirs = weight if mirrored else 1 - weight
                yield at, traffic.rps * weight * block_s, traffic.rps * theirs * block_s
            else:
                long = metric.unit.of(block_s)
                pods = traffic.candidate_pods if mirrored else traffic.champion_pods
                yield at, traffic.candidate_pods * long, pods * long

    def _weight(self, at: float) -> float:
        end = self.mirrored_s
        for step in self.steps:
            end += step.hold_s
            if at < end:
                return step.weight
        return self.steps[-1].weight


def _course(
    traffic: Traffic,
    steps: Sequence[Step],
    within_s: float,
    metrics: Sequence[Metric],
    mirrored: Mirrored,
) -> _Course:
    """It is mirrored until as much is known of the answers as can be, at the longest all the time that there is."""
    always = _Course(traffic, mirrored, within_s, steps, within_s)
    known = [_safe_at(always, one) for one in always.judged(metrics) if one.name == DISAGREED]
    mirrored_s = max([mirrored.hold_s, *(within_s if one is None else one for one in known)])
    return _Course(traffic, mirrored, mirrored_s, steps, within_s)


def _visible(course: _Course, metric: Metric) -> Visible:
    rate = course.traffic.rates.get(metric.name, 0.0)
    return Visible(metric, rate, _safe_at(course, metric), _smallest_harm(course, metric, rate))


def _smallest_harm(course: _Course, metric: Metric, rate: float) -> float | None:
    """The lowest rate of a candidate that is shown to be harm, to FINER of its distance from the champion's."""
    most = (1.0 if metric.unit is Unit.REQUESTS else MOST_AN_HOUR) - rate
    low, high = metric.margin / 1000, most
    while high / low > FINER:
        more = np.geomspace(low, high, SIDE_BY_SIDE)
        shown = _shown(course, metric, rate, more)
        if not shown.any():
            return None
        seen = max(1, int(shown.argmax()))
        low, high = more[seen - 1], more[seen]
    return float(rate + high)


def _shown(course: _Course, metric: Metric, rate: float, more: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of candidates with so much more than the champion's rate each, whether that is shown to be harm in time."""
    shown, tally = np.zeros(len(more), dtype=bool), Tally.empty((len(more),))
    for _, n, m in course.blocks(metric):
        tally = tally.add(n * (rate + more), n, m * rate, m, tolerated=metric.tolerated, margin=metric.margin)
        shown |= _shows_harm(tally, course.traffic, metric)
    return shown


def _safe_at(course: _Course, metric: Metric) -> float | None:
    rate, tally = course.traffic.rates.get(metric.name, 0.0), Tally.empty()
    mine = rate + metric.tolerated / 2  # a new model answers some questions in another way
    expected, seen = 0.0, 0
    for at, n, m in course.blocks(metric):
        expected += n * mine
        x = round(expected) - seen  # whole ones: a hundredth of a restart isn't what anybody will see
        seen += x
        tally = tally.add(x, n, m * rate, m, tolerated=metric.tolerated, margin=metric.margin)
        if log_safe(tally, metric.quiet) >= SAFE_BOUND:
            return at
    return None
