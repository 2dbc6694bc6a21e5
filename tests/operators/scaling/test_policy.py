"""The policy as a whole: what it does with traffic, with nothing to go by, and with what can't be true."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.scaling import Capacity, Decision, Observation, State, begin, decide
from operators.scaling.history import History
from operators.scaling.policy import replicas_for
from switchboard.api.scaling import Mode, Pace, Pause, Scaling, Schedule

START = 1_800_000_000.0
CAPACITY = Capacity(rps=40, concurrency=4, wait_s=0.2, start_s=5)
LONG_AGO = 3600.0


def scaling(**more: Any) -> Scaling:
    return Scaling(**{"min_replicas": 1, "max_replicas": 50, **more})


def seen(rate: float | None, current: int = 4, **more: Any) -> Observation:
    return Observation(**{"current": current, "ready": current, "rate": rate, **more})


def settled(now: float = START, **more: Any) -> State:
    """The state of an operator that has watched for an hour."""
    return replace(begin(now - LONG_AGO), at=now - 2, known_at=now - 2, busy_at=now - 2, **more)


def run(
    policy: Scaling, rates: Iterable[float | None], current: int, state: State, capacity: Capacity = CAPACITY
) -> list[Decision]:
    """A decision every 2 s, each carried out at once."""
    decisions = []
    for number, rate in enumerate(rates):
        decision, state = decide(policy, capacity, seen(rate, current), state, START + 2 * number)
        decisions.append(decision)
        current = decision.wanted
    return decisions


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0, 0), (40, (40 + 1.8 * math.sqrt(200)) / 40), (4000, 4000 / 40 / 0.9)],
    ids=["nothing", "room for bursts", "the utilization at high rates"],
)
def test_replicas_for_a_rate(rate: float, expected: float) -> None:
    assert replicas_for(rate, CAPACITY, 0.9) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("more", "because", "wanted"),
    [
        ({"rate": 100}, "rate", 4),
        ({"rate": 500}, "rate", 15),
        ({"rate": 100, "in_service": 40}, "in-flight", 11),
        ({"rate": 150, "queued": 1000}, "queue", 5),
        ({"rate": 500, "queued": 5000}, "queue", 16),
        ({"rate": 100, "latest_rate": 500}, "rate", 14),
        ({"rate": 100, "latest_rate": 120}, "rate", 4),
    ],
    ids=[
        "as much as there is",
        "a step",
        "slow answers: full replicas at a low rate",
        "a backlog to be drained in 20 s",
        "a large backlog asks for a little more, not for five times",
        "what the last tick is sure to show",
        "which noise isn't",
    ],
)
def test_the_largest_signal_counts(more: dict[str, float], because: str, wanted: int) -> None:
    decision, _ = decide(scaling(), CAPACITY, seen(**more), settled(), START)
    assert (decision.because, decision.wanted) == (because, wanted), decision.sentence()


def test_full_replicas_that_work_off_a_backlog_are_needed_but_ask_for_no_more() -> None:
    state = settled(waited_at=START - 4)
    decision, _ = decide(scaling(), CAPACITY, seen(100, in_service=16), state, START)
    assert decision.raw["in-flight"] == 4
    decision, _ = decide(scaling(), CAPACITY, seen(100, in_service=16), settled(), START)
    assert decision.raw["in-flight"] == pytest.approx(16 / 3.6)


def test_replicas_that_take_less_than_is_said() -> None:
    """All of eight are full and requests wait: none is taken away, and after two minutes more are asked for."""
    state, current, wanted = settled(), 8, []
    for tick in range(400):
        looks = seen(100, current, in_service=4 * current, queued=50 if current < 12 else 0)
        decision, state = decide(scaling(), CAPACITY, looks, state, START + 2 * tick)
        current = decision.wanted
        wanted.append(current)
    assert wanted[:60] == [8] * 60
    assert wanted[60:121] == [9] * 61, "and one more every two minutes"
    assert wanted[-1] >= 12
    assert wanted == sorted(wanted)


def test_a_step_up_is_settled_at_once_and_down_after_its_window() -> None:
    decisions = run(scaling(), [*[100.0] * 10, *[500.0] * 60, *[100.0] * 60], 4, settled())
    wanted = [decision.wanted for decision in decisions]
    assert wanted[:10] == [4] * 10
    assert wanted[10:70] == [15] * 60
    down = wanted.index(4, 70)
    assert (down - 69) * 2 == 60, "the stabilisation of a start time of 5 s"
    assert set(wanted[70:down]) == {15}
    kept = decisions[75]
    assert [move.constraint for move in kept.moves] == ["stabilization"]
    assert kept.sentence().startswith("stays at 15: rate asks for ")


def test_a_slow_start_isn_t_paid_twice() -> None:
    """What was asked for counts, be it ready or not, and be it never."""
    state, capacity = settled(), replace(CAPACITY, start_s=420)
    for number in range(200):
        looks = Observation(current=15, ready=4, rate=500, in_service=16, queued=5000)
        decision, state = decide(scaling(), capacity, looks, state, START + 2 * number)
        assert decision.wanted <= 16


def test_the_headroom_of_the_history() -> None:
    """A minute of 4x in every four: holding it costs less than being late for it."""
    rates = [*[100.0] * 18, *[400.0] * 6] * 12
    known = History.of(rates, level_s=600, keep_s=14_400)
    state = settled(history=known, bucket=(int(START // 10) - 1, 300.0, 3))
    decision, _ = decide(scaling(), replace(CAPACITY, start_s=180), seen(100), state, START)
    assert decision.because == "headroom"
    assert decision.wanted == math.ceil(float(replicas_for(400.0, CAPACITY, 0.9)) - 0.3)
    free = scaling(headroom={"price": 0})
    assert decide(free, replace(CAPACITY, start_s=180), seen(100), state, START)[0].wanted == 4


# Nothing to go by


@pytest.mark.parametrize("rate", [None, math.nan, math.inf, -1.0], ids=str)
def test_without_a_rate_nothing_goes_down(rate: float | None) -> None:
    decisions = run(scaling(), [rate] * 400, 20, settled())
    assert {decision.wanted for decision in decisions} == {20}
    assert decisions[-1].because is None
    assert "nothing is known" in decisions[-1].sentence()


def test_a_gap_that_looks_like_zero() -> None:
    """No arrivals, while requests are at work or wait: that isn't believed."""
    for more in ({"in_service": 3.0}, {"queued": 2.0}):
        decision, _ = decide(scaling(), CAPACITY, seen(0.0, 20, **more), settled(), START)
        assert decision.because is None
        assert decision.wanted == 20


