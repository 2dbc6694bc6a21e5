"""Arrivals by hand-worked times, and by what must hold however the rate changes."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import Arrivals, even, poisson


def distances(*values: float) -> Arrivals:
    left = iter(values)
    return Arrivals(lambda: next(left))


def taken(arrivals: Arrivals, until: float) -> list[float]:
    found = []
    while arrivals.due() <= until:
        found.append(arrivals.take())
    return found


def test_at_a_constant_rate() -> None:
    arrivals = distances(1.0, 0.5, 2.0, 1.0)
    assert math.isinf(arrivals.due())
    arrivals.change(10.0, 2.0)
    assert [arrivals.take() for _ in range(3)] == [10.5, 10.75, 11.75]


def test_what_is_left_of_a_distance_is_stretched() -> None:
    arrivals = distances(1.0, 1.0)
    arrivals.change(0.0, 1.0)
    arrivals.change(0.5, 0.25)  # half of it has passed; the other half takes four times as long
    assert arrivals.due() == 2.5
    arrivals.change(1.5, 1.0)
    assert arrivals.take() == 1.75


def test_without_a_rate_time_stands_still() -> None:
    arrivals = distances(1.0, 1.0)
    arrivals.change(0.0, 1.0)
    arrivals.change(0.4, 0.0)
    assert math.isinf(arrivals.due())
    with pytest.raises(ValueError, match="nothing is due"):
        arrivals.take()
    arrivals.change(100.0, 2.0)
    assert arrivals.take() == pytest.approx(100.3)


def test_what_is_due_is_taken_before_the_rate_changes() -> None:
    arrivals = distances(1.0, 1.0)
    arrivals.change(0.0, 1.0)
    with pytest.raises(ValueError, match="take what is due first"):
        arrivals.change(1.5, 10.0)
    assert arrivals.take() == 1.0
    arrivals.change(1.5, 10.0)
    assert arrivals.due() == pytest.approx(1.55)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_rates_that_cannot_be(rate: float) -> None:
    with pytest.raises(ValueError, match="can't be"):
        poisson(1).change(0.0, rate)


def test_by_chance_counts_scatter_as_poisson_s_do() -> None:
    arrivals = poisson("a")
    arrivals.change(0.0, 20.0)
    due = taken(arrivals, 2000.0)
    counts = [0] * 2000
    for one in due:
        counts[min(1999, int(one))] += 1
    assert statistics.mean(counts) == pytest.approx(20, rel=0.03)
    assert statistics.variance(counts) == pytest.approx(20, rel=0.15)


def test_evenly_they_are_at_one_distance_from_a_time_of_their_own() -> None:
    first = []
    for seed in range(20):
        arrivals = even(seed)
        arrivals.change(0.0, 10.0)
        due = taken(arrivals, 5.0)
        assert all(b - a == pytest.approx(0.1) for a, b in itertools.pairwise(due))
        first.append(due[0])
    assert all(0 <= one <= 0.1 for one in first)
    assert len(set(first)) == 20


def test_the_same_seed_gives_the_same_times() -> None:
    times = []
    for _ in range(2):
        arrivals = poisson("x")
        arrivals.change(0.0, 5.0)
        times.append(taken(arrivals, 100.0))
    assert times[0] == times[1]


CHANGES = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), min_size=1, max_size=20)


@given(CHANGES, st.booleans())
def test_due_times_never_go_back_and_are_as_many_as_the_rates_ask_for(
    changes: list[tuple[float, float]], evenly: bool
) -> None:
    """Evenly, they are so many to within one, however the rate changes."""
    arrivals = even("e") if evenly else poisson("p")
    now, expected, found = 0.0, 0.0, []
    for length, rate in changes:
        arrivals.change(now, rate)
        found += taken(arrivals, now + length)
        now, expected = now + length, expected + length * rate
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found))
    assert all(0 <= one <= now + 1e-9 for one in found)
    if evenly:
        assert abs(len(found) - expected) <= 1 + 1e-6
