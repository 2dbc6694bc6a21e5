"""What can't be true, isn't there, or comes late: the answer is bounded, explained, and takes nothing away for it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.scaling import Capacity, Decision, Observation, State, begin, decide
from switchboard.api.scaling import Pause, Scaling
from tests.operators.scaling.test_policy import CAPACITY, START, scaling, seen, settled

NAN, INF = math.nan, math.inf
WINDOW_TICKS = 30
TRUE = {"rate": 100.0, "in_service": 10.0, "queued": 0.0, "latest_rate": 100.0}


def follow(
    looks: Iterable[Observation],
    current: int,
    state: State,
    capacity: Capacity = CAPACITY,
    policy: Scaling | None = None,
) -> list[Decision]:
    """A decision every 2 s, each carried out at once."""
    decisions = []
    for number, one in enumerate(looks):
        told = replace(one, current=current)
        decision, state = decide(policy or scaling(), capacity, told, state, START + 2 * number)
        decisions.append(decision)
        current = decision.wanted
    return decisions


@pytest.mark.parametrize("signal", TRUE)
@pytest.mark.parametrize("value", [NAN, -1.0, INF, -INF, 1e30], ids=str)
def test_while_a_signal_is_untrue_nothing_goes_down(signal: str, value: float) -> None:
    wrong = seen(**{**TRUE, signal: value})
    decisions = follow([wrong] * 400, 20, settled())
    assert {one.wanted for one in decisions} == {20}
    assert "known" in decisions[-1].sentence()
    again = [one.wanted for one in follow([wrong, *[seen(**TRUE)] * 40], 20, settled())]
    assert again[:WINDOW_TICKS] == [20] * WINDOW_TICKS
    assert again[-1] == 4, "it's forgotten after a window's time"


@pytest.mark.parametrize("signal", ["in_service", "queued"])
def test_a_signal_that_is_known_is_missed_when_it_goes(signal: str) -> None:
    """Slow answers fill 11 replicas at a rate for 4: when only the rate is seen, that isn't forgotten."""
    full = {**TRUE, "in_service": 40.0, "queued": 3.0}
    looks = [*[seen(**full)] * 5, *[seen(**{**TRUE, signal: None})] * 2000]
    decisions = follow(looks, 11, settled())
    assert {one.wanted for one in decisions[:1700]} == {11}
    assert "view: known for 0 s only" in decisions[1500].sentence()
    assert decisions[-1].wanted == 4, "after an hour without it it's taken for gone"


@pytest.mark.parametrize("dip", [0.0, 30.0])
@pytest.mark.parametrize("others", [{}, {"in_service": 0.0, "queued": 0.0}], ids=["no others", "zeros"])
def test_a_counter_that_begins_anew_is_a_dip(dip: float, others: dict[str, float]) -> None:
    looks = [
        *[seen(500.0, **others)] * 20,
        seen(dip, latest_rate=dip, **others),
        *[seen(500.0, **others)] * 20,
    ]
    assert {one.wanted for one in follow(looks, 15, settled())} == {15}


