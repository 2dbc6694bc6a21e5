"""What became of a candidate, from a release's status and its customers' requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from operators.drills.candidates import Candidate
from operators.drills.figures import score
from switchboard.api.model_release import Compared, MetricName, Phase, Status, Turn
from switchboard.requests import Request

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
BAD, GOOD = Candidate(name="bad", what="x"), Candidate(name="good", what="x", ends="Promoted")


def status(*turns: tuple[float, Phase, int]) -> Status:
    made = tuple(
        Turn(at=NOW + timedelta(seconds=at), phase=phase, weight=weight, sentence=f"{phase} now")
        for at, phase, weight in turns
    )
    return Status(phase=made[-1].phase, started_at=NOW, turns=made)


BACK = status((0, Phase.PREPARING, 0), (20, Phase.CANARY, 10), (60, Phase.ROLLED_BACK, 0))
PROMOTED = status(
    (0, Phase.PREPARING, 0), (20, Phase.CANARY, 50), (50, Phase.PROMOTING, 50), (60, Phase.WARM, 100),
    (70, Phase.SETTLING, 0), (90, Phase.PROMOTED, 0),
)  # fmt: skip
MISSED = status(
    (0, Phase.PREPARING, 0), (20, Phase.CANARY, 50), (50, Phase.PROMOTING, 50), (51, Phase.ROLLED_BACK, 0)
)  # fmt: skip
UNSTARTED = status((0, Phase.PREPARING, 0), (20, Phase.ROLLED_BACK, 0))
SLOW = Candidate(name="slow", what="x", found_by=("slow", "failed"))
REFUSED = status((0, Phase.REFUSED, 0))
INCONCLUSIVE = status((0, Phase.SHADOW, 0), (60, Phase.INCONCLUSIVE, 0))


def by(found: Status, *metrics: str) -> Status:
    """With these shown to be harmful."""
    counts = dict.fromkeys(("candidate_events", "candidate_of", "champion_events", "champion_of"), 1.0)
    compared = tuple(Compared(name=MetricName(one), standing="Harmful", **counts) for one in metrics)
    return found.model_copy(update={"compared": compared})


def asked(seconds: float, version: str = "1", failure: str | None = None) -> Request:
    return Request(NOW.timestamp() + seconds, 0.01, failure, "" if failure else version)


MANY = [asked(number / 100) for number in range(9_000)]


@pytest.mark.parametrize(
    ("candidate", "found", "requests", "broken"),
    [
        (BAD, BACK, [*MANY, asked(61.5, "2")], []),
        (BAD, BACK, [*MANY, asked(62.5, "2")], ["2.5 s after the verdict the other arm was still asked"]),
        (BAD, BACK, MANY, []),
        (BAD, BACK, [*MANY, *[asked(30, failure="503")] * 9], []),
        (BAD, BACK, [*MANY, *[asked(30, failure="503")] * 10], ["10 of 9,010 requests failed (at most 0.1%"]),
        (BAD, BACK, [], ["nobody asked anything"]),
        (BAD, PROMOTED, [asked(1), asked(61, "2")], ["it was to be rolled back: Warm (Warm now)"]),
        (BAD, INCONCLUSIVE, MANY, ["it was to be rolled back: Inconclusive"]),
        (BAD, MISSED, [asked(1)], ["it was to be rolled back: RolledBack"]),
        (SLOW, BACK, MANY, ["it was to be found by slow or failed, not by anything"]),
        (SLOW, by(BACK, "grew"), MANY, ["not by grew"]),
        (SLOW, by(BACK, "grew", "failed"), MANY, []),
        (SLOW, UNSTARTED, MANY, ["not by start"]),
        (GOOD, PROMOTED, [asked(61), asked(80, "2")], []),
        (GOOD, PROMOTED, [asked(63), asked(80, "2")], ["3 s after the verdict"]),
        (GOOD, PROMOTED, [*MANY, asked(30, failure="503")], ["29.99 s", "1 of 9,001 requests failed"]),
        (GOOD, BACK, MANY, ["it was to be promoted: RolledBack"]),
        (GOOD, REFUSED, MANY, ["it was to be promoted: Refused"]),
    ],
)
def test_scores(candidate: Candidate, found: Status, requests: list[Request], broken: list[str]) -> None:
    outcome = score(candidate, "2", found, requests)
    said = sorted(outcome.broken)
    assert len(said) == len(broken), said
    assert all(any(part in one for one in said) for part in broken), said


def test_what_is_said_of_it() -> None:
    outcome = score(BAD, "2", BACK, [asked(1), asked(30, "2"), asked(61, "2"), asked(62)])
    assert (outcome.ended, outcome.found_in, outcome.weight) == ("RolledBack", "Canary", 10)
    assert (outcome.seconds, outcome.requests, outcome.candidates_answers) == (60.0, 4, 2)
    assert (outcome.late_s, outcome.p99_ms) == (1.0, 10.0)
    outcome = score(GOOD, "2", PROMOTED, [asked(1), asked(61, "2")])
    assert (outcome.ended, outcome.found_in, outcome.seconds, outcome.late_s) == (
        "Warm",
        "Promoting",
        60.0,
        0.0,
    )
