"""How many replicas there were during a run, and whether a request was lost when some were taken away: pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.figures import failed_of
from loadtests.observing import Look
from loadtests.profile import Span
from loadtests.verdict import Answer, Finding
from switchboard.requests import Request

BEFORE_S: Final = 5.0
"""What is seen once a second has begun earlier."""
AFTER_S: Final = 10.0
"""A replica that isn't ready any more ends within that."""


@dataclass(frozen=True)
class Sizes:
    """Replicas that were ready: at first, at most, in the end. How many were taken away, since fewer were wanted, while
    the run went on; and of the requests that were under way meanwhile (from when fewer were wanted until the last one
    had gone): how many, those that failed, and those whose first try did."""

    first: int
    most: int
    last: int
    taken: int = 0
    requests: int = 0
    failed: int = 0
    first_failed: int = 0

    def __str__(self) -> str:
        text = f"{self.first} ready at first, {self.most} at most, {self.last} in the end"
        if self.taken:
            text += (
                f"; {self.taken} taken away, and meanwhile {self.failed:,} of {self.requests:,} requests failed, "
                f"{self.first_failed:,} at the first try"
            )
        return text


def sizes(looks: Sequence[Look], requests: Sequence[Request]) -> Sizes | None:
    """None where nobody looked."""
    if not looks:
        return None
    found = list(_taken(looks))
    meanwhile = [
        one
        for one in requests
        if any(
            one.started_s < span.end_s and one.started_s + one.seconds >= span.begin_s for _, span in found
        )
    ]
    failed, first_failed = failed_of(meanwhile)
    return Sizes(
        first=looks[0].ready,
        most=max(one.ready for one in looks),
        last=looks[-1].ready,
        taken=sum(count for count, _ in found),
        requests=len(meanwhile),
        failed=failed,
        first_failed=first_failed,
    )


def _taken(looks: Sequence[Look]) -> Iterator[tuple[int, Span]]:
    """Each time that fewer were wanted and went: how many, and from when to when. A replica is drained first, and ready
    until it has nothing left to answer, so that it begins when fewer are wanted."""
    for number, (before, after) in enumerate(itertools.pairwise(looks), 1):
        if after.desired >= before.desired:
            continue
        gone = next((one for one in looks[number:] if one.ready <= after.desired), None)
        fewer = min(before.desired, before.ready) - after.desired
        if gone is not None and fewer > 0 and gone.at + AFTER_S <= looks[-1].at:
            yield fewer, Span(before.at - BEFORE_S, gone.at + AFTER_S)


def finding(found: Sizes | None, lost: int = 0) -> Finding:
    """As a claim of a run; `lost`: requests that were due, and of which nothing is known."""
    claim = "no request is lost while replicas are taken away"
    if found is None:
        why = "nobody saw the replicas: there is no kubeconfig"
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=why)
    if found.failed:
        return Finding(claim=claim, answer=Answer.REFUTED, why=str(found), bound=found.failed)
    if not found.taken or not found.requests:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=f"none was taken away: {found}")
    if lost:
        why = f"nobody knows what became of {lost:,} requests; {found}"
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=why)
    return Finding(claim=claim, answer=Answer.HOLDS, why=str(found), bound=0)
