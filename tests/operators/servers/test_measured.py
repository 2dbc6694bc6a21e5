"""What is measured of a ModelServer's replicas: how long they take to start, and what they can take."""

from __future__ import annotations

import dataclasses
import math

import pytest

from operators.facts import Pod
from operators.servers.server import PULL_S
from operators.signals.capacity import STARTS_KEPT, Fit
from operators.signals.values import Traffic
from tests.operators.servers.build import (
    NOW,
    UNMEASURED,
    asks,
    decided,
    deployment,
    pod,
    pods,
    server,
    traffic,
)


class TestStarts:
    """How long a replica takes to serve."""

    @pytest.mark.parametrize(
        ("replicas", "starts"),
        [
            pytest.param(pods(2, start=7.0), [7, 7], id="each once"),
            pytest.param(pods(2, ready=False), [], id="not yet"),
            pytest.param([pod("a", restarts=1)], [], id="not after a restart"),
            pytest.param([pod("a", start=241 + PULL_S)], [], id="not one that has become ready anew"),
            pytest.param([pod("a", start=240 + PULL_S)], [240 + PULL_S], id="a slow one"),
            pytest.param(
                [dataclasses.replace(pod("a"), ready_at=None)],
                [],
                id="not where it isn't known since when it serves",
            ),
        ],
    )
    def test_what_counts(self, replicas: list[Pod], starts: list[float]) -> None:
        one = server()
        for later in (0, 2):
            decided(one, asks(5), deployment(5), replicas, now=NOW + later)
        assert list(one.starts) == starts

    def test_little_is_remembered(self) -> None:
        one = server()
        for number in range(500):
            replicas = pods(3, first=number)
            decided(one, asks(3), deployment(3), replicas, now=NOW + 2 * number)
        assert len(one.starts) == STARTS_KEPT
        assert len(one.counted) <= 2 * 3 + STARTS_KEPT + 3


class TestMeasuring:
    """What a replica takes."""

    FOUND = traffic(40, cpu=3.0, answered=60.0, measured=6)

    def test_a_sample_is_of_one_replica(self) -> None:
        one = server()
        decided(one, self.FOUND, deployment(6), pods(6))
        assert (one.fit.n, one.fit.x, one.fit.y) == (1, 10, 0.5)

    @pytest.mark.parametrize(
        ("found", "replicas"),
        [
            pytest.param(FOUND, [*pods(5), pod("new", age=10.0)], id="one has only just started"),
            pytest.param(FOUND, [*pods(5), pod("new", ready=False)], id="one is starting"),
            pytest.param(dataclasses.replace(FOUND, cpu=None), pods(6), id="without its processor time"),
            pytest.param(dataclasses.replace(FOUND, answered=None), pods(6), id="without what it answered"),
            pytest.param(dataclasses.replace(FOUND, measured=0), pods(6), id="of none"),
        ],
    )
    def test_what_is_none(self, found: Traffic, replicas: list[Pod]) -> None:
        one = server()
        decided(one, found, deployment(6), replicas)
        assert one.fit.n == 0

    @pytest.mark.parametrize(
        ("cpu", "limit", "cores"),
        [("250m", None, 1.0), ("100m", "500m", 0.5), ("4", None, 1.0), ("1", "8", 1.0)],
    )
    def test_the_cores_of_one_process(self, cpu: str, limit: str | None, cores: float) -> None:
        resources = {"cpu": cpu} | ({"cpuLimit": limit} if limit is not None else {})
        assert server(resources=resources).cores() == cores


def test_a_capacity_is_stated_or_measured_or_not_known() -> None:
    stated, unknown = server(capacity={"requestsPerSecond": 12}), server(**UNMEASURED)
    stated.fit = unknown.fit = Fit(at=NOW, n=100, x=2000, y=50, xx=40_000, xy=1000, most=20)
    assert stated.capacity().rps == 12
    assert unknown.capacity().rps == pytest.approx(40)
    assert server(**UNMEASURED).capacity().rps == math.inf
    assert (stated.capacity().start_s, unknown.capacity().concurrency) == (60, 4)
