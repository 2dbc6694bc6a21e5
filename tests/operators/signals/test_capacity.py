"""What a replica can take, measured: recovered from noisy samples, never absurd, and forgotten when it changes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.signals.capacity import (
    ENOUGH_STARTS,
    LEAST_CPU,
    LEAST_RPS,
    LEAST_SAMPLES,
    MEMORY_S,
    MOST_BY_BASE,
    NO_FIT,
    Fit,
    p95_start_s,
)

TICK_S = 10.0


def fitted(samples: Iterable[tuple[float, float]], fit: Fit = NO_FIT, start_s: float = 0.0) -> Fit:
    """With samples of rate and cores, one each window."""
    for number, (rate, cpu) in enumerate(samples):
        fit = fit.add(rate, cpu, start_s + TICK_S * number)
    return fit


def replica(
    rates: Sequence[float], *, cost: float, base: float, noise: float = 0.0, seed: int = 1
) -> list[tuple[float, float]]:
    """What a replica takes that is asked at such rates, measured with an error."""
    chance = random.Random(seed)
    return [(rate, max(0.0, (base + cost * rate) * chance.gauss(1, noise))) for rate in rates]


def waves(low: float, high: float, ticks: int = 300) -> list[float]:
    return [low + (high - low) * (1 + math.sin(number / 20)) / 2 for number in range(ticks)]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    ("cost", "base", "low", "high"),
    [
        pytest.param(0.02, 0.05, 5, 40, id="chat"),
        pytest.param(0.1, 0.02, 1, 9, id="voice"),
        pytest.param(0.001, 0.2, 100, 700, id="much that isn't for requests"),
        pytest.param(0.02, 0.0, 5, 20, id="nothing that isn't"),
    ],
)
def test_base_and_cost_are_told_apart(
    cost: float, base: float, low: float, high: float, noise: float
) -> None:
    fit = fitted(replica(waves(low, high), cost=cost, base=base, noise=noise))
    assert fit.rps(1.0) == pytest.approx((1.0 - base) / cost, rel=0.01 + noise)


def test_while_the_rate_is_always_the_same_all_of_it_is_cost() -> None:
    fit = fitted(replica([20.0] * 300, cost=0.02, base=0.1, noise=0.02))
    found = fit.rps(1.0)
    assert found == pytest.approx(20 / 0.5, rel=0.02)
    assert found is not None
    assert found < (1.0 - 0.1) / 0.02


def test_a_replica_that_has_answered_more_can() -> None:
    """A limit that isn't one: on nodes with nothing else to do a process gets more than what is counted as its part."""
    fit = fitted([(30.0, 1.0)] * 50)
    assert fit.rps(0.5) == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([], id="none"),
        pytest.param(replica(waves(5, 20, int(LEAST_SAMPLES) - 1), cost=0.02, base=0.05), id="few"),
        pytest.param([(LEAST_RPS / 2, 0.5)] * 100, id="hardly asked"),
        pytest.param([(20.0, LEAST_CPU / 2)] * 100, id="takes hardly anything: something else counts"),
        pytest.param(
            [(math.nan, 0.5), (20.0, math.nan), (math.inf, 1.0), (20.0, math.inf)] * 100, id="no numbers"
        ),
        pytest.param([(-5.0, 0.5), (5.0, -0.5)] * 100, id="negative"),
    ],
)
def test_too_little_is_known(samples: list[tuple[float, float]]) -> None:
    fit = fitted(samples)
    assert fit.rps(1.0) is None
    assert fit.n < LEAST_SAMPLES


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        pytest.param(lambda rate: 0.6 - 0.001 * rate, "falling", id="it takes less when it is asked more"),
        pytest.param(lambda rate: 0.45, "flat", id="it takes the same whatever it is asked"),
        pytest.param(lambda rate: 0.45 + 1e-9 * rate, "almost flat", id="as good as the same"),
        pytest.param(lambda rate: 0.0008 * rate * rate, "convex", id="it takes more and more"),
    ],
)
def test_what_is_no_line_is_not_carried_on(cpu: Callable[[float], float], why: str) -> None:
    """Beyond what was seen nothing is promised that the fit doesn't bear out."""
    rates = waves(5, 20)
    fit = fitted([(rate, cpu(rate)) for rate in rates])
    mean = sum(rates) / sum(cpu(rate) for rate in rates)
    found = fit.rps(1.0)
    assert found is not None
    assert found <= MOST_BY_BASE * mean, why


