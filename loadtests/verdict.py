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
from loadtests.figures import GOOD_SHARE, Figures, bad_seconds, by_second, levels_ms, within_level
from loadtests.profile import Span
from loadtests.scenario import Claims, Scenario, provable, quantile, reaches
from switchboard.requests import Request

LATE_P99_MS: Final = 50.0
"""A generator that sends later than that has measured itself. (A sixth of what an answer may take.)"""
UNSENT: Final = 0.001
"""The share of what was due that may not have been sent."""
SPENT: Final = 10
"""How often something comes that came once, nobody knows; but what costs so many times what may fail is no bad luck."""


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
    """A claim, its answer, and why. `bound`: of what was measured, at the confidence: the share that is answered, the
    share that is over a latency, seconds, or a multiple of the baseline."""

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
    more: Sequence[Finding] = (),
) -> Verdict:
    """`begun_s`: when the run began, as requests' times are; `start_s`: how long a replica takes to start; `more`: what
    was found by other than the requests alone."""
    problems = _invalid(scenario, figures, partial=partial)
    findings = [*_claims(scenario, requests, begun_s, start_s, figures.lost), *more]
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
    if figures.lost > UNSENT * figures.offered:
        found.append(
            f"{figures.lost:,} of {figures.offered:,} requests that were due weren't sent or weren't waited for"
        )
    if figures.late_p99_ms is not None and figures.late_p99_ms > LATE_P99_MS:
        found.append(
            f"the generator was late: by {figures.late_p99_ms:.0f} ms at its 99th percentile "
            f"(at most {LATE_P99_MS:.0f} ms); give it more processes, or a machine of its own"
        )
    planned = scenario.profile.requests()
    if not partial and _too_few(figures.offered, planned):
        found.append(
            f"only {figures.offered:,} of about {planned:,.0f} requests were due: the run was cut short"
        )
    return found


def _claims(
    scenario: Scenario, requests: Sequence[Request], begun_s: float, start_s: float, lost: int
) -> Iterable[Finding]:
    claims = scenario.claims
    if claims.availability is not None:
        yield availability(requests, claims.availability, claims.confidence, lost)
    held = scenario.held(start_s)
    for name, bound_s in claims.latency.items():
        yield latency(_within(requests, begun_s, held), name, bound_s, claims)
    if claims.out_of_level is not None:
        yield out_of_level(requests, claims.out_of_level)
    if claims.capacity is not None:
        yield capacity(scenario, requests, begun_s, start_s)


def availability(requests: Sequence[Request], claimed: float, confidence: float, lost: int = 0) -> Finding:
    """The share that is answered: by all requests as if each stood alone, and by blocks of seconds that fail
    together. `lost`: requests that were due, and of which nothing is known: they count as failed."""
    total, failed = len(requests) + lost, sum(one.failure is not None for one in requests) + lost
    claim = f"availability ≥ {claimed * 100:.14g} %"
    least, alone = at_least(failed, total, confidence), at_most(failed, total, confidence)
    rows = [(row[3], row[1]) for row in by_second(requests)] + ([(lost, lost)] if lost else [])
    together = clustered([row[0] for row in rows], [row[1] for row in rows], confidence) or (least, alone)
    worst, best = max(alone, together[1]), min(least, together[0])
    known = f"{failed:,} of {total:,} requests failed"
    if lost:
        known += f" ({lost:,} of them were due and weren't sent, or weren't waited for)"
    bound = f"at least {_percent(1 - worst)} at {confidence:.0%} confidence"
    if together[1] > alone:
        bound += " (they failed together)"
    if worst <= 1 - claimed:
        return Finding(claim=claim, answer=Answer.HOLDS, why=f"{known}: {bound}", bound=1 - worst)
    if best > 1 - claimed:
        why = f"{known}: at most {_percent(1 - best, up=True)} at {confidence:.0%} confidence"
        return Finding(claim=claim, answer=Answer.REFUTED, why=why, bound=1 - worst)
    if least > SPENT * (1 - claimed):
        why = f"{known} together: more than {SPENT} times what may, by one event that may come again"
        return Finding(claim=claim, answer=Answer.REFUTED, why=why, bound=1 - worst)
    more = ""
    if worst == alone and (needed := requests_for(claimed, failed, confidence)) > total:
        more = f"; it takes {needed:,} with so many failures"
    return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=f"{known}: {bound}{more}", bound=1 - worst)


