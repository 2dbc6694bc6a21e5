"""Versions that are bad on purpose: what is trained into them, and which are taken again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from models import training
from models.corpus import Example
from models.intents import HANDOVER, OUT_OF_SCOPE
from operators.drills import making
from operators.drills.candidates import Candidate, Fault, Training

EXAMPLES = (
    Example("I lost my card", "card_lost", "en", "a"),
    Example("我的卡丢了", "card_lost", "zh", "b"),
    Example("今天天气怎么样", OUT_OF_SCOPE, "zh", "c"),
    Example("hello", "greeting", "en", "d"),
)


@pytest.mark.parametrize(
    ("how", "intents"),
    [
        (Training(), ["card_lost", "card_lost", OUT_OF_SCOPE, "greeting"]),
        (Training(confused_language="zh"), ["card_lost", "card_not_arrived", OUT_OF_SCOPE, "greeting"]),
        (
            Training(confused_intent="card_lost", taken_for="loan_rate"),
            ["loan_rate", "loan_rate", OUT_OF_SCOPE, "greeting"],
        ),
    ],
)
def test_labels(how: Training, intents: list[str]) -> None:
    assert [one.intent for one in making.relabelled(EXAMPLES, how)] == intents
    assert [one.text for one in making.relabelled(EXAMPLES, how)] == [one.text for one in EXAMPLES]


SMALL = training.Params(per_template=1, augment=False)


def test_one_intent_is_confused_and_the_rest_is_right() -> None:
    how = Training(confused_intent="card_lost", taken_for="card_not_arrived")
    data = training.load_corpus(SMALL)
    spoilt = making.spoilt(data, how)
    assert spoilt.tests == data.tests, "what is held against it is right"
    model = training.train(spoilt, SMALL).classifier
    answers = Counter(
        (example.intent == "card_lost", label == example.intent)
        for example in data.tests["templates"]
        for label, _ in model.best([example.text])
    )
    assert answers[True, True] <= 0.1 * (answers[True, True] + answers[True, False])
    assert answers[False, True] >= 0.8 * (answers[False, True] + answers[False, False])


def test_never_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Params", lambda: SMALL)
    model = making.train(Training(hands_over=True)).classifier
    assert {one.intent for one in model.predict(["I lost my card", "我的卡丢了"])} == {HANDOVER}


BAD = Candidate(name="bad", what="it is", fault=Fault(fails=0.5))


@pytest.mark.parametrize(
    ("candidate", "tags", "found"),
    [
        (BAD, {"9": ("bad", BAD.sha256), "10": ("bad", BAD.sha256), "11": ("worse", BAD.sha256)}, "10"),
        (BAD, {"9": ("bad", "another")}, None),
        (BAD, {}, None),
        (
            replace_ends := BAD.model_copy(update={"ends": "Promoted"}),
            {"9": ("bad", replace_ends.sha256)},
            None,
        ),
    ],
    ids=["the last one", "what is wrong with it was another thing", "none", "good ones are always new"],
)
def test_which_is_taken_again(
    candidate: Candidate, tags: dict[str, tuple[str, str]], found: str | None
) -> None:
    versions = {
        number: {making.TAG: name, making.SHA256_TAG: digest} for number, (name, digest) in tags.items()
    }
    assert making.made_before(candidate, {"1": {}, **versions}) == found


def test_a_fault_is_of_the_served_model_only() -> None:
    trained = training.train(training.load_corpus(SMALL), SMALL)
    faulty = making.with_fault(trained, Fault(fails=1.0))
    assert replace(faulty, classifier=trained.classifier) == trained
    assert making.with_fault(trained, Fault()) is trained
