"""What holds for the decision of a tick and for what follows from it, whatever comes in."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.servers.server import step
from operators.signals.values import Traffic
from tests.operators.servers.build import NOW, deployment, pod, server, spec

REPLICAS = st.lists(
    st.builds(
        lambda name, ready, draining, age, zone: pod(
            f"pod-{name}", ready=ready, draining=draining, age=age, zone=zone
        ),
        st.integers(0, 10**9),
        st.booleans(),
        st.booleans(),
        st.floats(0, 4000),
        st.sampled_from("abc"),
    ),
    max_size=12,
    unique_by=lambda one: one.name,
)
SIGNAL = st.one_of(
    st.none(), st.floats(0, 300), st.sampled_from([0.0, math.nan, math.inf, -5.0, 1e12]), st.floats(0, 1e9)
)
TRAFFIC = st.builds(
    Traffic,
    rate=SIGNAL,
    latest_rate=SIGNAL,
    in_service=SIGNAL,
    queued=SIGNAL,
    cpu=SIGNAL,
    answered=SIGNAL,
    measured=st.integers(0, 12),
)
DEPLOYMENTS = st.builds(
    lambda replicas, total, updated, seen: deployment(
        replicas, total=total, updated=updated, observed_generation=seen
    ),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(0, 25),
    st.integers(3, 4),
)
SPECS = st.builds(
    lambda bounds, mode, replicas, stated, pause, stable: spec(
        scaling={
            "minReplicas": min(bounds),
            "maxReplicas": max(1, *bounds),
            "mode": mode,
            "pause": pause,
            "stabilizationSeconds": stable,
        },
        capacity={"requestsPerSecond": stated},
        **({} if replicas is None else {"replicas": min(replicas, max(1, *bounds))}),
    ),
    st.tuples(st.integers(0, 20), st.integers(1, 20)),
    st.sampled_from(["active", "active", "active", "shadow", "paused"]),
    st.one_of(st.none(), st.integers(0, 20)),
    st.one_of(st.none(), st.floats(0.1, 100)),
    st.fixed_dictionaries({"up": st.booleans(), "down": st.booleans()}),
    st.sampled_from([0, 60]),
)
TICKS = st.lists(
    st.tuples(TRAFFIC, DEPLOYMENTS, REPLICAS, st.booleans(), st.floats(-1000, 1000)), min_size=1, max_size=4
)


@settings(max_examples=100)
@given(SPECS, TICKS, st.sampled_from([None, NOW, math.inf]), st.data())
def test_whatever_comes_in(
    wanted: Any, ticks: list[Any], view_from: float | None, data: st.DataObject
) -> None:
    one = server()
    one.spec, one.view_from = wanted, view_from
    most, now = wanted.scaling.max_replicas, NOW
    for found, there, replicas, whole, later in ticks:
        now += later
        names = [each.name for each in replicas]
        in_flight = data.draw(st.dictionaries(st.sampled_from(names), st.floats(0, 9))) if names else {}
        target = one.target if one.told == there.replicas else None
        made = step(one, found, there, replicas, in_flight, now, whole=whole)

        # What is told is within the bounds, or on the way to them, and no fewer than are wanted.
        assert made.target == one.target
        assert 0 <= made.target <= max(most, target if target is not None else there.replicas)
        if made.replicas is not None:
            assert made.replicas != there.replicas
            assert made.target <= made.replicas <= max(most, there.replicas)
        sure = whole and view_from != math.inf
        if made.replicas is not None and made.replicas < there.replicas and not sure:
            assert target is None or made.target <= target  # only what was decided before

        # Who serves and takes requests stays, as far as that many are wanted.
        serving = {each.name for each in replicas if each.ready and not each.draining}
        after = (serving - set(made.drain)) | {
            each.name for each in replicas if each.ready and each.name in made.restore
        }
        assert len(after) >= min(made.target, len(serving))
        assert set(made.drain) <= serving
        assert {*made.drain, *made.restore, *made.remove} <= set(names)
        assert not set(made.restore) & {*made.drain, *made.remove}

        # Of those that are removed, each doesn't serve or has been drained.
        drained = {each.name for each in replicas if not each.ready or each.draining}
        assert set(made.remove) <= drained
        if made.replicas is not None and made.replicas < there.replicas:
            staying = len(replicas) - len(made.remove)
            assert made.replicas >= min(staying, there.replicas)
            assert not there.rolling