def latency(requests: Sequence[Request], name: str, bound_s: float, claims: Claims) -> Finding:
    """A quantile is within its bound where no more than the rest is over it: a share, as any other. A fast error is no
    fast answer."""
    claim = f"{name} ≤ {bound_s * 1000:g} ms while the rate is held"
    total = len(requests)
    over = sum(one.failure is not None or one.seconds > bound_s for one in requests)
    allowed = 1 - quantile(name)
    known = f"{over:,} of {total:,} requests took longer, or failed"
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
    bad = bad_seconds(rows)
    within = " or ".join(f"{one:g} ms" for one in levels_ms(requests))
    why = f"{len(bad)} of {len(rows)} s were ({GOOD_SHARE:.0%} within {within})"
    answer = Answer.HOLDS if len(bad) <= allowed_s else Answer.REFUTED
    return Finding(
        claim=f"at most {allowed_s:g} s out of the service level", answer=answer, why=why, bound=len(bad)
    )


def capacity(scenario: Scenario, requests: Sequence[Request], begun_s: float, start_s: float) -> Finding:
    """The highest rate that was held within the service level, beside that of the beginning.

    One that comes several times is held where it was each time; one of which less was sent than the scenario says, or
    too little to say, is neither held nor refuted.
    """
    profile, confidence = scenario.profile, scenario.claims.confidence
    baseline, claimed = profile.rate(0.0), scenario.claims.capacity or 0.0
    claim = f"{claimed:g}× the baseline of {baseline:g} requests/s is held"
    answers: dict[float, set[Answer]] = {}
    for span in scenario.held(start_s):
        own, planned = _within(requests, begun_s, [span]), profile.requests(span.begin_s, span.end_s)
        bad = sum(not within_level(one) for one in own)
        answer = Answer.NOT_PROVEN
        if own and at_least(bad, len(own), confidence) > 1 - GOOD_SHARE:
            answer = Answer.REFUTED
        elif not provable(planned, confidence):
            continue  # the moment that a replica's start leaves of it
        elif own and not _too_few(len(own), planned):
            holds = at_most(bad, len(own), confidence) <= 1 - GOOD_SHARE
            answer = Answer.HOLDS if holds else Answer.NOT_PROVEN
        answers.setdefault(profile.rate(span.begin_s), set()).add(answer)
    best = max((rate for rate, found in answers.items() if found == {Answer.HOLDS}), default=0.0)
    ratio = best / baseline if baseline else 0.0
    why = (
        f"{best:g} requests/s were held within the service level, {ratio:.3g}× the baseline"
        if best
        else ("no rate was held within the service level")
    )
    asked = [found for rate, found in answers.items() if baseline and reaches(rate, claimed * baseline)]
    if baseline and reaches(best, claimed * baseline):
        answer = Answer.HOLDS
    elif asked and all(Answer.REFUTED in found for found in asked):
        answer = Answer.REFUTED
    else:
        answer, why = Answer.NOT_PROVEN, f"{why}; too little was seen of the rate that is claimed"
    return Finding(claim=claim, answer=answer, why=why, bound=ratio)


def _too_few(found: int, planned: float) -> bool:
    """Six standard deviations of a Poisson count: chance alone gives fewer once in a billion runs."""
    return found < planned - 6 * math.sqrt(planned) - 0.01 * planned


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


def _percent(share: float, *, up: bool = False) -> str:
    """Rounded down (or up, where it is a bound from above), with a digit more than tells it from all: 99.990 %."""
    digits = max(1, math.floor(-math.log10(max(1e-12, 1 - share)) + 1e-9) - 1)
    scaled = share * 10 ** (digits + 2)
    whole = math.ceil(scaled - 1e-6) if up else math.floor(scaled + 1e-6)
    return f"{whole / 10**digits:.{digits}f} %"
