"""Groups whose exit codes are answers: what is none ends with another."""

from __future__ import annotations

import errno

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


@app.command()
def abort() -> None:
    raise typer.Abort


@app.command()
def pipe() -> None:
    raise BrokenPipeError(errno.EPIPE, "nobody reads")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_answer_is_its_own(code: int) -> None:
    assert CliRunner().invoke(app, ["answer", str(code)]).exit_code == code


def test_wrong_usage_is_no_answer() -> None:
    assert CliRunner().invoke(app, ["answer", "many"]).exit_code == ERROR


def test_what_a_person_can_act_on_says_what_it_ends_with() -> None:
    with pytest.raises(SwitchboardError) as raised:
        CliRunner().invoke(app, ["refuse"], catch_exceptions=False)
    assert raised.value.exit_code == ERROR


def test_who_ends_it_has_no_answer() -> None:
    done = CliRunner().invoke(app, ["abort"])
    assert done.exit_code == ERROR
    assert "Traceback" not in done.output


def test_who_reads_no_more_is_told_nothing() -> None:
    assert "Traceback" not in CliRunner().invoke(app, ["pipe"]).output


def test_a_bug_is_no_answer_and_is_told() -> None:
    done = CliRunner().invoke(app, ["fail"])
    assert done.exit_code == ERROR
    assert "LookupError: nobody has thought of that" in done.output