def test_a_zero_that_may_be_true_waits_for_its_window() -> None:
    decisions = run(scaling(), [*[500.0] * 30, *[0.0] * 29], 15, settled())
    assert decisions[-1].wanted == 15


def test_after_a_gap_the_view_starts_anew() -> None:
    decisions = run(scaling(), [*[500.0] * 30, None, *[100.0] * 60], 15, settled())
    after = decisions[31:]
    assert [decision.wanted for decision in after[:29]] == [15] * 29
    assert after[-1].wanted == 4


def test_the_fallback_after_a_time_without_signals() -> None:
    policy = scaling(fallback_replicas=8, fallback_after_seconds=60)
    wanted = [decision.wanted for decision in run(policy, [None] * 60, 4, settled())]
    assert wanted[:28] == [4] * 28
    assert wanted[-1] == 8
    assert run(policy, [None] * 60, 12, settled())[-1].wanted == 12, "it only raises"


def test_a_restart_never_scales_down_at_once() -> None:
    decisions = run(scaling(), [100.0] * 40, 20, begin(START))
    wanted = [decision.wanted for decision in decisions]
    assert wanted[:30] == [20] * 30
    assert wanted[-1] == 4
    assert decisions[5].moves[0].constraint == "view"
    assert run(scaling(), [500.0], 4, begin(START))[0].wanted == 15, "up it goes"


def test_forecasts_of_many_servers_are_made_at_different_ticks() -> None:
    """Each every 10 s, by its key; nobody's tick pays for all."""
    states = {f"server-{number}": begin(START, key=f"server-{number}") for number in range(500)}
    full: list[int] = []
    for tick in range(1, 11):
        before = dict(states)
        for key, state in before.items():
            _, states[key] = decide(scaling(), CAPACITY, seen(100), state, START + 2 * tick)
        full.append(sum(states[key].history is not before[key].history for key in states))
    assert sum(full) == 2 * 500
    assert max(full) < 150
    assert {len(state.history.rates) for state in states.values()} == {2}


def test_after_a_jump_its_forecasts_are_made_when_they_were() -> None:
    state = begin(START, key="server-7")
    _, after = decide(scaling(), CAPACITY, seen(100), state, START + 500)
    assert after.offset_s == state.offset_s > 0


