"""What a run's faults came to: pure, from when each was and what customers got."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from loadtests.faults import FAULTS, Name
from loadtests.figures import bad_seconds, by_second, failed_of
from loadtests.verdict import Answer, Finding
from switchboard.requests import Request

AGAIN_S: Final = 5
"""So many seconds in a row within the level, and the service is within it again."""
MOST_TIMES: Final = 2
"""Who is out of its level again and again hasn't recovered: in all it may be so many times as long as at once."""


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
    try did; the longest that the service was out of its level (`recovered_s`: in seconds; None: it wasn't surely within
    it again at the end; `longest_s`: with what was seen of that), and all seconds out of it."""

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
    last_s = max((one.started_s for one in requests), default=0.0)
    ends = [*(begun for begun, _ in caused[1:]), math.inf]
    for (begun, one), end in zip(caused, ends, strict=False):  # there may be none
        # What is under way when a fault comes is what it hits first, and no matter of the one before.
        own = [request for request in requests if begun <= request.started_s + request.seconds < end]
        found.append(_outcome(one, begun, min(end, math.floor(last_s) + 1.0), own, whole=end < math.inf))
    return found


def _outcome(one: Happened, begun_s: float, end_s: float, own: Sequence[Request], *, whole: bool) -> Outcome:
    """`whole`: it is known that its turn was over."""
    fault = FAULTS[one.name]
    bad = bad_seconds(by_second(own))
    longest, open_s = recovery(begun_s, bad, end_s)
    whole = whole or end_s - begun_s >= fault.turn_s - AGAIN_S
    # However what is open goes on: until the next one it can't be more.
    settled = not open_s or (whole and open_s <= fault.within_s)
    failed, first_failed = failed_of(own)
    return Outcome(
        happened=one,
        requests=len(own),
        failed=failed,
        first_failed=first_failed,
        recovered_s=longest if settled else None,
        longest_s=longest,
        out_s=len(bad),
    )


def recovery(begun_s: float, bad: Sequence[int], until_s: float) -> tuple[float, float]:
    """How long the service was out of its level at a time, at the longest; and how long before the end that began after
    which it wasn't surely within it again (0: it was). In seconds.

    It is within it again at the first of AGAIN_S good seconds in a row. What begins within so many of the fault counts
    from the fault on; what begins later (its repair, or what it left behind) from its own beginning. `bad`: the seconds
    out of the level, in order.
    """
    since, back, longest = begun_s, begun_s, 0.0
    for second in bad:
        if second - back >= AGAIN_S:
            longest, since = max(longest, back - since), float(second)
        back = max(back, second + 1.0)
    longest = round(max(longest, back - since), 1)
    return longest, 0.0 if until_s - back >= AGAIN_S else until_s - since


def finding(outcome: Outcome) -> Finding:
    """As one more claim of a run."""
    fault = FAULTS[outcome.happened.name]
    claim = f"{fault.name}: within the service level again within {fault.within_s:g} s"
    if outcome.happened.problem is not None:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=outcome.happened.problem)
    lost = f"{outcome.failed:,} of {outcome.requests:,} requests failed, {outcome.first_failed:,} at the first try"
    if outcome.requests == 0:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why="no request came after it")
    out = f", {outcome.out_s} s in all" if outcome.out_s else ""
    if outcome.longest_s > fault.within_s or outcome.out_s > MOST_TIMES * fault.within_s:
        still = " (and not surely within it at the end of its turn)" if outcome.recovered_s is None else ""
        why = f"out of it for {outcome.longest_s:g} s{out}{still}; {lost}"
        return Finding(claim=claim, answer=Answer.REFUTED, why=why, bound=outcome.longest_s)
    if outcome.recovered_s is None:
        why = f"not seen for long enough afterwards; {lost}"
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=why)
    why = f"after {outcome.recovered_s:g} s{out}; {lost}"
    return Finding(claim=claim, answer=Answer.HOLDS, why=why, bound=outcome.recovered_s)
