"""Figures and their intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from models import evaluation
from models.evaluation import Outcome, cluster_bootstrap, figures, proportion, wilson


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
    assert proportion(clustered) == wide, "the bootstrap's seed is fixed"


def _outcome(wanted: str, best: str, answered: str, language: str = "en") -> Outcome:
    return Outcome("text", language, f"{wanted}{best}{answered}{language}", wanted, best, 0.5, answered)


def test_what_each_figure_counts() -> None:
    found = [
        _outcome("card_lost", "card_lost", "card_lost"),
        _outcome("card_lost", "card_lost", "handover"),
        _outcome("card_lost", "pin_forgotten", "pin_forgotten"),
        _outcome("card_lost", "out_of_scope", "handover"),
        _outcome("out_of_scope", "out_of_scope", "handover"),
        _outcome("out_of_scope", "card_lost", "card_lost", "zh"),
    ]
    values = {name: (figure.value, figure.n) for name, figure in figures(found).named().items()}
    assert values == {
        "accuracy": (0.5, 4),
        "coverage": (0.5, 4),
        "hand_off": (0.5, 4),
        "answered_accuracy": (0.5, 2),
        "precision": (pytest.approx(1 / 3, abs=1e-4), 3),
        "out_of_scope_rejected": (0.5, 2),
    }
    one = evaluation.report("t", found)
    assert set(one.by_language) == {"en", "zh"}
    assert set(one.by_intent) == {"card_lost"}
    assert one.confusion["card_lost"] == {"card_lost": 1, "handover": 2, "pin_forgotten": 1}
    assert [o.answered for o in one.mistakes] == ["pin_forgotten", "card_lost"]
    flat = evaluation.metrics([one])
    assert flat["t.accuracy"] == 0.5 and flat["t.accuracy_low"] < 0.5 < flat["t.accuracy_high"]
    assert "t.zh.accuracy" not in flat, "there is no in-scope text in Chinese"


def test_no_outcomes_no_error() -> None:
    one = evaluation.report("empty", [])
    assert one.overall.accuracy.n == 0
    assert evaluation.metrics([one]) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_a_figure_lies_in_its_interval(results: list[tuple[str, bool]]) -> None:
    figure = proportion(results)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
