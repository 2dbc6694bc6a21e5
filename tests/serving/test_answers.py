"""What customers are told is there for everything that a model may say, in every language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.intents import ANSWERABLE, HANDOVER, LANGUAGES
from serving import answers
from serving.answers import Answers
from switchboard.errors import SwitchboardError

FOLDER = Path(answers.__file__).parent


def test_every_intent_has_an_answer_in_every_language() -> None:
    found = Answers.load()
    assert set(found) == set(ANSWERABLE)
    for intent, answer in found.items():
        for language in LANGUAGES:
            text = answer.text(language)
            assert len(text) > 10, intent
            assert bool(re.search("[\u4e00-\u9fff]", text)) == (language == "zh"), intent
            assert not re.search(r"[<{}*_`]|https?:", text), f"{intent}: plain sentences only"


def test_a_person_goes_on_where_one_should() -> None:
    found = Answers.load()
    assert {intent for intent, answer in found.items() if answer.handover} == {
        HANDOVER,
        "human_agent",
        "fraud_report",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("greeting:", "greetings:"), "no answer for greeting"),
        (lambda text: text + "\nweather: sunny\n", "no intent: weather"),
        (lambda text: text + "\ngreeting: ''\n", "greeting must be a text"),
        (lambda text: "- a list", "must map intents to texts"),
        (lambda text: "a: [", "can't read the answers"),
    ],
)
def test_half_of_the_answers_is_an_error(tmp_path: Path, change: object, says: str) -> None:
    assert callable(change)
    for language in LANGUAGES:
        text = (FOLDER / f"{language}.yaml").read_text()
        (tmp_path / f"{language}.yaml").write_text(change(text) if language == "zh" else text)
    with pytest.raises(SwitchboardError, match=says):
        Answers.load(tmp_path)