@pytest.mark.parametrize(
    ("more", "idle_s", "kept_s"),
    [({}, None, 420), ({"min_replicas": 0, "idle_seconds": 120}, 120, 120)],
    ids=["as long as any window", "as long as somebody has said"],
)
def test_a_gap_that_looks_like_an_end_of_all_traffic(
    more: dict[str, Any], idle_s: int | None, kept_s: int
) -> None:
    zero = seen(0.0, in_service=0.0, queued=0.0, latest_rate=0.0)
    decisions = follow(
        [*[seen(**{**TRUE, "rate": 500.0})] * 10, *[zero] * 300], 15, settled(), policy=scaling(**more)
    )
    wanted = [one.wanted for one in decisions[10:]]
    assert wanted[: kept_s // 2 - 1] == [15] * (kept_s // 2 - 1)
    assert wanted[-1] == (1 if idle_s is None else 0)
    assert "no requests for" in decisions[10 + kept_s // 2 - 3].sentence()


@pytest.mark.parametrize(
    ("rate", "more", "expected", "why"),
    [
        (500.0, {}, 6, "what a person has set"),
        (None, {}, 12, "but not unseen"),
        (NAN, {}, 12, "nor for what can't be true"),
        (500.0, {"pause": Pause(down=True)}, 12, "nor while steps down are paused"),
    ],
)
def test_a_maximum_below_what_there_is(
    rate: float | None, more: dict[str, Any], expected: int, why: str
) -> None:
    decision, _ = decide(scaling(max_replicas=6, **more), CAPACITY, seen(rate, 12), settled(), START)
    assert decision.wanted == expected, why
    assert "maxReplicas is 6" in decision.sentence()


@pytest.mark.parametrize(
    ("capacity", "most"),
    [
        (CAPACITY, 16),
        (replace(CAPACITY, start_s=420), 16),
        (replace(CAPACITY, rps=INF), 4),
        (replace(CAPACITY, concurrency=INF), 16),
    ],
    ids=["at the rate's need", "with slow starts", "capacity unknown", "concurrency unknown"],
)
def test_replicas_that_never_get_ready_are_not_asked_for_again_and_again(
    capacity: Capacity, most: int
) -> None:
    """Customers come at 500 requests/s, all wait for 10 s and give up; nothing serves."""
    looks = [
        Observation(4, 0, 500.0, 0.0, min(5000.0, 1000.0 + 1000.0 * tick), latest_rate=500.0)
        for tick in range(500)
    ]
    decisions = follow(looks, 4, settled(), capacity)
    assert max(one.wanted for one in decisions) <= most
    assert decisions[-1].wanted >= 4


@pytest.mark.parametrize(
    ("more", "looks", "expected", "why"),
    [
        ({"rps": INF}, {"in_service": 30.0}, 9, "what is at work counts alone"),
        ({"rps": NAN}, {"in_service": 30.0}, 9, "what is no number isn't known"),
        ({"rps": 0.0}, {"in_service": 30.0}, 9, "nor is nothing"),
        ({"rps": -5.0}, {"in_service": 30.0}, 9, ""),
        ({"rps": INF}, {"in_service": 16.0, "queued": 400.0}, 8, "full, and many wait: twice of what serves"),
        ({"rps": INF}, {"in_service": 16.0, "queued": 4.0}, 6, "and fewer for few"),
        ({"rps": INF}, {}, 4, "nothing to go by"),
        ({"rps": INF, "concurrency": NAN}, {"in_service": 30.0}, 4, "nothing to measure it against"),
        ({"concurrency": 0.0}, {"in_service": 30.0}, 4, "the rate alone"),
        ({"concurrency": NAN, "wait_s": NAN}, {"in_service": 30.0}, 4, ""),
        ({"wait_s": 0.0}, {}, 4, "as usual"),
        ({"wait_s": INF}, {}, 4, ""),
        ({"rps": 1e-300}, {"in_service": 30.0}, 9, ""),
        ({"rps": 1e-5}, {}, 50, "bounded"),
    ],
)
def test_capacities_that_can_t_be(
    more: dict[str, float], looks: dict[str, float], expected: int, why: str
) -> None:
    decision, _ = decide(scaling(), replace(CAPACITY, **more), seen(100.0, **looks), settled(), START)
    assert decision.wanted == expected, f"{why} ({decision.sentence()})"


def test_without_any_capacity_nothing_goes_down() -> None:
    decisions = follow([seen(10.0)] * 400, 20, settled(), replace(CAPACITY, rps=INF))
    assert {one.wanted for one in decisions} == {20}
    assert decisions[-1].sentence() == "stays at 20: nothing is known of what a replica can take"


@pytest.mark.parametrize(("start_s", "kept_s"), [(NAN, 420), (-5.0, 420), (INF, 420), (1e12, 420), (0.0, 60)])
def test_start_times_that_can_t_be(start_s: float, kept_s: int) -> None:
    """The careful one counts: the longest stabilisation."""
    capacity = replace(CAPACITY, start_s=start_s)
    decisions = follow([*[seen(500.0)] * 60, *[seen(100.0)] * 300], 15, settled(), capacity)
    wanted = [one.wanted for one in decisions]
    down = next(tick for tick in range(60, 360) if wanted[tick] < 15)
    assert kept_s - 2 <= (down - 59) * 2 <= kept_s + 15


anything = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1000))
number = st.floats(allow_nan=True, allow_infinity=True)
capacities = st.builds(
    Capacity,
    rps=st.one_of(number, st.floats(1, 100)),
    concurrency=st.one_of(number, st.floats(1, 10)),
    wait_s=st.one_of(number, st.just(0.2)),
    start_s=st.one_of(number, st.floats(1, 600)),
)
ticks = st.tuples(anything, anything, anything, anything, st.integers(0, 80), st.floats(-50, 500), capacities)


@given(st.lists(ticks, max_size=30), st.integers(0, 5), st.integers(5, 40))
def test_whatever_is_seen_and_however_wrong(ticks: list[tuple[Any, ...]], least: int, most: int) -> None:
    """No error; within bounds; and where anything can't be true or isn't known, nothing is taken away below the
    maximum."""
    policy, state, now = scaling(min_replicas=least, max_replicas=most), begin(START), START
    for rate, in_service, queued, latest, current, apart, capacity in ticks:
        now += apart
        looks = Observation(current, current, rate, in_service, queued, latest)
        decision, state = decide(policy, capacity, looks, state, now)
        assert 0 <= decision.wanted <= max(most, current)
        if current <= most:
            assert decision.wanted >= least
        if looks.trusted() is not looks or rate is None:
            assert decision.wanted >= min(current, most)
        if decision.because is None:
            assert decision.wanted >= current
        assert decision.sentence()
        assert not math.isnan(state.headroom)
