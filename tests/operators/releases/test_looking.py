"""A release that could see nothing at the traffic of now: it looks for a while, and is refused."""

from __future__ import annotations

from typing import Any

import pytest

from operators.canary.plan import Traffic
from operators.canary.values import USUAL
from operators.releases import machine
from operators.releases.machine import LOOKS_S
from operators.releases.values import Running, Wanted
from switchboard.api.model_release import Margin, MetricName, Order, Phase
from tests.operators.releases.way import GOOD, Way


def at(rps: float) -> Traffic:
    return Traffic(rps, USUAL, 10, 1)


WIDE = tuple(
    Margin(name=name, margin=0.3) for name in MetricName if name not in (MetricName.RESTARTS, MetricName.GREW)
)
TRAFFIC: list[tuple[str, Traffic | None, dict[str, Any], bool]] = [
    ("a bank's by day", at(50), {}, True),
    ("too little of it", at(1), {}, False),
    ("none at all, in a new stack or by night", at(0), {}, False),
    ("nobody knows it", None, {}, True),
    ("too little, but for long", at(1), {"within_seconds": 20_000}, True),
    ("too little for what is usual, with wide margins", at(1), {"metrics": WIDE}, True),
    ("enough of it, for too short", at(50), {"within_seconds": 60}, False),
    ("none, and a person has decided", at(0), {"order": Order.PROMOTE}, True),
    ("steps that are chosen", at(0), {"steps": ()}, False),
]


@pytest.mark.parametrize(("why", "traffic", "changes", "begins"), TRAFFIC, ids=[why for why, *_ in TRAFFIC])
def test_one_that_would_see_nothing_is_refused(
    why: str, traffic: Traffic | None, changes: dict[str, Any], begins: bool
) -> None:
    way = Way(**changes)
    assert way.after(0.0, traffic=traffic) is (Phase.PREPARING if begins else Phase.PENDING), why
    if begins:
        return
    said = way.status
    assert said.sentence == machine.LOOKS
    assert way.after(LOOKS_S - 1) is Phase.PENDING
    assert way.status is said, "it is said once"
    assert way.after(1.0) is Phase.REFUSED
    assert way.wanted == Wanted()


def test_what_a_refusal_for_want_of_traffic_says() -> None:
    way = Way()
    way.after(0.0, traffic=at(1))
    way.after(LOOKS_S)
    assert way.status.sentence == (
        "too little would be seen at 1 requests/s: requests failed: 0.5 % more than the champion's 0.5 % can't be "
        "excluded within 30 min; it takes more traffic, weight or time, or a wider margin; "
        "or a person promotes it without a verdict (switchboard canary start 8 --server chat --promote)"
    )


def test_a_moment_without_traffic_refuses_nothing() -> None:
    way = Way()
    assert way.after(0.0, traffic=at(0)) is Phase.PENDING
    assert way.after(LOOKS_S - 1, traffic=at(50)) is Phase.PREPARING


def test_whoever_takes_over_looks_on() -> None:
    """An operator that has just begun knows neither the registry's word nor the traffic; where nobody gets to know the
    traffic, nothing is refused."""
    way = Way()
    way.after(0.0, traffic=at(0))
    said = way.status
    way.after(30.0, traffic=None, checked=None)
    way.after(LOOKS_S - 30.0, checked=GOOD.checked)
    assert way.status is said
    assert way.after(1.0, traffic=at(0)) is Phase.REFUSED
    blind = Way()
    blind.after(0.0, traffic=at(0))
    assert blind.after(2 * LOOKS_S - 1, traffic=None) is Phase.PENDING
    assert blind.after(1.0) is Phase.PREPARING
    decided = Way()
    decided.after(0.0, traffic=at(0))
    assert decided.after(1.0, Order.PROMOTE, traffic=None) is Phase.PREPARING


def test_promoted_from_the_start_it_waits_for_nothing_but_its_replicas() -> None:
    way = Way(order=Order.PROMOTE)
    assert way.after(0.0, traffic=at(0), candidate=None) is Phase.PREPARING
    assert way.after(5.0) is Phase.PREPARING
    assert way.after(5.0, candidate=Running(10, 10, current=True)) is Phase.SHADOW
    assert way.after(1.0) is Phase.PROMOTING
    assert way.after(1.0) is Phase.WARM
    assert [turn.sentence for turn in way.status.turns if turn.phase is Phase.PROMOTING] == [
        "promoted by hand"
    ]


def test_one_whose_champion_isnt_seen_is_refused_by_the_metrics_name() -> None:
    way = Way()
    assert way.after(0.0, unseen=("slow", "grew")) is Phase.PENDING
    said = way.status
    assert said.sentence == machine.LOOKS
    assert way.after(LOOKS_S - 1) is Phase.PENDING and way.status is said
    assert way.after(1.0) is Phase.REFUSED
    assert way.wanted == Wanted()
    assert way.status.sentence == (
        "Prometheus has no data of chat for requests over the latency bound, "
        "times 20 s in which a pod's memory grew: nothing could be judged by it"
    )


def test_a_prometheus_that_is_away_is_waited_for_as_long_as_a_release_may_take() -> None:
    way = Way(within_seconds=600)
    assert way.after(0.0, unseen=None) is Phase.PENDING
    said = way.status
    assert said.sentence == machine.SILENT
    assert way.after(599.0) is Phase.PENDING and way.status is said
    assert way.after(1.0) is Phase.REFUSED
    assert way.status.sentence == f"{machine.SILENT}, for 600 s"


def test_of_two_things_that_are_missing_by_turns_there_is_one_clock() -> None:
    way = Way()
    for number in range(6):
        few = number % 2 == 0
        assert way.after(10.0, traffic=at(1 if few else 50), unseen=() if few else ("slow",)) is Phase.PENDING
    assert len(way.status.turns) == 1
    assert way.after(10.0) is Phase.REFUSED


def test_what_is_scraped_within_the_minute_refuses_nothing() -> None:
    way = Way()
    way.after(0.0, traffic=at(50), unseen=("failed",))
    assert way.after(LOOKS_S - 1, unseen=()) is Phase.PREPARING


def test_whoever_takes_over_asks_prometheus_anew_and_looks_on() -> None:
    way = Way()
    way.after(0.0, traffic=at(0))
    said = way.status
    assert way.after(30.0, traffic=None, unseen=None) is Phase.PENDING and way.status is said
    assert way.after(10.0, unseen=()) is Phase.PENDING and way.status is said
    assert way.after(20.0, traffic=at(0)) is Phase.REFUSED


def test_by_hand_nothing_has_to_be_seen() -> None:
    for unseen in (("failed",), None):
        assert Way(order=Order.PROMOTE).after(0.0, unseen=unseen) is Phase.PREPARING