def test_steps_are_remembered_for_a_pace_only() -> None:
    paced = scaling(up=Pace(replicas=1, percent=1, period_seconds=60))
    for policy, expected in ((scaling(), 0), (paced, 30)):
        state, current = settled(), 4
        for tick in range(400):
            decision, state = decide(policy, CAPACITY, seen(2000.0, current), state, START + 2 * tick)
            current = decision.wanted - (tick % 10 == 9)
        assert len(state.changes) <= expected


@pytest.mark.parametrize("jump", [-7200.0, -1.0, 31.0, 86_400.0])
def test_a_clock_that_jumps(jump: float) -> None:
    _, state = decide(scaling(), CAPACITY, seen(500, 15), settled(), START)
    now = START + jump
    for number in range(29):
        decision, state = decide(scaling(), CAPACITY, seen(100, 15), state, now + 2 * number)
        assert decision.wanted == 15
    assert len(state.history.rates) <= 1440


# What a person sets


@pytest.mark.parametrize(
    ("more", "rate", "current", "expected", "constraint"),
    [
        ({"max_replicas": 10}, 500, 4, 10, "bounds"),
        ({"min_replicas": 6}, 10, 6, 6, None),
        ({"min_replicas": 6}, 10, 3, 6, "bounds"),
        ({"pause": Pause(up=True)}, 500, 4, 4, "pause"),
        ({"pause": Pause(down=True)}, 10, 20, 20, "pause"),
        ({"mode": Mode.PAUSED}, 500, 4, 4, "mode"),
        ({"mode": Mode.SHADOW}, 500, 4, 15, None),
        ({"up": Pace(replicas=2, percent=50)}, 500, 4, 6, "pace"),
        ({"down": Pace(replicas=1, percent=10)}, 10, 20, 18, "pace"),
        (
            {"schedules": (Schedule(name="sale", start="00:00", end="00:00", min_replicas=9),)},
            10,
            4,
            9,
            "schedule",
        ),
    ],
)
def test_constraints(
    more: dict[str, Any], rate: float, current: int, expected: int, constraint: str | None
) -> None:
    decision, _ = decide(scaling(**more), CAPACITY, seen(rate, current), settled(), START)
    assert decision.wanted == expected, decision.sentence()
    assert constraint is None or decision.moves[-1].constraint == constraint


def test_to_none_when_idle_and_back() -> None:
    policy = scaling(min_replicas=0, idle_seconds=120)
    wanted = [decision.wanted for decision in run(policy, [5.0, *[0.0] * 90], 1, settled())]
    assert wanted[:60] == [1] * 60
    assert wanted[-1] == 0
    idle = replace(settled(), busy_at=START - LONG_AGO)
    for rate in (0.0, 0.5, None):
        decision, _ = decide(policy, CAPACITY, seen(rate, 0, queued=1.0), idle, START)
        assert decision.wanted == 1, f"somebody waits, at a rate of {rate}"
    assert decide(policy, CAPACITY, seen(0.0, 0), idle, START)[0].wanted == 0


@pytest.mark.parametrize("nothing", [seen(0.0, 0), seen(None, 0)])
def test_what_is_at_none_is_not_started_by_a_new_leader(nothing: Observation) -> None:
    policy = scaling(min_replicas=0, idle_seconds=120)
    assert decide(policy, CAPACITY, nothing, begin(START), START)[0].wanted == 0


# Properties

signals = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(
    st.lists(st.tuples(signals, signals, signals, st.integers(0, 80), st.floats(-50, 500)), max_size=40),
    st.integers(0, 5),
    st.integers(5, 40),
)
def test_whatever_is_seen_the_answer_is_within_the_bounds(
    ticks: list[tuple[Any, Any, Any, int, float]], least: int, most: int
) -> None:
    policy, state, now = scaling(min_replicas=least, max_replicas=most), begin(START), START
    for rate, in_service, queued, current, apart in ticks:
        now += apart
        looks = Observation(current, current, rate, in_service, queued)
        decision, state = decide(policy, CAPACITY, looks, state, now)
        low = min(least, current) if decision.because is None else least
        assert low <= decision.wanted <= max(most, current if decision.because is None else 0)
        if decision.because is None:
            assert decision.wanted >= current, "nothing goes down unseen"
        assert decision.sentence()


@given(st.floats(1, 400), st.floats(1.0, 3.0))
def test_more_traffic_never_asks_for_less(rate: float, factor: float) -> None:
    one, _ = decide(scaling(), CAPACITY, seen(rate, 2), settled(), START)
    more, _ = decide(scaling(), CAPACITY, seen(rate * factor, 2), settled(), START)
    assert more.wanted >= one.wanted
