"""The judge: what both arms' counts say of a candidate, so far. Pure; it may be asked as often as anybody likes.

It aborts when harm is shown, by any metric; it promotes when harm beyond the margin is excluded, on every metric; else
it goes on. What isn't known is neither: a metric that no request was counted for keeps a candidate from promotion, and
is said. Aborts share `ALPHA` among the metrics, since one that errs is enough for a wrong abort. For a wrong promotion
the metric that is really harmful has to err, whatever the others say, so each is tested with all of `ALPHA` (Berger
1982, "Multiparameter hypothesis testing and acceptance sampling": an intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from operators.canary import evidence
from operators.canary.evidence import Tally
from operators.canary.values import (
    ALPHA,
    METRICS,
    NO_POD,
    Block,
    Count,
    Finding,
    Judgement,
    Metric,
    Standing,
    Verdict,
    by_kind,
    kind_name,
)

MOST_PODS = 256
"""Of an arm; those that had least to do are forgotten first."""


@dataclass(frozen=True, slots=True)
class Arms:
    """What has been seen of a metric: the evidence, each pod's count in either arm, and of the champion's pods the
    events beside those that were expected of them, from before the release on."""

    tally: Tally = field(default_factory=Tally.empty)
    candidate: Mapping[str, Count] = field(default_factory=dict)
    champion: Mapping[str, Count] = field(default_factory=dict)
    noise: Mapping[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge remembers of a release. `seconds`: how much of both arms was compared."""

    arms: Mapping[str, Arms] = field(default_factory=dict)
    seconds: float = 0.0

    def before(self, champion: Block, metrics: Sequence[Metric] = METRICS) -> Comparison:
        """With what the champion's pods did in a block without candidate: how they differ when nothing is wrong."""
        arms = dict(self.arms)
        for metric in metrics:
            if pods := champion.noise.get(metric.name, champion.champion.get(metric.name)):
                seen = arms.get(metric.name, Arms())
                arms[metric.name] = replace(seen, noise=_noise(seen.noise, pods))
        return replace(self, arms=arms)

    def add(self, block: Block, metrics: Sequence[Metric] = METRICS) -> Comparison:
        """With one more block; what one arm alone did in it is left out."""
        arms = dict(self.arms)
        compared = False
        for name, metric in _judged(metrics, block, arms):
            candidate, champion = block.candidate.get(name, {}), block.champion.get(name, {})
            mine, theirs = total(candidate.values()), total(champion.values())
            if mine.of <= 0 or theirs.of <= 0:
                continue
            compared = True
            seen = arms.get(name, Arms())
            arms[name] = Arms(
                seen.tally.add(
                    mine.events,
                    mine.of,
                    theirs.events,
                    theirs.of,
                    tolerated=metric.tolerated,
                    margin=metric.margin,
                ),
                summed(seen.candidate, candidate),
                summed(seen.champion, champion),
                _noise(seen.noise, block.noise.get(name, champion)),
            )
        return Comparison(arms, self.seconds + (block.end_s - block.start_s) * compared)


def judge(comparison: Comparison, metrics: Sequence[Metric] = METRICS, *, over: bool = False) -> Judgement:
    """The verdict so far; `over`: there won't be more, so going on is no answer."""
    findings = tuple(_find(comparison.arms, metric) for metric in metrics)
    harmful = [one for one in findings if one.standing is Standing.HARMFUL]
    open_ = [one for one in findings if one.standing is not Standing.SAFE]
    if harmful:
        worst = max(harmful, key=lambda one: one.log_harm - harm_bound(one.metric))
        verdict, sentence = Verdict.ABORT, _abort(worst, comparison.seconds)
    elif not open_:
        verdict, sentence = Verdict.PROMOTE, _promote(findings, comparison.seconds)
    else:
        verdict = Verdict.INCONCLUSIVE if over else Verdict.CONTINUE
        sentence = _open(open_, over=over)
    kinds = {
        kind_name(metric.name, kind): (total(arms.candidate.values()), total(arms.champion.values()))
        for metric in metrics
        for kind, arms in by_kind(comparison.arms, metric.name).items()
    }
    return Judgement(verdict, sentence, findings, comparison.seconds, kinds)


def _judged(
    metrics: Sequence[Metric], block: Block, known: Mapping[str, Arms]
) -> Iterable[tuple[str, Metric]]:
    """The metrics, and their kinds of request that a block has, as many as share the metric's α."""
    for metric in metrics:
        yield metric.name, metric
        if metric.kinds is None:
            continue
        there = by_kind(known, metric.name)
        new = sorted(kind for kind in by_kind(block.candidate, metric.name) if kind not in there)
        for kind in [*there, *new][: metric.kinds.most]:
            yield kind_name(metric.name, kind), metric.of_kind(kind)


