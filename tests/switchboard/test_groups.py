"""Groups whose exit codes are answers: what is none ends with another."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from switchboard.errors import SwitchboardError
from switchboard.groups import ERROR, AnswerGroup

app = typer.Typer(cls=AnswerGroup)


@app.command()
def answer(code: int) -> None:
    raise typer.Exit(code)


@app.command()
def refuse() -> None:
    raise SwitchboardError("there is no such thing")


@app.command()
def fail() -> None:
    raise LookupError("nobody has thought of that")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_answer_is_its_own(code: int) -> None:
    assert CliRunner().invoke(app, ["answer", str(code)]).exit_code == code


def test_wrong_usage_is_no_answer() -> None:
    assert CliRunner().invoke(app, ["answer", "many"]).exit_code == ERROR


def test_what_a_person_can_act_on_says_what_it_ends_with() -> None:
    with pytest.raises(SwitchboardError) as raised:
        CliRunner().invoke(app, ["refuse"], catch_exceptions=False)
    assert raised.value.exit_code == ERROR


def test_a_bug_is_no_answer_and_is_told() -> None:
    done = CliRunner().invoke(app, ["fail"])
    assert done.exit_code == ERROR
    assert "LookupError: nobody has thought of that" in done.output
