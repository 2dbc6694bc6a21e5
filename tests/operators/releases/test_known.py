"""What is known of a release from what the operator has in memory."""

from __future__ import annotations

from typing import Any

import pytest

from operators.canary.values import USUAL
from operators.releases import known
from operators.releases.values import Running
from operators.signals.values import Seen, Traffic
from switchboard.api.model_release import FINALIZER, Spec
from switchboard.kube import Object
from tests.operators.servers.build import server


def release(name: str, *, at: int = 0, phase: str | None = None, held: bool = False, **more: Any) -> Object:
    status = {} if phase is None else {"phase": phase}
    if more.get("begun"):
        status["startedAt"] = "2026-11-28T12:00:00Z"
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": f"2026-11-28T12:00:{at:02}Z",
            "finalizers": [FINALIZER] if held else [],
        },
        "spec": {"server": more.get("server", "chat"), "version": 8},
        "status": status,
    }


ONE = release("one", at=5)
FIRST: list[tuple[str, list[Object], str | None]] = [
    ("it is alone", [ONE], None),
    ("an older one waits, too", [ONE, release("older", at=1)], "older"),
    ("a younger one waits, too", [ONE, release("younger", at=9)], None),
    ("a younger one has begun", [ONE, release("younger", at=9, phase="Canary", begun=True)], "younger"),
    ("another server's", [ONE, release("older", at=1, server="voice")], None),
    ("one that is over and done", [ONE, release("older", at=1, phase="Promoted")], None),
    ("one whose arms still drain", [ONE, release("older", at=1, phase="RolledBack", held=True)], "older"),
    ("one of a phase that isn't known here", [ONE, release("older", at=1, phase="Elsewhere")], "older"),
]


@pytest.mark.parametrize(("why", "others", "first"), FIRST, ids=[why for why, _, _ in FIRST])
def test_who_goes_first(why: str, others: list[Object], first: str | None) -> None:
    assert known.first_of(ONE, Spec(server="chat", version=8), others) == first, why


@pytest.mark.parametrize(
    ("why", "rate", "whole", "rps"),
    [
        ("all gateways say so", 50.0, True, 50.0),
        ("they say that there is none", 0.0, True, 0.0),
        ("some of them weren't seen", 50.0, False, None),
        ("nobody says anything", None, True, None),
    ],
)
def test_the_traffic_that_a_release_is_planned_for(
    why: str, rate: float | None, whole: bool, rps: float | None
) -> None:
    made = server()
    made.seen = (Seen(0.0, "prometheus"), Traffic(rate=rate), whole, None)
    found = known.traffic(made, Running(20, 20, current=True))
    assert (found.rps if found is not None else None) == rps, why
    if found is not None:
        assert (found.champion_pods, found.candidate_pods, found.rates) == (20, 2, USUAL)


def test_of_a_server_that_nobody_has_looked_at_nothing_is_known() -> None:
    assert known.traffic(server(), Running(1, 1, current=True)) is None
    assert known.traffic(None, Running(0, 0, current=False)) is None


@pytest.mark.parametrize(
    ("candidate", "champion", "fails"),
    [
        (Running(2, 0, current=True), Running(3, 3, current=True), True),
        (Running(2, 1, current=True), Running(3, 3, current=True), False),
        (Running(2, 0, current=True), Running(3, 2, current=True), False),
        (Running(2, 0, current=True), Running(0, 0, current=True), False),
    ],
)
def test_a_candidate_fails_where_the_champion_doesnt(
    candidate: Running, champion: Running, fails: bool
) -> None:
    assert known.fails(candidate, champion) is fails
