"""What a release can be expected to show, before it begins: how long it takes, the smallest harm that it sees, and what
a candidate that fails every request would cost. Pure.

The judge's own evidence is fed with the counts that are expected, block after block; where they come to a verdict is
about the median of when real ones do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from operators.canary.evidence import USUAL_SPREAD, USUAL_SURE, Tally, between_arms, log_harm, log_safe
from operators.canary.judge import SAFE_BOUND, harm_bound
from operators.canary.values import METRICS, Metric, Unit

BLOCK_S, MOST_BLOCKS = 10.0, 120
REACTION_S = 12.0
"""From a request that is seen to fail until no other is sent: its block, and the two seconds of the gateways."""
AVAILABILITY, PART = 0.9999, 0.05
"""A candidate that fails every request may cost so much of the failures that a month's availability leaves."""
WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)
MONTH_S = 30 * 86_400.0
MOST_AN_HOUR, MOST_ASKED = 3600.0, 1000


@dataclass(frozen=True, slots=True)
class Step:
    """So much of the traffic for so long; the last one lasts until there is a verdict."""

    weight: float
    hold_s: float


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
    """`promote_s`: when a candidate that is as good is promoted (None: not in time). `failures`: requests that fail if
    all of the candidate's do, out of `allowed`."""

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
) -> Plan:
    """What a release in these steps is expected to show within so long."""
    found = tuple(_visible(traffic, steps, within_s, metric) for metric in metrics)
    times = [one.safe_s for one in found]
    known = [one for one in times if one is not None]
    last_s = sum(step.hold_s for step in steps[:-1])  # each step is gone, whatever is known before
    promote_s = max(*known, last_s) if len(known) == len(times) else None
    if promote_s is not None and promote_s > within_s:
        promote_s = None
    return Plan(tuple(steps), within_s, found, promote_s, worst_case(traffic, steps[0].weight), allowed)


def blind(
    traffic: Traffic, steps: Sequence[Step], within_s: float, metrics: Sequence[Metric] = METRICS
) -> str | None:
    """The metric of which nothing is seen in time, as the plan's refusal says it; None where all are. It takes some
    hundredths of a second, and not the seconds that a whole plan does."""
    for metric in metrics:
        if _safe_at(traffic, steps, within_s, metric) is None:
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


def _shows_harm(tally: Tally, traffic: Traffic, metric: Metric) -> bool:
    """With pods that differ by what is usual, which their half hour before has shown."""
    spread = USUAL_SPREAD * between_arms(traffic.candidate_pods, traffic.champion_pods)
    return bool(log_harm(tally, spread, USUAL_SURE + traffic.champion_pods - 1) >= harm_bound(metric))


def _visible(traffic: Traffic, steps: Sequence[Step], within_s: float, metric: Metric) -> Visible:
    rate = traffic.rates.get(metric.name, 0.0)
    safe_s = _safe_at(traffic, steps, within_s, metric)
    most = 1.0 if metric.unit is Unit.REQUESTS else MOST_AN_HOUR
    low, high = metric.margin / 1000, most - rate
    if _harmful_at(traffic, steps, within_s, metric, most) is None:
        return Visible(metric, rate, safe_s, None)
    while high / low > 1.03:
        middle = math.sqrt(low * high)
        if _harmful_at(traffic, steps, within_s, metric, rate + middle) is None:
            low = middle
        else:
            high = middle
    return Visible(metric, rate, safe_s, rate + high)


def _blocks(
    traffic: Traffic, steps: Sequence[Step], within_s: float, metric: Metric
) -> Iterator[tuple[float, float, float]]:
    """The end of each block, and what either arm is exposed to in it."""
    ends, end = [], 0.0
    for step in steps:
        end += step.hold_s
        ends.append(end)
    block_s = max(BLOCK_S, within_s / MOST_BLOCKS)
    at = 0.0
    while at < within_s:
        place = next((number for number, one in enumerate(ends) if at < one), len(ends) - 1)
        weight = steps[place].weight
        at += block_s
        if metric.unit is Unit.REQUESTS:
            yield at, traffic.rps * weight * block_s, traffic.rps * (1 - weight) * block_s
        else:
            long = metric.unit.of(block_s)
            yield at, traffic.candidate_pods * long, traffic.champion_pods * long


def _safe_at(traffic: Traffic, steps: Sequence[Step], within_s: float, metric: Metric) -> float | None:
    rate, tally = traffic.rates.get(metric.name, 0.0), Tally.empty()
    mine = rate + metric.tolerated / 2  # a new model answers some questions in another way
    expected, seen = 0.0, 0
    for at, n, m in _blocks(traffic, steps, within_s, metric):
        expected += n * mine
        x = round(expected) - seen  # whole ones: a hundredth of a restart isn't what anybody will see
        seen += x
        tally = tally.add(x, n, m * rate, m, tolerated=metric.tolerated, margin=metric.margin)
        if log_safe(tally, metric.quiet) >= SAFE_BOUND:
            return at
    return None


def _harmful_at(
    traffic: Traffic,
    steps: Sequence[Step],
    within_s: float,
    metric: Metric,
    mine: float,
) -> float | None:
    """When a candidate of the rate `mine` is shown to be harm."""
    rate, tally = traffic.rates.get(metric.name, 0.0), Tally.empty()
    for at, n, m in _blocks(traffic, steps, within_s, metric):
        tally = tally.add(n * mine, n, m * rate, m, tolerated=metric.tolerated, margin=metric.margin)
        if _shows_harm(tally, traffic, metric):
            return at
    return None
