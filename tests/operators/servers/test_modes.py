"""Modes in which no policy sets the number: what a person says is done, and what would have been decided is told."""

from __future__ import annotations

import pytest

from switchboard.api.model_server import Status
from tests.operators.servers.build import (
    IDLE,
    NOW,
    acts,
    asks,
    decided,
    deployment,
    pods,
    server,
    spec,
)


class TestByHand:
    """`spec.replicas` in the modes in which no policy sets the number."""

    @pytest.mark.parametrize("mode", ["shadow", "paused"])
    def test_a_mode_that_is_switched_to_changes_no_number(self, mode: str) -> None:
        """A number that a person set long ago was passed over since."""
        one = server(replicas=2)
        assert decided(one, asks(20), deployment(20), pods(20), whole=False).target == 20
        one.spec = spec(replicas=2, scaling={"mode": mode})
        for later in range(2, 600, 2):
            made = decided(one, asks(20), deployment(20), pods(20), IDLE, now=NOW + later, whole=False)
            assert (acts(made), made.target) == ({}, 20)

    @pytest.mark.parametrize("mode", ["shadow", "paused"])
    @pytest.mark.parametrize("number", [9, 0])
    def test_a_number_that_is_changed_is_followed_once(self, mode: str, number: int) -> None:
        one = server(replicas=2, scaling={"mode": mode, "minReplicas": 0})
        assert decided(one, asks(10), deployment(5), pods(5)).target == 5
        one.spec = spec(replicas=number, scaling={"mode": mode, "minReplicas": 0})
        made = decided(one, asks(10), deployment(5), pods(5), IDLE, now=NOW + 2)
        assert (made.before, made.target) == (5, number)
        later = decided(one, asks(10), deployment(7), pods(7), IDLE, now=NOW + 4)
        assert later.target == 7, "somebody has told the Deployment another one since"

    def test_it_is_kept_while_a_rollout_is_under_way(self) -> None:
        one = server(replicas=5, scaling={"mode": "paused"})
        decided(one, asks(5), deployment(5), pods(5))
        one.spec = spec(replicas=3, scaling={"mode": "paused"})
        held = decided(one, asks(5), deployment(5, total=7, updated=2), pods(7), now=NOW + 2)
        assert (held.target, held.held is not None) == (5, True)
        assert decided(one, asks(5), deployment(5), pods(5), IDLE, now=NOW + 4).target == 3

    @pytest.mark.parametrize(
        ("told", "target"),
        [
            pytest.param(Status(requested_replicas=9), 5, id="it was followed before"),
            pytest.param(Status(requested_replicas=4), 9, id="it was changed since"),
            pytest.param(Status(), 9, id="it was stated since"),
            pytest.param(None, 5, id="nobody knows"),
        ],
    )
    def test_a_new_leader_goes_by_what_the_status_says(self, told: Status | None, target: int) -> None:
        one = server(replicas=9, scaling={"mode": "paused"})
        one.told_status = told
        assert decided(one, asks(5), deployment(5), pods(5)).target == target

    def test_in_the_mode_active_it_is_passed_over_and_told_once(self) -> None:
        one = server(replicas=2)
        assert decided(one, asks(5), deployment(5), pods(5)).passed_over is None
        one.spec = spec(replicas=9)
        made = decided(one, asks(5), deployment(5), pods(5), IDLE, now=NOW + 2)
        assert (acts(made), made.target, made.passed_over) == ({}, 5, 9)
        assert decided(one, asks(5), deployment(5), pods(5), IDLE, now=NOW + 4).passed_over is None
        one.spec = spec(replicas=5)
        assert decided(one, asks(5), deployment(5), pods(5), IDLE, now=NOW + 6).passed_over is None


def test_in_shadow_it_decides_from_the_number_that_there_would_be() -> None:
    """Else each tick's noise would be another decision, and an Event."""
    one = server(scaling={"mode": "shadow", "stabilizationSeconds": 60})
    changes = []
    for later in range(0, 120, 2):
        needed = 9.0 + (0.4 if later % 4 else -0.4)
        made = decided(one, asks(needed), deployment(2), pods(2), now=NOW + later)
        assert (acts(made), made.target) == ({}, 2)
        changes += [made.decision.wanted] if made.decision.changes else []
    assert changes in ([9, 10], [10])
    one.spec = spec()
    assert acts(decided(one, asks(9), deployment(2), pods(2), now=NOW + 122)) == {"replicas": 9}
