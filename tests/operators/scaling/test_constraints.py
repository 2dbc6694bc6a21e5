"""Each constraint by a table of cases."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.scaling import constraints
from switchboard.api.scaling import Day, Pace, Scaling, Schedule


@pytest.mark.parametrize(
    ("current", "needed", "kept", "expected", "why"),
    [
        (4, 4.3, 4.3, 4, "a third of a replica more is noise"),
        (4, 4.31, 4.31, 5, "more than that is a replica"),
        (4, 14.2, 14.2, 14, "the part that is noise isn't bought either"),
        (4, 14.4, 14.4, 15, ""),
        (10, 9.0, 9.0, 10, "one less isn't worth a turn"),
        (10, 8.9, 8.9, 9, "but more than one is"),
        (50, 46.5, 46.5, 50, "of 50, 8 % are four"),
        (50, 45.9, 45.9, 46, ""),
        (10, 2.0, 9.5, 10, "the window needed more than now"),
        (10, 2.0, 5.0, 5, "down to what the window needed"),
        (0, 0.0, 0.0, 0, "nothing, and none"),
        (1, 0.0, 0.0, 0, "nobody needed it"),
        (1, 0.0, 0.1, 1, "somebody did"),
    ],
)
def test_steps(current: int, needed: float, kept: float, expected: int, why: str) -> None:
    assert constraints.step(current, needed, kept, tolerance=0.08) == expected, why


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 100)), min_size=1, max_size=60))
def test_the_window_knows_its_highest(steps: list[tuple[float, float]]) -> None:
    now, kept, all_needs = 0.0, (), []
    for apart, need in steps:
        now += apart
        all_needs.append((now, need))
        kept = constraints.remember(kept, now, need, 60)
        assert kept[0][1] == max(value for at, value in all_needs if at > now - 60)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 100)), min_size=1, max_size=60))
def test_a_long_window_knows_it_nearly(steps: list[tuple[float, float]]) -> None:
    """Nothing too early, and nothing for longer than one part of the window more."""
    now, kept, all_needs, part_s = 0.0, (), [], 420 / constraints.MOST_REMEMBERED
    for apart, need in steps:
        now += apart
        all_needs.append((now, need))
        kept = constraints.remember(kept, now, need, 420)
        highest, highest_before = (
            max(value for at, value in all_needs if at > now - window_s) for window_s in (420, 420 + part_s)
        )
        assert highest <= kept[0][1] <= highest_before


def test_a_long_fall_takes_little_memory() -> None:
    kept: constraints.Timed = ()
    for tick in range(400):
        kept = constraints.remember(kept, 2.0 * tick, 1000.0 - tick, 420)
    assert len(kept) <= constraints.MOST_REMEMBERED + 2


@pytest.mark.parametrize(
    ("start_s", "given_s", "expected"),
    [(5, None, 60), (200, None, 200), (900, None, 420), (200, 0, 0), (5, 300, 300)],
)
def test_stabilization(start_s: float, given_s: int | None, expected: float) -> None:
    scaling = Scaling(max_replicas=5, stabilization_seconds=given_s)
    assert constraints.stabilization_s(scaling, start_s) == expected


PACE = Pace(replicas=4, percent=100, period_seconds=15)


@pytest.mark.parametrize(
    ("current", "wanted", "changes", "expected", "why"),
    [
        (2, 20, (), 6, "4 are more than 100 % of 2"),
        (10, 50, (), 20, "100 % of 10 are more than 4"),
        (20, 50, ((95.0, 10),), 20, "10 of the 20 were added 5 s ago: 10 was the start"),
        (20, 50, ((85.0, 10),), 40, "they were added 15 s ago"),
        (20, 5, ((95.0, 10),), 5, "what went up doesn't count for down"),
        (10, 1, (), 1, "100 % down"),
        (10, 5, ((95.0, -2),), 5, "12 was the start: down to 0"),
    ],
)
def test_paces(
    current: int, wanted: int, changes: tuple[tuple[float, int], ...], expected: int, why: str
) -> None:
    assert constraints.paced(current, wanted, PACE, changes, 100.0) == expected, why


def test_a_slow_pace_down() -> None:
    pace = Pace(replicas=1, percent=10, period_seconds=60)
    assert constraints.paced(30, 5, pace, (), 0.0) == 27
    assert constraints.paced(5, 1, pace, (), 0.0) == 4
    assert constraints.paced(5, 1, None, (), 0.0) == 1


def at(text: str, zone: str = "Asia/Shanghai") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


MORNING = Schedule(
    name="opening",
    days=(Day.MON, Day.TUE),
    start="08:30",
    end="10:00",
    time_zone="Asia/Shanghai",
    min_replicas=8,
)
NIGHT = Schedule(name="night", days=(Day.FRI,), start="22:00", end="06:00", min_replicas=3)
SPRING = Schedule(name="spring", start="02:15", end="04:00", time_zone="Europe/Berlin", min_replicas=2)


@pytest.mark.parametrize(
    ("schedule", "now", "expected", "why"),
    [
        (MORNING, at("2026-11-23T08:30"), 8, "Monday, at its start"),
        (MORNING, at("2026-11-23T10:00"), 0, "its end isn't in it"),
        (MORNING, at("2026-11-23T00:30", "UTC"), 8, "by the time zone's clock, not by UTC"),
        (MORNING, at("2026-11-25T09:00"), 0, "Wednesday"),
        (NIGHT, at("2026-11-27T23:00", "UTC"), 3, "Friday night"),
        (NIGHT, at("2026-11-28T05:59", "UTC"), 3, "which lasts into Saturday"),
        (NIGHT, at("2026-11-28T06:00", "UTC"), 0, ""),
        (NIGHT, at("2026-11-27T05:00", "UTC"), 0, "Thursday's night isn't scheduled"),
        (SPRING, at("2026-03-29T03:00", "Europe/Berlin"), 2, "the hour that there isn't is left out"),
        (SPRING, at("2026-03-29T00:30", "UTC"), 0, "01:30 there"),
    ],
)
def test_schedules(schedule: Schedule, now: float, expected: int, why: str) -> None:
    assert constraints.scheduled((schedule,), now)[0] == expected, why


def test_the_largest_minimum_counts() -> None:
    more = MORNING.model_copy(update={"name": "sale", "min_replicas": 20})
    assert constraints.scheduled((MORNING, more), at("2026-11-23T09:00")) == (20, "sale")
