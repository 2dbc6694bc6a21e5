"""`switchboard canary`, as its users run it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from operators.canary_cli import app
from switchboard.errors import SwitchboardError
from switchboard.groups import ERROR


def ran(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=True)


def test_a_plan_for_people_and_for_programs() -> None:
    shown = ran("plan", "--rps", "50", "--champion-pods", "6", "--candidate-pods", "2")
    assert shown.exit_code == 0, shown.output
    for words in ("SMALLEST HARM", "requests failed", "promoted after about", "steps of 10%, 25%, 50%"):
        assert words in shown.output
    document = json.loads(ran("plan", "--rps", "50", "--rate", "failed=0.001", "-o", "json").stdout)
    assert document["refusal"] is None
    assert document["metrics"][0]["name"] == "failed" and document["metrics"][0]["rate"] == 0.001


def test_a_plan_that_sees_nothing_is_refused_and_shown() -> None:
    found = ran("plan", "--rps", "0.2", "-o", "json")
    assert isinstance(found.exception, SwitchboardError)
    assert "can't be excluded within 30 min" in str(found.exception)
    assert "can't be excluded" in json.loads(found.stdout)["refusal"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--weight", "0.5", "--weight", "0.1"], "weights rise"),
        (["--weight", "0.1", "--weight", "0.1"], "weights rise"),
        (["--weight", "1.5"], "less than or equal to 1"),
        (["--rate", "broken=1"], "metrics are failed, slow"),
        (["--rate", "failed"], "say it as failed=0.002"),
        (["--rate", "failed=nan"], "say it as failed=0.002"),
    ],
)
def test_wrong_words_are_named(words: list[str], says: str) -> None:
    found = ran("plan", "--rps", "50", *words)
    assert found.exit_code == ERROR, "2 is what an inconclusive release ends with"
    assert says in " ".join(found.output.replace("│", " ").split())


def test_a_simulation() -> None:
    words = ["simulate", "--scenario", "errors-4x", "--releases", "50", "--minutes", "10"]
    shown = ran(*words)
    assert shown.exit_code == 0, shown.output
    assert "errors-4x" in shown.output and "mann-whitney" in shown.output
    (cell,) = json.loads(ran(*words, "-o", "json").stdout)["cells"]
    assert cell["judges"]["switchboard"]["abort_rate"] >= 0.9


def test_an_unknown_scenario_is_named() -> None:
    assert "no scenario 'worse'" in str(ran("simulate", "--scenario", "worse").exception)
