"""Whether what a scenario claims is proven by what was measured: pure, with the evidence in words.

Each claim has one of three answers. It *holds* where its contrary is excluded at the stated confidence, it is *refuted*
where it is excluded itself, and else it is *not proven*: too little was seen, or just enough went wrong. A run is
passed where all hold, failed where one is refuted, and proves nothing where the generator fell behind its schedule:
then it is invalid, whatever the answers were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from loadtests.bounds import at_least, at_most, clustered, requests_for
from loadtests.figures import GOOD_SHARE, Figures, by_second, levels_ms, within_level
from loadtests.profile import Span
from loadtests.scenario import Claims, Scenario, quantile
from switchboard.requests import Request

LATE_P99_MS: Final = 50.0
"""A generator that sends later than that has measured itself. (A sixth of what an answer may take.)"""
UNSENT: Final = 0.001
"""The share of what was due that may not have been sent."""


class Answer(StrEnum):
    HOLDS = "holds"
    NOT_PROVEN = "not proven"
    REFUTED = "refuted"


class Outcome(StrEnum):
    """Of a run; its exit code is `CODES`."""

    PASSED = "pass"
    FAILED = "fail"
    NOT_PROVEN = "not proven"
    INVALID = "invalid"


CODES: Final = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.NOT_PROVEN: 2, Outcome.INVALID: 3}


class Finding(BaseModel):
    """A claim, its answer, and why. `bound`: of what was claimed, at the confidence; in the claim's unit."""

    model_config = ConfigDict(frozen=True)

    claim: str
    answer: Answer
    why: str
    bound: float | None = None


class Verdict(BaseModel):
    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    sentence: str
    findings: list[Finding]
    problems: list[str] = []
    """Why the run is invalid."""
    partial: bool = False
    """It was ended before its time."""


def judge(
    scenario: Scenario,
    requests: Sequence[Request],
    figures: Figures,
    begun_s: float,
    *,
    start_s: float,
    partial: bool = False,
    faults: Sequence[Finding] = (),
) -> Verdict:
    """`begun_s`: when the run began, as requests' times are; `start_s`: how long a replica takes to start; `faults`:
    what the faults of the run came to."""
    problems = _invalid(scenario, figures, partial=partial)
    findings = [*_claims(scenario, requests, begun_s, start_s), *faults]
    answers = {one.answer for one in findings}
    outcome = Outcome.PASSED
    if problems:
        outcome = Outcome.INVALID
    elif Answer.REFUTED in answers:
        outcome = Outcome.FAILED
    elif Answer.NOT_PROVEN in answers or not findings or partial:
        outcome = Outcome.NOT_PROVEN
    return Verdict(
        outcome=outcome,
        sentence=_sentence(outcome, findings, problems, partial=partial),
        findings=findings,
        problems=problems,
        partial=partial,
    )


def _invalid(scenario: Scenario, figures: Figures, *, partial: bool) -> list[str]:
    """Why nothing can be said by a run."""
    found = []
    if figures.total == 0:
        found.append("no request was made")
    unsent = figures.offered - figures.total
    if figures.offered and unsent > UNSENT * figures.offered:
        found.append(
            f"{unsent:,} of {figures.offered:,} requests that were due weren't sent or weren't waited for"
        )
    if figures.late_p99_ms is not None and figures.late_p99_ms > LATE_P99_MS:
        found.append(
            f"the generator was late: by {figures.late_p99_ms:.0f} ms at its 99th percentile "
            f"(at most {LATE_P99_MS:.0f} ms); give it more processes, or a machine of its own"
        )
    planned = scenario.profile.requests()
    # Six standard deviations of a Poisson count: chance alone gives fewer once in a billion runs.
    if not partial and figures.offered < planned - 6 * math.sqrt(planned) - 0.01 * planned:
        found.append(
            f"only {figures.offered:,} of about {planned:,.0f} requests were due: the run was cut short"
        )
    return found


def _claims(
    scenario: Scenario, requests: Sequence[Request], begun_s: float, start_s: float
) -> Iterable[Finding]:
    claims = scenario.claims
    if claims.availability is not None:
        yield availability(requests, claims.availability, claims.confidence)
    held = scenario.held(start_s)
    for name, bound_s in claims.latency.items():
        yield latency(_within(requests, begun_s, held), name, bound_s, claims)
    if claims.out_of_level is not None:
        yield out_of_level(requests, claims.out_of_level)
    if claims.capacity is not None:
        yield capacity(scenario, requests, begun_s, start_s)


