"""`--stack`: a name that can't be one, or that no stack has, leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.stack_option import checked
from switchboard.errors import SwitchboardError


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "a.b", "a b", "a\n", "x" * 101])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(SwitchboardError, match="is no stack's name"):
        checked(name)


@pytest.mark.parametrize("name", ["local", "test-cli-12", "A_b"])
def test_what_is_one(name: str) -> None:
    assert checked(name) == name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["down", "--stack", "nope"], "no stack 'nope'"),
        (["clean", "--stack", "nope"], "no stack 'nope'"),
        (["down", "--stack", "../x"], "'../x' is no stack's name"),
        (["render", "--stack", "../x", "--out", "{out}"], "'../x' is no stack's name"),
        (["check", "--stack", "local", "--stack", "../x"], "'../x' is no stack's name"),
    ],
)
def test_nothing_is_left_of_a_mistyped_name(arguments: list[str], told: str, state: Path) -> None:
    done = CliRunner().invoke(app, [each.format(out=state / "out") for each in arguments])
    assert isinstance(done.exception, SwitchboardError)
    assert done.exception.what.startswith(told)
    assert not list(state.parent.rglob("*"))


def test_what_is_left_of_a_stack_without_a_file_can_be_cleaned(state: Path) -> None:
    (state / "gone").mkdir(parents=True)
    (state / "gone" / "note").write_text("left")
    assert CliRunner().invoke(app, ["clean", "--stack", "gone"]).exit_code == 0
    assert not (state / "gone").exists()
