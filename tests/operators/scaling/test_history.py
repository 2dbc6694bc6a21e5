"""What a history of rates says about the near future, and what that is worth."""

from __future__ import annotations

import math
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.scaling import history
from operators.scaling.history import History

NAN = math.nan


def of(*rates: float, level_s: float = 120, keep_s: float = 3600) -> History:
    return History.of(rates, level_s=level_s, keep_s=keep_s)


def test_a_level_is_the_mean_of_its_time() -> None:
    found = of(*range(1, 25))
    assert found.levels[0] == 1
    assert found.levels[11] == np.mean(range(1, 13))
    assert found.levels[-1] == np.mean(range(13, 25))


def test_it_forgets() -> None:
    found = of(*range(1, 100), keep_s=200)
    assert found.rates == tuple(range(80, 100))
    assert len(found.levels) == 20


def test_a_level_that_has_halved_is_new_at_once() -> None:
    """Not an average of both for as long as a level's time."""
    found = of(*repeat(500.0, 90), *repeat(100.0, 20), level_s=600)
    assert found.levels[89] == 500
    changed = next(i for i, level in enumerate(found.levels) if i > 90 and level == pytest.approx(100))
    assert changed - 90 <= 2 * history.SHIFT_BUCKETS
    assert found.levels[-1] == pytest.approx(100)


def test_noise_is_no_new_level() -> None:
    random = np.random.default_rng(1)
    found = of(*(100 * random.gamma(15, 1 / 15, 200)), level_s=600)
    assert found.steady == 200


def test_gaps_are_no_rates() -> None:
    found = of(100.0, NAN, 100.0, NAN, 100.0)
    assert found.levels[-1] == 100
    assert math.isnan(of(100.0, *repeat(NAN, 12)).levels[-1])
    assert len(history.forecast(of(*repeat(100.0, 40), *repeat(NAN, 12)), 60)) == 0


@pytest.mark.parametrize("count", [0, 1, 5, 17])
def test_a_short_history_says_nothing(count: int) -> None:
    assert len(history.forecast(of(*repeat(100.0, count)), 60)) == 0


def test_steady_traffic_is_forecast_as_it_is() -> None:
    assert set(history.forecast(of(*repeat(100.0, 60)), 60)) == {100.0}


def test_a_trend_is_in_the_ratios() -> None:
    """Growth of 1 % a bucket: 60 s ahead of a level that is itself 5.5 buckets old, 12 % more is expected."""
    rates = [100 * 1.01**i for i in range(120)]
    found = history.forecast(of(*rates, 1e6, keep_s=1e6), 60)  # the last one only lifts the cap on forecasts
    found = history.forecast(of(*rates[:100]), 60)
    assert found.max() <= rates[99]
    ratios = np.asarray(rates[30:100]) / np.asarray(of(*rates).levels[24:94])
    assert ratios == pytest.approx(np.full(70, 1.01**6 * 12 * 0.01 / (1.01 - 1.01**-11)), rel=0.01)


def test_never_more_than_was_ever_seen() -> None:
    """Bursts of 4x, seen at the quiet level; at the level of a burst they would say 16x."""
    rates = list(chain.from_iterable(repeat([*repeat(100.0, 24), *repeat(400.0, 24)], 5)))
    assert history.forecast(of(*rates), 120).max() == 400


@pytest.mark.parametrize(
    ("price", "expected", "why"),
    [
        (0.5, 2, "cheaper than any replica: the least that was needed"),
        (50, 4, "1 % of 50 s is less than a replica, 10 % is more"),
        (1000, 10, "worth six replicas for 1 % of the time"),
    ],
)
def test_what_is_worth_its_price(price: float, expected: float, why: str) -> None:
    needs = np.asarray([*repeat(2.0, 90), *repeat(4.0, 9), 10.0])
    assert history.priced(needs, price) == expected, why


@given(st.lists(st.floats(0.5, 50), min_size=1, max_size=50), st.floats(1, 500), st.floats(1, 5))
def test_a_higher_price_never_buys_less(needs: list[float], price: float, factor: float) -> None:
    all_needs = np.asarray(needs)
    assert history.priced(all_needs, price * factor) >= history.priced(all_needs, price)
    assert min(needs) <= history.priced(all_needs, price) <= max(needs)


def test_without_a_price_there_is_no_headroom() -> None:
    known = of(*repeat(100.0, 60))
    assert history.headroom(known, horizon_s=60, price=0, replicas_for=lambda rates: rates) == 0
    assert history.headroom(known, horizon_s=60, price=10, replicas_for=lambda rates: rates / 40) == 2.5