def availability(requests: Sequence[Request], claimed: float, confidence: float) -> Finding:
    """The share that is answered: by all requests as if each stood alone, and by blocks of seconds that fail
    together."""
    total, failed = len(requests), sum(one.failure is not None for one in requests)
    claim = f"availability ≥ {claimed * 100:.10g} %"
    alone = at_most(failed, total, confidence)
    rows = by_second(requests)
    together = clustered([row[3] for row in rows], [row[1] for row in rows], confidence)
    worst = max(alone, together or 0.0)
    known = f"{failed:,} of {total:,} requests failed"
    bound = f"at least {_percent(1 - worst)} at {confidence:.0%} confidence"
    if together is not None and together > alone:
        bound += " (they failed together)"
    if worst <= 1 - claimed:
        return Finding(claim=claim, answer=Answer.HOLDS, why=f"{known}: {bound}", bound=1 - worst)
    if at_least(failed, total, confidence) > 1 - claimed:
        best = 1 - at_least(failed, total, confidence)
        why = f"{known}: at most {_percent(best)} at {confidence:.0%} confidence"
        return Finding(claim=claim, answer=Answer.REFUTED, why=why, bound=1 - worst)
    needed = requests_for(claimed, failed, confidence)
    more = f"; it takes {needed:,} with so many failures" if needed > total else ""
    return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=f"{known}: {bound}{more}", bound=1 - worst)


def latency(requests: Sequence[Request], name: str, bound_s: float, claims: Claims) -> Finding:
    """A quantile is within its bound where no more than the rest is over it: a share, as any other."""
    claim = f"{name} ≤ {bound_s * 1000:g} ms while the rate is held"
    total, over = len(requests), sum(one.seconds > bound_s for one in requests)
    allowed = 1 - quantile(name)
    known = f"{over:,} of {total:,} requests took longer"
    if total == 0:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why="the rate was never held for long enough")
    most, least = at_most(over, total, claims.confidence), at_least(over, total, claims.confidence)
    said = f"{known} ({over / total:.2%}; {allowed:.2%} may)"
    if most <= allowed:
        return Finding(claim=claim, answer=Answer.HOLDS, why=said, bound=most)
    answer = Answer.REFUTED if least > allowed else Answer.NOT_PROVEN
    return Finding(claim=claim, answer=answer, why=said, bound=most)


def out_of_level(requests: Sequence[Request], allowed_s: float) -> Finding:
    """Seconds of whose requests fewer than GOOD_SHARE were answered right within their service level."""
    rows = by_second(requests)
    bad = [row[0] for row in rows if row[2] < GOOD_SHARE * row[1]]
    within = " or ".join(f"{one:g} ms" for one in levels_ms(requests))
    why = f"{len(bad)} of {len(rows)} s were ({GOOD_SHARE:.0%} within {within})"
    answer = Answer.HOLDS if len(bad) <= allowed_s else Answer.REFUTED
    return Finding(
        claim=f"at most {allowed_s:g} s out of the service level", answer=answer, why=why, bound=len(bad)
    )


def capacity(scenario: Scenario, requests: Sequence[Request], begun_s: float, start_s: float) -> Finding:
    """The highest rate that was held within the service level, beside that of the beginning."""
    baseline, claimed = scenario.profile.rate(0.0), scenario.claims.capacity or 0.0
    claim = f"{claimed:g}× the baseline of {baseline:g} requests/s is held"
    best = 0.0
    for span in scenario.held(start_s):
        rate = scenario.profile.rate(span.begin_s)
        own = _within(requests, begun_s, [span])
        good = sum(within_level(one) for one in own)
        bad = len(own) - good
        if own and at_most(bad, len(own), scenario.claims.confidence) <= 1 - GOOD_SHARE:
            best = max(best, rate)
    ratio = best / baseline if baseline else 0.0
    why = (
        f"{best:g} requests/s were held within the service level, {ratio:.3g}× the baseline"
        if best
        else ("no rate was held within the service level")
    )
    answer = Answer.HOLDS if ratio >= claimed else Answer.REFUTED
    return Finding(claim=claim, answer=answer, why=why, bound=ratio)


def _within(requests: Sequence[Request], begun_s: float, spans: Sequence[Span]) -> list[Request]:
    return [one for one in requests if any(span.holds(one.started_s - begun_s) for span in spans)]


def _sentence(
    outcome: Outcome, findings: Sequence[Finding], problems: Sequence[str], *, partial: bool
) -> str:
    if problems:
        return f"invalid: {problems[0]}"
    wanted = {Outcome.FAILED: Answer.REFUTED, Outcome.NOT_PROVEN: Answer.NOT_PROVEN}.get(
        outcome, Answer.HOLDS
    )
    first = next((one for one in findings if one.answer is wanted), None)
    if first is None:
        return "nothing is proven: the run was ended before its time" if partial else "nothing was claimed"
    if outcome is Outcome.PASSED:
        return (
            f"all {len(findings)} claims hold; {first.claim}: {first.why}"
            if len(findings) > 1
            else (f"{first.claim} holds: {first.why}")
        )
    verb = "is refuted" if outcome is Outcome.FAILED else "isn't proven"
    return f"{first.claim} {verb}: {first.why}"


def _percent(share: float) -> str:
    """Rounded down, with a digit more than tells it from all: 99.990 %."""
    digits = max(1, math.floor(-math.log10(max(1e-12, 1 - share)) + 1e-9) - 1)
    return f"{math.floor(share * 10 ** (digits + 2) + 1e-6) / 10**digits:.{digits}f} %"
