"""What became of a drill's candidate: a pure function of the release's status and of what customers got meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import BaseModel

from operators.canary.values import Standing
from operators.drills.candidates import Candidate
from switchboard.api.model_release import Phase, Status, Turn
from switchboard.requests import Request, percentile

MOST_FAILED: Final = 0.001
"""Of all requests while a candidate is drilled: beyond that, customers paid for it."""
MOST_BACK_S: Final = 2.0
"""From the verdict until the last customer is asked into the other arm."""


class Outcome(BaseModel):
    """`seconds` from the release's begin to the verdict, which came in the phase `found_in` at the weight `weight`;
    `candidates_answers` is how many customers the candidate answered; `late_s` is for how long after the verdict the
    arm that lost was still asked (None: it never was)."""

    candidate: str
    what: str
    version: str
    ended: str
    sentence: str
    seconds: float | None
    found_in: str | None
    weight: int
    requests: int
    failed: int
    candidates_answers: int
    late_s: float | None
    p99_ms: float | None
    broken: list[str]
    """What wasn't as it is to be; empty where all was."""


def score(candidate: Candidate, version: str, status: Status, requests: Sequence[Request]) -> Outcome:
    """What became of it. `requests` are all that customers asked, from before the release until after it."""
    verdict, before = _verdict(status)
    mine = [one for one in requests if one.version == version]
    times = sorted(one.seconds for one in requests)
    failed = sum(one.failure is not None for one in requests)
    promoted = any(turn.phase in (Phase.PROMOTING, Phase.WARM) for turn in status.turns)
    losers = [one for one in requests if one.version != version and one.version] if promoted else mine
    late_s = None
    if verdict is not None and losers:
        late_s = round(max(0.0, max(one.started_s for one in losers) - verdict.at.timestamp()), 2)
    begun = status.started_at
    made = Outcome(
        candidate=candidate.name,
        what=candidate.what,
        version=version,
        ended=verdict.phase.value if verdict is not None else status.phase.value,
        sentence=verdict.sentence if verdict is not None else status.sentence,
        seconds=round((verdict.at - begun).total_seconds(), 1) if verdict is not None and begun else None,
        found_in=before.phase.value if before is not None else None,
        weight=before.weight if before is not None else 0,
        requests=len(requests),
        failed=failed,
        candidates_answers=len(mine),
        late_s=late_s,
        p99_ms=round(percentile(times, 99) * 1000, 1) if times else None,
        broken=[],
    )
    by: set[str] = {one.name.value for one in status.compared if one.standing == Standing.HARMFUL}
    if before is not None and before.phase is Phase.PREPARING:
        by.add("start")
    return made.model_copy(update={"broken": list(_broken(candidate, made, by, promoted=promoted))})


def _verdict(status: Status) -> tuple[Turn | None, Turn | None]:
    """The turn at which it was decided, and the one before it."""
    turns = status.turns
    for before, turn in zip((None, *turns), turns, strict=False):
        if turn.phase is Phase.WARM or turn.phase.over:
            return turn, before
    return None, None


def _broken(candidate: Candidate, found: Outcome, by: set[str], *, promoted: bool) -> Iterable[str]:
    wanted = "promoted" if candidate.ends == "Promoted" else "rolled back"
    good = candidate.ends == "Promoted"
    ended = (Phase.WARM, Phase.PROMOTED) if good else (Phase.ROLLED_BACK,)
    if promoted != good or found.ended not in ended:
        yield f"it was to be {wanted}: {found.ended} ({found.sentence})"
    elif candidate.found_by and not by & set(candidate.found_by):
        found_by = " and ".join(sorted(by)) or "anything"
        yield f"it was to be found by {' or '.join(candidate.found_by)}, not by {found_by}"
    if found.requests == 0:
        yield "nobody asked anything"
    most = 0.0 if candidate.ends == "Promoted" else MOST_FAILED
    if found.failed > most * found.requests:
        yield f"{found.failed} of {found.requests:,} requests failed (at most {most:.1%} may)"
    if found.late_s is not None and found.late_s > MOST_BACK_S:
        yield f"{found.late_s:g} s after the verdict the other arm was still asked (at most {MOST_BACK_S:g} s)"
