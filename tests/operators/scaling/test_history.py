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
    assert found.rates.tolist() == list(range(80, 100))
    assert len(found.levels) == 20
    assert found.rates.base is None, "what is forgotten isn't in memory either"


parts = st.lists(
    st.lists(st.one_of(st.just(NAN), st.sampled_from([0.0, 90.0, 100.0, 130.0, 500.0])), max_size=40),
    max_size=12,
)


@given(parts, st.sampled_from([60, 120, 600, 3600]), st.sampled_from([600, 1500, 14_400]))
def test_many_at_once_are_as_one_after_the_other(
    parts: list[list[float]], level_s: float, keep_s: float
) -> None:
    together, one_by_one = History(), History()
    for part in parts:
        together = together.extend(part, level_s=level_s, keep_s=keep_s)
        for rate in part:
            one_by_one = one_by_one.add(rate, level_s=level_s, keep_s=keep_s)
    assert together.steady == one_by_one.steady
    np.testing.assert_array_equal(together.rates, one_by_one.rates)
    np.testing.assert_allclose(together.levels, one_by_one.levels, rtol=1e-6)


def test_none_is_changed_when_another_is_made_of_it() -> None:
    one = of(*range(1, 25))
    rates, levels = one.rates.tolist(), one.levels.tolist()
    for rate in (7.0, 8.0):
        assert one.add(rate, level_s=120, keep_s=240).rates[-1] == rate
    assert (one.rates.tolist(), one.levels.tolist()) == (rates, levels)


@pytest.mark.parametrize("rate", [math.inf, -math.inf, -1.0, 1e30], ids=str)
def test_what_can_t_be_true_isn_t_known(rate: float) -> None:
    found = of(*repeat(100.0, 30), rate, *repeat(100.0, 12))
    assert math.isnan(found.rates[30])
    assert set(history.forecast(found, 60)) == {100.0}


def test_it_is_small() -> None:
    found = of(*repeat(100.0, 3000), keep_s=14_400)
    assert found.rates.nbytes + found.levels.nbytes == 8 * 1440


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


def noisy(count: int, seed: int = 1) -> list[float]:
    """Traffic of 100 requests/s whose noise is that of the simulator, held for a minute."""
    return list(np.repeat(100 * np.random.default_rng(seed).gamma(15, 1 / 15, -(-count // 6)), 6)[:count])


RISING = [100 + 1.1 * i for i in range(200)]


@pytest.mark.parametrize(
    ("rates", "expected", "why"),
    [
        (RISING, 1 + 1.1 * 18 / (RISING[-1] - 1.1 * 29.5), "as it goes on"),
        ([1 + 2 * i for i in range(200)], 1.1, "a tenth at most"),
        (RISING[:120], 1, "too short to tell"),
        (RISING[::-1], 1, "falling"),
        ([*repeat(100.0, 140), *RISING[:60]], 1, "in one stretch only"),
        ([*repeat(100.0, 140), *repeat(400.0, 60)], 1, "a new level is none"),
        ([*RISING[:150], *repeat(NAN, 60)], 1, "nothing known"),
        ([*RISING[:135], *repeat(NAN, 60), *RISING[-31:]], 1, "nothing known between"),
        ([*repeat(0.0, 200)], 1, "nothing there"),
    ],
)
def test_trends(rates: list[float], expected: float, why: str) -> None:
    assert history.trend(of(*rates, level_s=600), 18) == pytest.approx(expected, rel=1e-3), why


def test_noise_is_no_trend() -> None:
    found = [history.trend(of(*noisy(200, seed), level_s=600), 42) for seed in range(40)]
    assert np.quantile(found, 0.75) < 1.01


def test_a_trend_goes_beyond_what_was_seen() -> None:
    assert history.forecast(of(*RISING, level_s=600), 420).max() > 1.04 * RISING[-1]


@pytest.mark.parametrize(
    ("recent", "expected", "why"),
    [
        (noisy(180, 2), True, "more of the same"),
        ([0.7 * rate for rate in noisy(180, 2)], True, "lower, which harms no customer"),
        (
            [1.5 * rate for rate in noisy(180, 2)],
            False,
            "far more than a tenth are above its 90th percentile",
        ),
        ([1.5 * rate for rate in noisy(60, 2)], True, "too few to tell"),
        ([100.0] * 180, True, "no noise at all"),
    ],
)
def test_whether_a_forecast_covers_what_came(recent: list[float], expected: bool, why: str) -> None:
    assert history.covers(np.asarray(noisy(1000)), np.asarray(recent)) is expected, why
    assert history.covers(np.asarray(noisy(40)), np.asarray(recent)), "nothing to compare with"


def test_noise_is_seldom_taken_for_a_lack_of_cover() -> None:
    found = [
        history.covers(np.asarray(noisy(1200, seed)), np.asarray(noisy(180, seed + 100)))
        for seed in range(60)
    ]
    assert np.mean(found) > 0.9


def test_what_does_not_cover_counts_no_more() -> None:
    """An hour and more of calm, then half an hour of bursts every two minutes: from then on only these count."""
    calm = [*repeat(100.0, 400)]
    bursts = list(chain.from_iterable(repeat([*repeat(80.0, 8), *repeat(140.0, 4)], 16)))
    together = history.forecast(of(*calm, *bursts[:60], level_s=600), 60)
    alone = history.forecast(of(*calm, *bursts, level_s=600), 60)
    assert (together > 120).mean() < 0.1
    assert (alone > 120).mean() == pytest.approx(1 / 3, abs=0.05)


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