def test_what_was_is_forgotten() -> None:
    """A new model takes three times as much: after a quarter of an hour and some more that is what counts."""
    rates = waves(5, 20, round(4 * MEMORY_S / TICK_S))
    old = fitted(replica(rates, cost=0.01, base=0.05))
    assert old.rps(1.0) == pytest.approx(95, rel=0.02)
    new = fitted(replica(rates, cost=0.03, base=0.05), old, old.at)
    assert new.rps(1.0) == pytest.approx(0.95 / 0.03, rel=0.1)


def test_weights_are_bounded_however_long_it_runs() -> None:
    fit = fitted([(20.0, 0.5)] * 5000)
    assert fit.n < MEMORY_S / TICK_S + 1
    assert fit.rps(1.0) == pytest.approx(40)


def test_a_clock_that_is_set_back_forgets_nothing_and_breaks_nothing() -> None:
    fit = fitted([(20.0, 0.5)] * 50, start_s=1e9).add(20.0, 0.5, 0.0)
    assert fit.n > LEAST_SAMPLES
    assert fit.rps(1.0) == pytest.approx(40)


NUMBERS = st.one_of(
    st.floats(0, 1e9),
    st.sampled_from([0.0, 1e-9, 1.0, 1e9, math.nan, math.inf, -1.0]),
    st.floats(allow_nan=True),
)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0, 5000)), max_size=60),
    st.floats(0.001, 1.0),
)
@example([(1.0, 0.5, 2.0), (1000.0, 0.5 + 1e-15, 2.0)] * 30, 1.0)
@example([(1e9, 0.005, 2.0)] * 30, 1.0)
def test_whatever_is_measured_it_is_a_number(samples: list[tuple[float, float, float]], limit: float) -> None:
    fit, now, most = NO_FIT, 0.0, 0.0
    for rate, cpu, later in samples:
        now += later
        fit = fit.add(rate, cpu, now)
        most = max(most, rate if math.isfinite(rate) else 0.0)
    found = fit.rps(limit)
    assert found is None or (math.isfinite(found) and found > 0)
    if found is not None:
        assert found <= max(most, MOST_BY_BASE * limit * fit.x / fit.y) * (1 + 1e-9)


@settings(max_examples=50)
@given(
    cost=st.floats(0.001, 0.05),
    base=st.floats(0.0, 0.3),
    busy=st.floats(0.4, 0.9),
    seed=st.integers(0, 10_000),
)
def test_the_truth_is_met_within_a_quarter(cost: float, base: float, busy: float, seed: int) -> None:
    """By loads up to `busy` of what it can take, with an error of 5 % in each measurement."""
    true = (1.0 - base) / cost
    chance = random.Random(seed)
    rates = [true * chance.uniform(0.2 * busy, busy) for _ in range(200)]
    found = fitted(replica(rates, cost=cost, base=base, noise=0.05, seed=seed)).rps(1.0)
    assert found is not None
    assert 0.75 * true < found < 1.25 * true


@pytest.mark.parametrize(
    ("starts", "stated", "expected"),
    [
        pytest.param([], 60.0, 60.0, id="what is stated, while nothing is measured"),
        pytest.param([5.0] * (ENOUGH_STARTS - 1), 60.0, 60.0, id="or too little"),
        pytest.param([90.0], 60.0, 90.0, id="unless it was slower"),
        pytest.param([5.0, 6.0, 7.0], 60.0, 7.0, id="what is measured"),
        pytest.param([*[5.0] * 19, 80.0], 60.0, 5.0, id="one in twenty may be slow"),
        pytest.param([*[5.0] * 18, 80.0, 81.0], 60.0, 80.0, id="not two"),
        pytest.param([0.0, 0.2, 0.1], 60.0, 1.0, id="at least a second"),
        pytest.param([-3.0, math.nan, math.inf, 5.0], 60.0, 60.0, id="what can't be doesn't count"),
        pytest.param([-3.0, 4.0, 5.0, 6.0], 60.0, 6.0, id="and leaves the others as they are"),
    ],
)
def test_the_start_time_to_reckon_with(starts: list[float], stated: float, expected: float) -> None:
    assert p95_start_s(starts, stated) == expected


@given(st.lists(NUMBERS), st.floats(1, 3600))
def test_start_times_are_numbers(starts: list[float], stated: float) -> None:
    found = p95_start_s(starts, stated)
    assert math.isfinite(found)
    assert found >= 1
