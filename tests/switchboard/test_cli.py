"""The command's root: quick help, groups that load when asked for, errors without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from switchboard import __version__
from switchboard.cli import FROM_INFRA, GROUPS

LOADED_BY_HELP = """
import sys
from switchboard import cli
sys.argv = ["switchboard", "--help"]
try:
    cli.app()
except SystemExit:
    pass
print([name for name in sys.modules if name.split(".")[0] in ("infra", "models", "serving", "loadtests")])
"""


def switchboard(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "switchboard.cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb", **environ},
        timeout=120,
    )


def test_help_names_every_command_and_loads_none() -> None:
    done = switchboard("--help")
    assert done.returncode == 0
    for name in (*FROM_INFRA, *GROUPS):
        assert f" {name} " in done.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED_BY_HELP], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", [*FROM_INFRA, *GROUPS])
def test_every_command_has_help_with_an_example(name: str) -> None:
    done = switchboard(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    if name in FROM_INFRA:
        assert "Example" in done.stdout


def test_version() -> None:
    assert switchboard("--version").stdout.strip() == f"switchboard {__version__}"


def test_unknown_command_is_a_usage_error() -> None:
    done = switchboard("promenade")
    assert done.returncode == 2
    assert "No such command 'promenade'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["up", "status", "env"])
def test_an_unknown_stack_is_one_clear_error(command: str) -> None:
    done = switchboard(command, "--stack", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no stack 'nowhere'")
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("switchboard st", {"status"}),
        ("switchboard do", {"down", "doctor"}),
        ("switchboard doctor --out", {"--output"}),
        ("switchboard doctor --stack lo", {"local"}),
        ("switchboard serving a", {"ask"}),
    ],
)
def test_completion(words: str, offered: set[str]) -> None:
    script = Path(sys.executable).parent / "switchboard"
    done = subprocess.run(
        [script],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_SWITCHBOARD_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert set(done.stdout.split()) == offered


def test_status_of_a_stack_that_is_down(tmp_path: Path) -> None:
    done = switchboard("status", "--output", "json", SWITCHBOARD_STATE=str(tmp_path))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["healthy"] is False
    assert set(found["endpoints"]) >= {"gateway", "edges", "mlflow", "prometheus"}
    assert set(found["sites"]) == {"private", "public"}
    text = switchboard("status", SWITCHBOARD_STATE=str(tmp_path))
    assert "make up" in text.stdout
