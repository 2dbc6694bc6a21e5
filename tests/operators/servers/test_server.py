"""What is decided for a ModelServer at a tick and what follows: tables, and what holds whatever comes in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest

from operators.facts import Pod
from operators.servers.server import DRAIN_DEADLINE_S, SETTLE_S, Server, step
from operators.signals.capacity import Fit
from operators.signals.values import Traffic
from switchboard.api.scaling import MOST_REPLICAS
from tests.operators.servers.build import (
    AN_HOUR,
    IDLE,
    NOW,
    ROLLING,
    UNMEASURED,
    acts,
    asks,
    decided,
    deployment,
    pods,
    server,
    traffic,
)

UP = [
    pytest.param({}, 5, 10, 5, 10, {"replicas": 10}, id="up at once"),
    pytest.param({}, 5, 5, 5, 5, {}, id="nothing to do"),
    pytest.param({"scaling": {"maxReplicas": 7}}, 5, 10, 5, 7, {"replicas": 7}, id="up to the most"),
    pytest.param({"scaling": {"minReplicas": 8}}, 5, 5, 5, 8, {"replicas": 8}, id="up to the least"),
    pytest.param({}, 5, 10, 2, 10, {"replicas": 10}, id="fewer pods than replicas: a quota, say"),
    pytest.param({}, 5, 10, 0, 10, {"replicas": 10}, id="no pods at all"),
    pytest.param({}, 0, 0, 0, 1, {"replicas": 1}, id="at least one"),
    pytest.param({"scaling": {"minReplicas": 0}}, 0, 0.1, 0, 1, {"replicas": 1}, id="from none"),
    pytest.param({}, 5, None, 5, 5, {}, id="nothing is known"),
    pytest.param({"scaling": {"mode": "shadow"}}, 5, 10, 5, 5, {}, id="shadow: told, not done"),
    pytest.param({"scaling": {"mode": "paused"}}, 5, 10, 5, 5, {}, id="paused"),
    pytest.param({"scaling": {"pause": {"up": True}}}, 5, 10, 5, 5, {}, id="no steps up"),
]


@pytest.mark.parametrize(("values", "deployed", "needed", "there", "target", "expected"), UP)
def test_more_or_as_many(
    values: dict[str, Any],
    deployed: int,
    needed: float | None,
    there: int,
    target: int,
    expected: dict[str, Any],
) -> None:
    one = server(**values)
    made = decided(one, asks(needed), deployment(deployed, total=there), pods(there))
    assert (acts(made), made.target, one.target) == (expected, target, target)
    assert made.held is None


def test_a_drain_comes_before_a_removal() -> None:
    """Six replicas, three are enough: which of them is chosen by what is in them; each goes when it is empty."""
    one = server()
    there, replicas = deployment(6), pods(6)
    made = decided(one, asks(3), there, replicas)
    assert (acts(made), made.target, one.choosing) == ({}, 3, True)  # what is in them has to be asked first

    in_flight = {**IDLE, "pod-0": 3.0, "pod-1": 2.0, "pod-2": 1.0}
    made = decided(one, asks(3), there, replicas, in_flight, now=NOW + 2)
    assert acts(made) == {"drain": {"pod-3", "pod-4", "pod-5"}}
    assert one.choosing

    replicas = [*pods(3), *pods(3, first=3, draining=True)]
    for later in (0.0, SETTLE_S - 0.1):  # gateways may not have left them out yet
        assert acts(decided(one, asks(3), there, replicas, IDLE, now=NOW + 4 + later)) == {}

    busy = {**IDLE, "pod-3": 1.0}
    made = decided(one, asks(3), there, replicas, busy, now=NOW + 4 + SETTLE_S)
    assert acts(made) == {"replicas": 4, "remove": {"pod-4", "pod-5"}}
    assert one.choosing

    one.told = 4
    left = [*pods(3), *pods(1, first=3, draining=True)]
    for later in range(10, int(DRAIN_DEADLINE_S) + 4, 2):
        assert acts(decided(one, asks(3), deployment(4), left, busy, now=NOW + later)) == {}
    made = decided(one, asks(3), deployment(4), left, busy, now=NOW + 4 + DRAIN_DEADLINE_S)
    assert acts(made) == {"replicas": 3, "remove": {"pod-3"}}

    one.told = 3
    made = decided(one, asks(3), deployment(3), pods(3), IDLE, now=NOW + 40)
    assert (acts(made), one.choosing) == ({}, False)


def test_what_is_in_them_is_asked_until_they_are_gone() -> None:
    one = server()
    one.target, one.told = 3, 4
    replicas = [*pods(3), *pods(1, first=3, draining=True)]
    decided(one, asks(3), deployment(4), replicas, IDLE)
    assert one.choosing


DOWN: list[Any] = [
    pytest.param(
        pods(6),
        6,
        3,
        {},
        {"drain": 3},
        id="what is in them isn't known: they are drained, and go at the deadline",
    ),
    pytest.param(
        [*pods(3), *pods(3, first=3, ready=False)],
        6,
        3,
        IDLE,
        {"replicas": 3, "remove": 3},
        id="who doesn't serve goes at once",
    ),
    pytest.param(
        [*pods(4), *pods(2, first=4, ready=False)],
        6,
        3,
        IDLE,
        {"replicas": 4, "drain": 1, "remove": 2},
        id="and others are drained",
    ),
    pytest.param(pods(3), 6, 3, IDLE, {"replicas": 3}, id="those that aren't there go first"),
    pytest.param(
        [*pods(4), *pods(2, first=4, draining=True)],
        6,
        5,
        IDLE,
        {"restore": 1, "replicas": 5, "remove": 1},
        id="one is let back",
    ),
    pytest.param(
        [*pods(4), *pods(2, first=4, draining=True)],
        6,
        7,
        IDLE,
        {"restore": 2, "replicas": 7},
        id="all are let back, and one comes",
    ),
    pytest.param(
        [*pods(4), *pods(2, first=4, draining=True)],
        6,
        None,
        IDLE,
        {"replicas": 4, "remove": 2},
        id="what was decided goes on",
    ),
    pytest.param(
        [*pods(4), *pods(2, first=4, draining=True)],
        5,
        4,
        IDLE,
        {"replicas": 4, "remove": 2},
        id="one is on its way out already",
    ),
]


@pytest.mark.parametrize(("replicas", "deployed", "needed", "in_flight", "expected"), DOWN)
def test_fewer(
    replicas: list[Pod],
    deployed: int,
    needed: float | None,
    in_flight: Mapping[str, float],
    expected: dict[str, int],
) -> None:
    one = server()
    one.choosing = True
    made = acts(decided(one, asks(needed), deployment(deployed), replicas, in_flight, drained_s=10.0))
    assert {key: len(value) if isinstance(value, set) else value for key, value in made.items()} == expected


WHY_NOT: list[Any] = [
    pytest.param({}, {"whole": False}, "view: not all gateways are in the view", id="a gateway is missing"),
    pytest.param(
        {}, {"view_from": math.inf}, "view: its history isn't known yet", id="the history is on its way"
    ),
    pytest.param({"scaling": {"pause": {"down": True}}}, {}, "pause: no steps down", id="a person says so"),
    pytest.param(
        {"scaling": {"pause": {"down": True}}},
        {"whole": False},
        "view: not all gateways are in the view",
        id="a person says so, too",
    ),
    pytest.param(
        {"capacity": {"requestsPerSecond": None}},
        {},
        "view: what a replica can take isn't known",
        id="nothing measured",
    ),
]


@pytest.mark.parametrize(("values", "known", "words"), WHY_NOT)
def test_what_is_not_known_takes_nothing_away(
    values: dict[str, Any], known: dict[str, Any], words: str
) -> None:
    one = server(**values)
    one.view_from = known.get("view_from", one.view_from)
    for later in range(0, 600, 2):
        now = NOW + later
        made = decided(one, asks(3), deployment(6), pods(6), IDLE, now=now, whole=known.get("whole", True))
        assert (acts(made), made.target) == ({}, 6)
    assert words in made.decision.sentence()


def test_what_is_not_known_may_add() -> None:
    made = decided(server(), asks(10), deployment(6), pods(6), whole=False)
    assert acts(made) == {"replicas": 10}


def test_a_clock_that_was_set_back_does_not_hide_the_history() -> None:
    """What is known stays known; the policy itself looks for its time anew before it takes anything away."""
    one = server(scaling={"stabilizationSeconds": 60})
    back = NOW - 100 * AN_HOUR
    for later in range(0, 90, 2):
        made = step(one, asks(3), deployment(6), pods(6), IDLE, back + later, whole=True)
    assert made.target == 3


@pytest.mark.parametrize(
    ("found", "target"),
    [
        pytest.param(traffic(40, in_service=7, measured=6), 6, id="it is not measured yet: nothing goes"),
        pytest.param(traffic(40, in_service=36, measured=6), 9, id="what is in them asks for more"),
        pytest.param(traffic(40), 6, id="nothing of the replicas is known: the gateways are asked"),
        pytest.param(traffic(4, in_service=7, measured=4), 6, id="not of all of them"),
        pytest.param(traffic(4, in_service=7, measured=6), 2, id="so few that it can't be measured"),
        pytest.param(traffic(0, in_service=0, measured=6), 1, id="none"),
    ],
)
def test_without_a_capacity_what_is_in_them_counts(found: Traffic, target: int) -> None:
    assert decided(server(**UNMEASURED), found, deployment(6), pods(6), IDLE).target == target


def test_a_measured_capacity_counts() -> None:
    one = server(**UNMEASURED)
    one.fit = Fit(at=NOW, n=100, x=2000, y=50, xx=40_000, xy=1000, most=20)  # half a core at 20/s: 40/s
    assert one.capacity().rps == pytest.approx(40)
    assert decided(one, traffic(40, in_service=7, measured=6), deployment(6), pods(6), IDLE).target == 2


def test_a_server_without_replicas_starts_whatever_is_known() -> None:
    one = server(**UNMEASURED | {"scaling": {"minReplicas": 0, "idleSeconds": 60}})
    assert decided(one, traffic(0.0), deployment(0), []).target == 0
    assert decided(one, traffic(0.5, queued=1), deployment(0), [], now=NOW + 2).target == 1


class TestRollouts:
    """While one is under way nothing is taken away: its controller counts what it may take by what there is."""

    def test_nothing_goes_and_it_is_said(self) -> None:
        one = server()
        made = decided(one, asks(3), deployment(6, **ROLLING), pods(7), IDLE)
        assert (acts(made), made.target) == ({}, 6)
        assert made.held is not None
        assert "rollout" in made.held

    def test_more_come(self) -> None:
        made = decided(server(), asks(10), deployment(6, **ROLLING), pods(7))
        assert (acts(made), made.held) == ({"replicas": 10}, None)

    def test_what_was_on_its_way_out_stays_until_it_is_through(self) -> None:
        """The new ones are young and idle, and are not to be drained for those that are old and go anyway."""
        one = server()
        one.target = one.told = 6
        one.target = 3
        replicas = [*pods(3), *pods(3, first=3, draining=True), *pods(2, first=6, age=20.0)]
        for later in range(0, 60, 2):
            made = decided(one, asks(3), deployment(6, **ROLLING), replicas, IDLE, now=NOW + later)
            assert acts(made) == {}

    def test_what_is_needed_comes_back(self) -> None:
        one = server()
        one.told, one.target = 6, 3
        replicas = [*pods(3), *pods(3, first=3, draining=True)]
        made = decided(one, asks(10), deployment(6, **ROLLING), replicas, IDLE)
        assert acts(made) == {"replicas": 10, "restore": {"pod-3", "pod-4", "pod-5"}}
        made = decided(one, asks(5), deployment(6, **ROLLING), replicas, IDLE, now=NOW + 2)
        assert made.replicas is None or made.replicas >= 6


class TestWhoSetTheNumber:
    """A Deployment has another number than before: was that we?"""

    def test_a_new_leader_begins_with_what_there_is(self) -> None:
        one = server()
        one.forget()
        one.view_from = NOW
        decided(one, asks(5), deployment(5), pods(5))
        assert (one.target, one.told) == (5, 5)

    @pytest.mark.parametrize(
        ("replicas", "deployed", "target"),
        [
            pytest.param([*pods(3), *pods(2, first=3, draining=True)], 5, 3, id="two on their way out"),
            pytest.param([*pods(3), *pods(2, first=3, draining=True)], 4, 3, id="of one it was told already"),
            pytest.param([*pods(3), *pods(2, first=3, draining=True)], 3, 3, id="of both"),
            pytest.param(pods(5), 3, 3, id="it was told, and they are still there"),
            pytest.param(pods(2), 5, 5, id="three are still to come"),
            pytest.param(pods(4, draining=True), 4, 1, id="all are on their way out: one is let back"),
            pytest.param(pods(3), 50_000, MOST_REPLICAS, id="more than there may be"),
        ],
    )
    def test_those_on_their_way_out_do_not_count(
        self, replicas: list[Pod], deployed: int, target: int
    ) -> None:
        one = server()
        one.forget()
        one.view_from = NOW
        decided(one, asks(None), deployment(deployed), replicas)
        assert (one.target, one.told) == (target, deployed)

    def test_somebody_else_did(self) -> None:
        one = server()
        decided(one, asks(5), deployment(5), pods(5))
        made = decided(one, asks(None), deployment(8, total=5), pods(5), now=NOW + 2)
        assert (one.target, one.told, acts(made)) == (8, 8, {})

    def test_it_has_only_just_been_told(self) -> None:
        """The watch may be quicker than the answer, and an answer may never come: it is our own number all the same."""
        one = server()
        one.target, one.told, one.telling = 3, 5, 4
        replicas = [*pods(3), *pods(2, first=3, draining=True)]
        made = decided(one, asks(None), deployment(4, total=5), replicas, {"pod-3": 0.0, "pod-4": 1.0})
        assert (one.target, one.told, one.telling) == (3, 4, None)
        assert made.target == 3

    def test_it_was_not_told_after_all(self) -> None:
        one = server()
        one.target, one.told, one.telling = 8, 5, 8
        made = decided(one, asks(None), deployment(5), pods(5))
        assert (one.target, acts(made)) == (8, {"replicas": 8})

    def test_a_decision_is_made_once(self) -> None:
        """While the API server is away the number isn't told; it isn't decided anew at each tick for that."""
        one = server()
        assert decided(one, asks(10), deployment(5), pods(5)).decision.changes
        for later in (2, 4, 6):
            made = decided(one, asks(10), deployment(5), pods(5), now=NOW + later)
            assert (made.decision.changes, acts(made)) == (False, {"replicas": 10})


def test_a_new_leader_forgets_what_another_may_have_changed_and_keeps_what_it_measured() -> None:
    one = server()
    decided(one, traffic(20, cpu=3.0, answered=60.0, measured=6), deployment(6), pods(6))
    one.refused, one.shadowed, one.retry_at = "no", 4, NOW
    fit, starts = one.fit, list(one.starts)
    one.forget()
    fresh = Server("chat", one.object, one.spec)
    kept = {"fit", "measured", "starts", "counted", "load_at", "said_at"}
    for each in dataclasses.fields(Server):
        if each.name not in kept:
            assert getattr(one, each.name) == getattr(fresh, each.name), each.name
    assert (one.fit, list(one.starts)) == (fit, starts)
    assert fit.n == 1
    assert starts
