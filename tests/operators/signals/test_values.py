"""One look at all traffic, completed by another."""

from __future__ import annotations

import pytest

from operators.signals.values import CORE, EDGE, Key, Place, Seen, Traffic

CHAT = Key("chat")
BEIJING = Place(EDGE, "cn-beijing")
THERE = {Place(): 2, BEIJING: 1}
IN_PART = Seen(
    10.0,
    "prometheus",
    {(CHAT, 6): Traffic(rate=50.0, latest_rate=50.0, in_service=4.0, cpu=1.0, answered=90.0, measured=3)},
    {Place(): 1, BEIJING: 1},
    {"pod-1": 2.0},
    0.5,
)
OWN = Seen(
    10.0,
    "gateways",
    {(CHAT, 6): Traffic(rate=100.0, latest_rate=110.0, in_service=9.0, queued=5.0, measured=0)},
    THERE,
    problem="Prometheus doesn't see all gateways",
)


@pytest.mark.parametrize(
    ("gateways", "lacks"),
    [
        pytest.param(THERE, False, id="all"),
        pytest.param({Place(): 3, BEIJING: 1}, False, id="more than are known"),
        pytest.param({Place(): 1, BEIJING: 1}, True, id="one is missing"),
        pytest.param({Place(): 3}, True, id="an edge is missing"),
        pytest.param({}, True, id="nothing was seen at all"),
    ],
)
def test_a_look_lacks_gateways(gateways: dict[Place, int], lacks: bool) -> None:
    assert Seen(10.0, "prometheus", {}, gateways).lacks(THERE) is lacks


def test_arrivals_are_the_gateways_and_what_replicas_say_stays() -> None:
    found = IN_PART.completed(OWN, THERE)
    assert found.traffic[CHAT, 6] == Traffic(
        rate=100.0, latest_rate=110.0, in_service=4.0, queued=5.0, cpu=1.0, answered=90.0, measured=3
    )
    assert (found.source, found.gateways, found.problem) == ("gateways", THERE, OWN.problem)
    assert (found.in_flight, found.age_s) == ({"pod-1": 2.0}, 0.5)
    assert found.whole(CHAT, THERE)


def test_an_empty_answer_is_completed() -> None:
    """A Prometheus that has just begun, or may not read any pods, answers with nothing."""
    found = Seen(10.0, "prometheus").completed(OWN, THERE)
    assert found.traffic[CHAT, 6].rate == 100.0
    assert found.whole(CHAT, THERE)


def test_another_look_in_part_completes_nothing() -> None:
    other = Seen(10.0, "gateways", OWN.traffic, {Place(CORE): 2})
    assert IN_PART.completed(other, THERE) is IN_PART
