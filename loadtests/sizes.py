"""How many replicas there were during a run, and whether a request was lost when some were taken away: pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.figures import first_failure
from loadtests.observing import Look
from loadtests.profile import Span
from loadtests.verdict import Answer, Finding
from switchboard.requests import Request

BEFORE_S: Final = 5.0
"""What is seen once a second has begun earlier."""
DRAIN_S: Final = 30.0
"""For so long a replica that is taken away goes on answering what it has, at the most."""


@dataclass(frozen=True)
class Sizes:
    """Replicas that were ready: at first, at most, in the end. How many were taken away, since fewer were wanted; and
    of the requests that were under way within DRAIN_S of that: those that failed, and those whose first try did."""

    first: int
    most: int
    last: int
    taken: int = 0
    failed: int = 0
    first_failed: int = 0

    def __str__(self) -> str:
        text = f"{self.first} ready at first, {self.most} at most, {self.last} in the end"
        if self.taken:
            text += (
                f"; {self.taken} taken away, meanwhile {self.failed:,} requests failed, "
                f"{self.first_failed:,} at the first try"
            )
        return text


def sizes(looks: Sequence[Look], requests: Sequence[Request]) -> Sizes | None:
    """None where nobody looked."""
    if not looks:
        return None
    taken, spans = 0, []
    for before, after in itertools.pairwise(looks):
        # One that dies is fewer than are wanted; of those that are more than that, some go.
        fewer = before.ready - max(after.ready, after.desired)
        if fewer > 0:
            taken += fewer
            spans.append(Span(before.at - BEFORE_S, after.at + DRAIN_S))
    meanwhile = [
        one
        for one in requests
        if any(one.started_s < span.end_s and one.started_s + one.seconds >= span.begin_s for span in spans)
    ]
    return Sizes(
        first=looks[0].ready,
        most=max(one.ready for one in looks),
        last=looks[-1].ready,
        taken=taken,
        failed=sum(one.failure is not None for one in meanwhile),
        first_failed=sum(first_failure(one) is not None for one in meanwhile),
    )


def finding(found: Sizes | None) -> Finding:
    """As a claim of a run."""
    claim = "no request is lost while replicas are taken away"
    if found is None:
        return Finding(
            claim=claim, answer=Answer.NOT_PROVEN, why="nobody saw the replicas: there is no kubeconfig"
        )
    if found.failed:
        return Finding(claim=claim, answer=Answer.REFUTED, why=str(found), bound=found.failed)
    if not found.taken:
        return Finding(claim=claim, answer=Answer.NOT_PROVEN, why=f"none was taken away: {found}")
    return Finding(claim=claim, answer=Answer.HOLDS, why=str(found), bound=0)
