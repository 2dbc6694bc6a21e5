"""Two models on the same texts."""

from __future__ import annotations

import pytest

from models.comparison import FIGURES, by_slice, difference, unseen
from models.corpus import Example
from models.differing import Described, Differs, differing, figures
from models.evaluation import Outcome


def outcome(
    text: str, wanted: str, best: str, answered: str, language: str = "en", customers: str = ""
) -> Outcome:
    return Outcome(text, language, text, wanted, best, 0.9, answered, customers)


RIGHT = ("card_lost", "card_lost", "card_lost")
WRONG = ("card_lost", "loan_rate", "loan_rate")
UNSURE = ("card_lost", "card_lost", "handover")
OUTSIDE = ("out_of_scope", "out_of_scope", "handover")
TAKEN = ("out_of_scope", "card_lost", "card_lost")


@pytest.mark.parametrize(
    ("figure", "values"),
    [
        ("accuracy", {RIGHT: True, WRONG: False, UNSURE: True, OUTSIDE: None, TAKEN: None}),
        ("resolved", {RIGHT: True, WRONG: False, UNSURE: False, OUTSIDE: True, TAKEN: False}),
        ("wrong", {RIGHT: False, WRONG: True, UNSURE: False, OUTSIDE: False, TAKEN: True}),
        ("hand_off", {RIGHT: False, WRONG: False, UNSURE: True, OUTSIDE: None, TAKEN: None}),
    ],
)
def test_what_is_compared(figure: str, values: dict[tuple[str, str, str], bool | None]) -> None:
    compared = FIGURES[figure]
    found = {
        kind: compared.yes(one) if compared.among(one) else None
        for kind in values
        for one in [outcome("t", *kind)]
    }
    assert found == values


def test_more_wrong_answers_are_worse() -> None:
    one = [outcome(str(i), *(WRONG if i < 30 else RIGHT)) for i in range(100)]
    other = [outcome(str(i), *RIGHT) for i in range(100)]
    less = difference(one, other, "wrong", confidence=0.95)
    assert (less.one, less.other, less.less.value, less.better_by) == (0.3, 0.0, 0.3, -0.3)
    assert less.at_worst < -0.3 < less.at_best < 0
    better = difference(other, one, "accuracy", confidence=0.95)
    assert better.better_by == 0.3 and better.at_worst > 0


def test_slices_are_over_all_tests() -> None:
    one = {
        "a": [outcome("1", *RIGHT, language="zh"), outcome("2", *OUTSIDE)],
        "b": [outcome("3", *WRONG, customers="senior"), outcome("4", *RIGHT, customers="young")],
    }
    found = {(less.kind, less.slice): less for less in by_slice(one, one, "resolved", confidence=0.95)}
    assert set(found) == {
        ("all", "all"),
        ("test", "a"),
        ("test", "b"),
        ("language", "en"),
        ("language", "zh"),
        ("customers", "senior"),
        ("customers", "young"),
        ("intent", "card_lost"),
    }
    assert found["intent", "card_lost"].less.n == 3
    assert found["customers", "senior"].one == 0.0


def test_other_texts_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same texts"):
        difference([outcome("1", *RIGHT)], [outcome("2", *RIGHT)], "wrong", confidence=0.95)


def test_unseen_is_neither_the_text_nor_its_template() -> None:
    tests = {"t": [Example("I lost it", "card_lost", "en", "a"), Example("gone", "card_lost", "en", "b")]}
    kept = Example("stolen!", "card_lost", "en", "c")
    tests["t"].append(kept)
    learnt = [Example("i LOST  it", "card_lost", "en", "x"), Example("is gone", "card_lost", "en", "b")]
    assert unseen(tests, learnt) == {"t": (kept,)}


def test_what_differs() -> None:
    one = Described(
        "a", {"parameter": {"c": "1", "seed": "20"}, "files": {"f": "1"}, "labels": {"x": "known"}}
    )
    other = Described("b", {"parameter": {"c": "2", "seed": "20"}, "files": {"f": "1"}})
    assert differing(one, other) == [
        Differs("parameter", "c", "1", "2"),
        Differs("labels", "x", "known", ""),
    ]
    assert differing(one, one) == []


def test_figures_are_shown_with_their_intervals() -> None:
    metrics = {"t.accuracy": 0.5, "t.accuracy_low": 0.4, "t.accuracy_high": 0.6, "t.accuracy_n": 10.0}
    assert figures(metrics | {"t.p50_ms": 1.0, "train_seconds": 3.0}) == {
        "t.accuracy": "50.0% [40.0%, 60.0%]"
    }