def _find(known: Mapping[str, Arms], metric: Metric) -> Finding:
    """What a metric says: of all requests, or of the kind of them that says most against the candidate."""
    if metric.kinds is None:
        return find(known.get(metric.name), metric)
    whole = find(known.get(metric.name), metric.of_all)
    parts = [
        find(arms, metric.of_kind(kind))
        for kind, arms in by_kind(known, metric.name).items()
        if total(arms.candidate.values()).events >= metric.kinds.some
    ]
    bad = [one for one in parts if one.standing is Standing.HARMFUL]
    if whole.standing is not Standing.HARMFUL and bad:
        return max(bad, key=lambda one: one.log_harm)
    unsure = [one for one in parts if one.standing is Standing.OPEN]
    if whole.standing is Standing.SAFE and unsure:
        least = min(unsure, key=lambda one: one.log_safe)
        # With the counts of all requests: they are what a release's status keeps of this metric.
        return replace(whole, metric=least.metric, standing=Standing.OPEN, log_safe=least.log_safe)
    return whole


def find(arms: Arms | None, metric: Metric) -> Finding:
    """What one metric says."""
    if arms is None or not arms.candidate:
        return Finding(metric, Standing.UNKNOWN, Count(0, 0), Count(0, 0), 0.0, 0.0)
    log_harm = float(evidence.log_harm(arms.tally, *usual_spread(arms)))
    log_safe = float(evidence.log_safe(arms.tally, metric.quiet))
    if log_harm >= harm_bound(metric):
        standing = Standing.HARMFUL
    elif log_safe >= SAFE_BOUND:
        standing = Standing.SAFE
    else:
        standing = Standing.OPEN
    return Finding(
        metric, standing, total(arms.candidate.values()), total(arms.champion.values()), log_harm, log_safe
    )


def harm_bound(metric: Metric) -> float:
    """Evidence of so much (its logarithm) shows harm."""
    return -math.log(ALPHA * metric.share)


SAFE_BOUND = -math.log(ALPHA)
"""Evidence of so much (its logarithm) excludes harm beyond the margin."""


def usual_spread(arms: Arms) -> tuple[float, float]:
    """How far apart the arms' rates may be with nothing wrong (the standard deviation of their ratio's logarithm): the
    pods' spread, over the pods that each arm has; and its degrees of freedom."""
    pods = list(arms.noise.values())
    spread, sure = evidence.spread_of_pods(
        np.array([one.events for one in pods]), np.array([one.of for one in pods])
    )
    concentration = sum(
        sum(one.of**2 for one in arm.values()) / total(arm.values()).of ** 2
        for arm in (arms.candidate, arms.champion)
    )
    return float(spread) * math.sqrt(concentration), float(sure)


def _noise(before: Mapping[str, Count], pods: Mapping[str, Count]) -> dict[str, Count]:
    """With each pod's events in a block, and what it would have had at the rate of all of them."""
    all_ = total(pods.values())
    rate = all_.events / all_.of if all_.of > 0 else 0.0
    return summed(
        before, {name: Count(one.events, one.of * rate) for name, one in pods.items() if name != NO_POD}
    )


def total(counts: Iterable[Count]) -> Count:
    found = list(counts)
    return Count(sum(one.events for one in found), sum(one.of for one in found))


def summed(before: Mapping[str, Count], more: Mapping[str, Count]) -> dict[str, Count]:
    """Both, pod by pod."""
    none = Count(0, 0)
    pods = {pod: total((before.get(pod, none), more.get(pod, none))) for pod in {**before, **more}}
    return dict(sorted(pods.items(), key=lambda one: (-one[1].of, one[0]))[:MOST_PODS])


def _abort(worst: Finding, seconds: float) -> str:
    return f"{_compared(worst, seconds)}: {_odds(worst.log_harm)}, where {_odds(harm_bound(worst.metric))} is enough"


def _promote(findings: Sequence[Finding], seconds: float) -> str:
    closest = min(findings, key=lambda one: one.log_safe)
    return (
        f"harm beyond the margin is excluded on all {len(findings)} metrics; closest: {_compared(closest, seconds)}, "
        f"with a margin of {closest.metric.said(closest.metric.margin)}"
    )


def _open(findings: Sequence[Finding], *, over: bool) -> str:
    unknown = [one.metric.what for one in findings if one.standing is Standing.UNKNOWN]
    if unknown:
        return f"nothing is known {'' if over else 'yet '}of {', '.join(unknown)}"
    slowest = min(findings, key=lambda one: one.log_safe)
    others = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return (
        f"{slowest.metric.what}{others}: a harm of {slowest.metric.said(slowest.metric.margin)} "
        f"{'could not be excluded' if over else 'is not excluded yet'} ({_odds(slowest.log_safe)}, "
        f"{_odds(SAFE_BOUND)} is needed)"
    )


def _compared(finding: Finding, seconds: float) -> str:
    mine, theirs = finding.candidate, finding.champion
    return (
        f"{finding.metric.what}: {_share(finding.metric, mine)} against the champion's "
        f"{_share(finding.metric, theirs)} in the same {seconds:.0f} s"
    )


def _share(metric: Metric, count: Count) -> str:
    return f"{count.events:,.0f} of {count.of:,.4g} {metric.unit} ({metric.said(count.events / count.of)})"


def _odds(log_evidence: float) -> str:
    return f"{math.exp(min(log_evidence, 50.0)):,.3g} to 1"
