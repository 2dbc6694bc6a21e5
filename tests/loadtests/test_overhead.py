from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.bounds import mean_at_most
from loadtests.overhead import Block, added

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("values", "confidence", "expected"),
    [
        # t of 9 degrees of freedom at 95 % is 1.833, of 1 at 95 % 6.314, at 97.5 % 12.706 (any table).
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.95, 5.5 + 1.8331 * 3.02765 / math.sqrt(10), id="ten"),
        pytest.param([0, 2], 0.95, 1 + 6.3138, id="two"),
        pytest.param([0, 2], 0.975, 1 + 12.7062, id="surer"),
        pytest.param([3, 3, 3], 0.95, 3.0, id="all alike"),
    ],
)
def test_the_mean_is_at_most(values: list[float], confidence: float, expected: float) -> None:
    assert mean_at_most(values, confidence) == pytest.approx(expected, abs=1e-3)


@given(NUMBERS, st.floats(-1e3, 1e3))
def test_it_goes_with_the_values_and_is_no_less_than_their_mean(values: list[float], more: float) -> None:
    found = mean_at_most(values)
    assert found >= sum(values) / len(values) - 1e-6
    assert mean_at_most([one + more for one in values]) == pytest.approx(found + more, abs=1e-6)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_of_too_few_nothing_is_said(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two values"):
        mean_at_most(values)


def test_what_a_gateway_adds() -> None:
    pairs = [(Block(4.0 + n % 2, 9.0, 100, 0), Block(3.5, 8.0 - n, 100, 0)) for n in range(10)]
    p50, p99 = added(pairs, 1.0, 3.0)
    assert (p50.mean, p99.mean) == (1.0, 5.5)
    assert not p50.holds, "its mean is what is allowed, its bound is more"
    assert p50.at_most == pytest.approx(1.0 + 1.8331 * 0.52705 / math.sqrt(10), abs=1e-3)
    assert not p99.holds
    assert all(one.holds for one in added(pairs, 1.5, 8.0))
    assert str(p99) == "added at p99: 5.50 ms, at most 7.26 ms (95%); more than allowed (3 ms)"
