"""Figures and the intervals that they are trusted in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from models.intervals import (
    brier,
    calibration_error,
    cluster_bootstrap,
    macro_f1,
    paired,
    proportion,
    quantile,
    wilson,
)

LABELS = st.sampled_from(["card_lost", "loan_rate", "greeting"])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_what_scipy_says(case: tuple[int, int]) -> None:
    successes, n = case
    known = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((known.low, known.high), abs=1e-9)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("results", "low", "high", "why"),
    [
        ([("a", True)] * 50 + [("b", True)] * 50, 0.3, 1.0, "two templates, however rich, prove little"),
        ([("a", False)] * 50, 0.0, 0.8, "nothing right in one template"),
    ],
)
def test_bootstrap_of_unanimous_groups_is_wilson_over_groups(
    results: list[tuple[str, bool]], low: float, high: float, why: str
) -> None:
    found = cluster_bootstrap(results)
    assert found == pytest.approx((low, high), abs=0.05), why


def test_texts_of_one_template_are_not_independent() -> None:
    """All of a template right or wrong together: the interval is as of the templates, not of the texts."""
    clustered = [(str(group), group % 5 != 0) for group in range(40) for _ in range(10)]
    independent = [(f"{i}", success) for i, (_, success) in enumerate(clustered)]
    wide, narrow = proportion(clustered), proportion(independent)
    assert wide.value == narrow.value == 0.8
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_a_figure_lies_in_its_interval(results: list[tuple[str, bool]]) -> None:
    figure = proportion(results)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_f1_is_what_scikit_learn_says(pairs: list[tuple[str, str]]) -> None:
    wanted, best = [w for w, _ in pairs], [b for _, b in pairs]
    classes = sorted({*wanted, *best})
    found = macro_f1([str(i) for i in range(len(pairs))], wanted, best, classes)
    known = f1_score(wanted, best, labels=classes, average="macro", zero_division=0)
    assert found.value == pytest.approx(known, abs=1e-4)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("confidence", "right", "error", "score", "why"),
    [
        ([1.0, 1.0], [True, True], 0.0, 0.0, "sure and right"),
        ([1.0, 1.0], [False, False], 1.0, 1.0, "sure and wrong"),
        ([0.5, 0.5], [True, False], 0.0, 0.25, "half sure, right half of the time"),
        ([0.9, 0.9, 0.9, 0.9], [True, True, False, False], 0.4, 0.41, "too sure by 0.4"),
        ([0.95, 0.15], [False, True], 0.9, 0.8125, "two bins, which don't make up for each other"),
    ],
)
def test_calibration(
    confidence: list[float], right: list[bool], error: float, score: float, why: str
) -> None:
    clusters = [str(i) for i in range(len(right))]
    assert calibration_error(clusters, confidence, right).value == pytest.approx(error), why
    assert brier(clusters, confidence, right).value == pytest.approx(score), why


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_lies_in_its_interval(results: list[tuple[float, bool]]) -> None:
    clusters = [str(i % 7) for i in range(len(results))]
    for figure in (calibration_error, brier):
        found = figure(clusters, [c for c, _ in results], [r for _, r in results])
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_calibration_interval_covers_the_truth() -> None:
    """Of 200 samples from a model that is too sure by 0.1, most intervals hold 0.1: somewhat fewer than they say."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        confidence = rng.choice([0.65, 0.85], size=300)
        right = rng.random(300) < confidence - 0.1
        found = calibration_error([str(i) for i in range(300)], confidence.tolist(), right.tolist())
        held += found.low <= 0.1 <= found.high
    assert held >= 170


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_a_quantile_lies_in_its_interval(values: list[float], q: float) -> None:
    found = quantile(values, q, unit="ms")
    assert found.low <= found.value <= found.high
    share = sum(value <= found.value + 1e-4 for value in values) / len(values)
    assert share >= q - 1e-9


def test_units_are_shown() -> None:
    assert str(quantile([1.5], 0.5, unit="ms")) == "1.5 ms [1.5 ms, 1.5 ms] (n=1)"
    assert str(proportion([("a", True), ("b", False)])).startswith("50.0% [")


@pytest.mark.parametrize(
    ("one", "other", "clusters", "value", "excludes", "why"),
    [
        ([True] * 200, [True] * 200, 200, 0.0, -0.02, "the same on many texts: no worse by two points"),
        ([True] * 5, [True] * 5, 5, 0.0, None, "the same on five texts proves nothing"),
        ([True] * 200, [True] * 200, 4, 0.0, None, "nor do many texts of four templates"),
        ([False] * 40 + [True] * 160, [True] * 200, 200, -0.2, None, "worse by twenty points"),
        ([True] * 199 + [False], [True] * 200, 200, -0.005, -0.03, "one text of two hundred"),
    ],
)
def test_paired_difference(
    one: list[bool], other: list[bool], clusters: int, value: float, excludes: float | None, why: str
) -> None:
    groups = [str(i % clusters) for i in range(len(one))]
    found = paired(groups, one, other, confidence=0.95)
    assert found.value == pytest.approx(value), why
    assert found.low <= found.value <= found.high
    assert (found.low > -0.02 if excludes is None else found.low > excludes) is (excludes is not None), why


def test_paired_bound_is_exceeded_as_often_as_it_says() -> None:
    """A candidate that is worse by the margin of 5 points passes in about one of twenty trials, not more."""
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(300):
        other = rng.random(400) < 0.85
        broken, mended = rng.random(400) < 0.07 / 0.85, rng.random(400) < 0.02 / 0.15
        one = np.where(other, ~broken, mended)
        found = paired([str(i) for i in range(400)], one.tolist(), other.tolist(), confidence=0.95)
        passed += found.low > -0.05
    assert passed <= 27, "one of twenty is 15; 27 is three standard deviations more"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.booleans()), max_size=40))
def test_a_difference_turned_round_is_its_opposite(rows: list[tuple[str, bool, bool]]) -> None:
    clusters, one, other = ([row[i] for row in rows] for i in range(3))
    there = paired(clusters, one, other, confidence=0.9)  # type: ignore[arg-type]
    back = paired(clusters, other, one, confidence=0.9)  # type: ignore[arg-type]
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=2e-4)
    assert -1 <= there.low <= there.value <= there.high <= 1
