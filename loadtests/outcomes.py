"""What a run's faults came to: pure, from when each was and what customers got."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from loadtests.faults import FAULTS, Name
from loadtests.figures import GOOD_SHARE, by_second, first_failure
from loadtests.verdict import Answer, Finding
from switchboard.requests import Request

AGAIN_S: Final = 5
"""So many seconds in a row within the level, and the service is within it again."""


class Happened(BaseModel):
    """A fault as it was: from when to when (seconds since the epoch), and to what. `ended_s`: when it was mended, by
    whoever does; `problem`: why it couldn't be caused."""

    model_config = ConfigDict(frozen=True)

    name: Name
    begun_s: float | None = None
    ended_s: float | None = None
    target: str = ""
    problem: str | None = None


class Outcome(BaseModel):
    """What a fault came to, until the next one: requests that ended in its turn, those that failed, those whose first
    try did; the longest that the service was out of its level (`recovered_s`: in seconds, of what was over by then;
    None: it wasn't over; `longest_s`: of what wasn't, too), and all seconds out of it."""

    model_config = ConfigDict(frozen=True)

    happened: Happened
    requests: int = 0
    failed: int = 0
    first_failed: int = 0
    recovered_s: float | None = None
    longest_s: float = 0.0
    out_s: int = 0


def outcomes(happened: Sequence[Happened], requests: Sequence[Request]) -> list[Outcome]:
    """Of each fault, in the order in which they were caused."""
    found = [Outcome(happened=one) for one in happened if one.begun_s is None]
    caused = sorted(
        ((one.begun_s, one) for one in happened if one.begun_s is not None), key=lambda pair: pair[0]
    )
    rows = by_second(requests)
    ends = [*(begun for begun, _ in caused[1:]), rows[-1][0] + 1.0 if rows else 0.0]
    for number, ((begun, one), end) in enumerate(zip(caused, ends, strict=True), 1):
        # What is under way when a fault comes is what it hits first.
        until = math.inf if number == len(caused) else end
        own = [request for request in requests if begun <= request.started_s + request.seconds < until]
        seconds = [row for row in rows if math.floor(begun) <= row[0] < math.floor(end)]
        bad = [second for second, due, good, _ in seconds if good < GOOD_SHARE * due]
        recovered, longest = recovery(begun, bad, end)
        found.append(
            Outcome(
                happened=one,
                requests=len(own),
                failed=sum(request.failure is not None for request in own),
                first_failed=sum(first_failure(request) is not None for request in own),
                recovered_s=recovered,
                longest_s=longest,
                out_s=len(bad),
            )
        )
    return found


def recovery(begun_s: float, bad: Sequence[int], until_s: float) -> tuple[float | None, float]:
    """How long the service was out of its level at a time, in seconds: at the longest, None where it was still out at
    the end; and at the longest with that.

    It is within it again at the first of AGAIN_S good seconds in a row. What begins within so many of the fault counts
    from the fault on; what begins later (its repair, or what it left behind) from its own beginning. `bad`: the seconds
    out of the level, in order.
    """
    since, back, longest = begun_s, begun_s, 0.0
    for second in bad:
        if second - back >= AGAIN_S:
            longest, since = max(longest, back - since), float(second)
        back = second + 1.0
    longest = round(max(longest, back - since, 0.0), 1)
    return longest if until_s - back >= AGAIN_S else None, longest


def finding(outcome: Outcome) -> Finding:
    """As one more claim of a run."""
    fault = FAULTS[outcome.happened.name]
    claim = f"{fault.name}: within the service level again within {fault.within_s:g} s"
    if outcome.happened.problem is not None:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=outcome.happened.problem)
    lost = f"{outcome.failed:,} of {outcome.requests:,} requests failed, {outcome.first_failed:,} at the first try"
    if outcome.requests == 0:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why="no request came after it")
    if outcome.longest_s > fault.within_s:
        over = f"out of it for {outcome.longest_s:g} s"
        if outcome.recovered_s is None:
            over += " and still when its turn was over"
        return Finding(claim=claim, answer=Answer.REFUTED, why=f"{over}; {lost}", bound=outcome.longest_s)
    if outcome.recovered_s is None:
        why = f"not seen for long enough afterwards; {lost}"
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=why)
    why = f"after {outcome.recovered_s:g} s; {lost}"
    return Finding(claim=claim, answer=Answer.HOLDS, why=why, bound=outcome.recovered_s)
