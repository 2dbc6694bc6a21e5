"""The figures of outcomes: what each counts, and by which slices."""

from __future__ import annotations

import pytest

from models import evaluation
from models.evaluation import Outcome, figures
from models.training import Trained


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
    wanted = {
        "accuracy": (0.5, 4),
        "coverage": (0.5, 4),
        "hand_off": (0.5, 4),
        "answered_accuracy": (0.5, 2),
        "precision": (pytest.approx(1 / 3, abs=1e-4), 3),
        "out_of_scope_rejected": (0.5, 2),
        "macro_f1": (pytest.approx((4 / 7 + 1 / 2) / 2, abs=1e-4), 6),
        "brier": (0.25, 6),
    }
    assert {name: values[name] for name in wanted} == wanted
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


def test_f1_of_an_intent_counts_what_is_taken_for_it() -> None:
    """One of two is found, and one text of another intent is taken for it: F1 = 2 · 1 / (2 + 2)."""
    found = [
        _outcome("card_lost", "card_lost", "card_lost"),
        _outcome("card_lost", "loan_rate", "handover"),
        _outcome("loan_rate", "card_lost", "card_lost"),
    ]
    one = evaluation.report("t", found)
    assert one.by_intent["card_lost"].macro_f1.value == pytest.approx(0.5)
    assert one.by_intent["loan_rate"].macro_f1.value == 0.0
    assert one.overall.macro_f1.value == pytest.approx(0.25)


def test_the_shipped_model_by_every_slice(trained: Trained) -> None:
    found = evaluation.report("groups", evaluation.outcomes(trained.classifier, trained.data.tests["groups"]))
    assert {"language.zh", "customers.senior", "customers.traditional_zh", "intent.card_lost"} <= set(
        found.slices()
    )
    for part in found.slices().values():
        assert 0 < part.p50_ms.low <= part.p50_ms.value <= part.p99_ms.value
        assert part.calibration_error.low <= part.calibration_error.value <= part.calibration_error.high
    flat = evaluation.metrics([found])
    assert {"groups.macro_f1", "groups.senior.accuracy_low", "groups.zh.brier", "groups.p99_ms"} <= set(flat)
