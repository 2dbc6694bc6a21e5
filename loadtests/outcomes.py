"""What a run's faults came to: pure, from when each was and what customers got."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from loadtests.faults import FAULTS, Name
from loadtests.figures import GOOD_SHARE, by_second
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
    """What a fault came to, until the next one: requests, those that failed, those whose first try did; seconds until
    within the level again (None: it never was), and all seconds out of it."""

    model_config = ConfigDict(frozen=True)

    happened: Happened
    requests: int = 0
    failed: int = 0
    first_failed: int = 0
    recovered_s: float | None = None
    out_s: int = 0


def outcomes(happened: Sequence[Happened], requests: Sequence[Request]) -> list[Outcome]:
    """Of each fault, in the order in which they were caused."""
    found = [Outcome(happened=one) for one in happened if one.begun_s is None]
    caused = sorted(
        ((one.begun_s, one) for one in happened if one.begun_s is not None), key=lambda pair: pair[0]
    )
    ends = [*(begun for begun, _ in caused[1:]), math.inf]
    for (begun, one), end in zip(caused, ends, strict=True):
        found.append(_outcome(one, begun, [own for own in requests if begun <= own.started_s < end]))
    return found


def _outcome(one: Happened, begun_s: float, own: Sequence[Request]) -> Outcome:
    rows = by_second(own)
    bad = [row[0] for row in rows if row[2] < GOOD_SHARE * row[1]]
    return Outcome(
        happened=one,
        requests=len(own),
        failed=sum(request.failure is not None for request in own),
        first_failed=sum(request.first is not None or request.failure is not None for request in own),
        recovered_s=recovery(begun_s, bad, rows[-1][0] + 1 if rows else begun_s),
        out_s=len(bad),
    )


def recovery(begun_s: float, bad: Sequence[int], until_s: float) -> float | None:
    """Seconds from the fault to the first of AGAIN_S within the level; None where there were no such ones. `bad`: the
    seconds out of it, in order."""
    back = begun_s
    for second in bad:
        if second - back >= AGAIN_S:
            break
        back = second + 1.0
    return max(0.0, round(back - begun_s, 1)) if until_s - back >= AGAIN_S else None


def finding(outcome: Outcome) -> Finding:
    """As one more claim of a run."""
    fault = FAULTS[outcome.happened.name]
    claim = f"{fault.name}: within the service level again within {fault.within_s:g} s"
    if outcome.happened.problem is not None:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=outcome.happened.problem)
    lost = f"{outcome.failed:,} of {outcome.requests:,} requests failed, {outcome.first_failed:,} at the first try"
    if outcome.requests == 0:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why="no request came after it")
    if outcome.recovered_s is None:
        return Finding(claim=claim, answer=Answer.REFUTED, why=f"it wasn't until the next one; {lost}")
    answer = Answer.HOLDS if outcome.recovered_s <= fault.within_s else Answer.REFUTED
    why = f"after {outcome.recovered_s:g} s; {lost}"
    return Finding(claim=claim, answer=answer, why=why, bound=outcome.recovered_s)
