"""What is known in part, or by a clock that was set, takes nothing away."""

from __future__ import annotations

import math

import pytest

from operators.servers.server import DRAIN_DEADLINE_S
from tests.operators.servers.build import IDLE, NOW, acts, asks, decided, deployment, pod, pods, server


def test_after_a_view_in_part_a_whole_stabilisation_is_waited_for() -> None:
    """What half of the gateways show is less than there is, and isn't remembered as what was needed."""
    one = server(scaling={"stabilizationSeconds": 60})
    for later in range(0, 180, 2):
        decided(one, asks(3), deployment(6), pods(6), IDLE, now=NOW + later, whole=False)
    assert one.state is not None
    assert all(math.isnan(rate) for rate in one.state.history.rates[-10:])
    for later in range(180, 180 + 58, 2):
        made = decided(one, asks(3), deployment(6), pods(6), IDLE, now=NOW + later)
        assert (acts(made), made.target) == ({}, 6)
    assert decided(one, asks(3), deployment(6), pods(6), IDLE, now=NOW + 180 + 60).target == 3


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_ends_no_drain_and_prolongs_none(jump_s: float) -> None:
    one = server()
    one.target, one.told = 3, 4
    replicas = [*pods(3), pod("pod-3", draining=True)]
    busy = {**IDLE, "pod-3": 5.0}
    decided(one, asks(3), deployment(4), replicas, busy)
    for later in range(2, int(DRAIN_DEADLINE_S), 2):
        made = decided(one, asks(3), deployment(4), replicas, busy, now=NOW + jump_s + later)
        assert acts(made) == {}
    gone = [
        decided(one, asks(3), deployment(4), replicas, busy, now=NOW + jump_s + DRAIN_DEADLINE_S + later)
        for later in range(0, 6, 2)
    ]
    assert acts(gone[-1]) == {"replicas": 3, "remove": {"pod-3"}}
