"""Who goes first, and when."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.scaling.victims import Plan, Replica, choose, plan


def one(name: str, zone: str = "a", **more: object) -> Replica:
    return replace(Replica(name, zone, ready=True, created=0.0, in_flight=5.0), **more)  # type: ignore[arg-type]


def do(replicas: list[Replica], wanted: int) -> Plan:
    return plan(replicas, wanted, deadline_s=60, settle_s=5)


@pytest.mark.parametrize(
    ("replicas", "expected", "why"),
    [
        ([one("busy"), one("idle", in_flight=0.0)], "idle", "idle before busy"),
        ([one("busy"), one("unknown", in_flight=None)], "busy", "what isn't known may be busier still"),
        ([one("old"), one("young", created=9.0)], "young", "of the same load the young one"),
        (
            [one("idle", in_flight=0.0), one("starting", ready=False)],
            "starting",
            "what doesn't serve is no loss",
        ),
        (
            [one("idle", in_flight=0.0), one("leaving", drained_s=10.0)],
            "leaving",
            "what is on its way out stays on it",
        ),
        (
            [one("b", "b", in_flight=0.0), *[one(f"a{i}") for i in range(3)]],
            "a0",
            "three in one zone and one in the other: one of the three, idle or not",
        ),
        ([one("b", "b", in_flight=0.0), one("a1"), one("a2")], "b", "two and one is even enough"),
    ],
)
def test_who_goes_first(replicas: list[Replica], expected: str, why: str) -> None:
    assert choose(replicas, 1)[0].name == expected, why


@pytest.mark.parametrize(
    ("replica", "expected", "why"),
    [
        (one("x"), Plan(drain=("x",)), "first it is drained"),
        (one("x", drained_s=2.0, in_flight=0.0), Plan(), "gateways may not know it yet"),
        (one("x", drained_s=10.0, in_flight=2.0), Plan(), "it has requests"),
        (one("x", drained_s=10.0, in_flight=None), Plan(), "it may have some"),
        (one("x", drained_s=10.0, in_flight=0.0), Plan(remove=("x",)), "it has none any more"),
        (one("x", drained_s=60.0, in_flight=2.0), Plan(remove=("x",)), "its time is up"),
        (one("x", ready=False), Plan(remove=("x",)), "it serves nobody"),
    ],
)
def test_when_it_goes(replica: Replica, expected: Plan, why: str) -> None:
    assert do([replica], 0) == expected, why


def test_who_is_needed_again_is_let_back() -> None:
    replicas = [one("a"), one("b", drained_s=10.0, in_flight=0.0)]
    assert do(replicas, 2) == Plan(restore=("b",))
    assert do(replicas, 5) == Plan(restore=("b",))
    assert do(replicas, 1) == Plan(remove=("b",))


facts = st.builds(
    Replica,
    name=st.uuids().map(str),
    zone=st.sampled_from("abc"),
    ready=st.booleans(),
    created=st.floats(0, 900),
    in_flight=st.one_of(st.none(), st.floats(0, 50)),
    drained_s=st.one_of(st.none(), st.floats(0, 100)),
)


@given(st.lists(facts, max_size=12, unique_by=lambda replica: replica.name), st.integers(0, 14))
def test_never_more_go_than_are_too_many(replicas: list[Replica], wanted: int) -> None:
    found = do(replicas, wanted)
    surplus = max(0, len(replicas) - wanted)
    assert len(found.remove) <= surplus
    assert len({*found.drain, *found.remove}) <= surplus
    by_name = {replica.name: replica for replica in replicas}
    for name in found.remove:
        replica = by_name[name]
        assert not replica.ready or replica.drained_s is not None, "nothing that serves goes undrained"
    for name in found.restore:
        assert by_name[name].drained_s is not None
    assert not {*found.restore} & {*found.drain, *found.remove}


@given(st.integers(1, 12), st.integers(1, 12))
def test_zones_stay_even(a: int, b: int) -> None:
    left = [one(f"a{i}", "a", in_flight=float(i)) for i in range(a)]
    left += [one(f"b{i}", "b", in_flight=float(20 + i)) for i in range(b)]
    before = abs(a - b)
    gone = choose(left, (a + b) // 2)
    zones = Counter({"a": 0, "b": 0})
    zones.update(replica.zone for replica in left if replica not in gone)
    assert abs(zones["a"] - zones["b"]) <= max(2, before)
