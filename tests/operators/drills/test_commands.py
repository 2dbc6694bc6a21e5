"""`switchboard canary drill` before anything is released: what there is, and what is missing."""

from __future__ import annotations

import json

import pytest
from click.testing import Result
from typer.testing import CliRunner

from operators import canary_cli
from operators.drills.commands import table
from operators.drills.figures import Outcome
from operators.drills.run import drills_image
from switchboard.errors import SwitchboardError


def run(*words: str) -> Result:
    env: dict[str, str | None] = {
        "SWITCHBOARD_GATEWAY_URL": None,
        "MLFLOW_TRACKING_URI": "http://127.38.0.7:9",
    }
    return CliRunner().invoke(canary_cli.app, ["drill", *words], env=env, catch_exceptions=False)


def test_what_there_is() -> None:
    lines = run("--list").stdout.splitlines()
    assert lines[0].split() == ["CANDIDATE", "IS", "TO", "BE", "WHAT", "IS", "WRONG", "WITH", "IT"]
    assert lines[-1].startswith("good ") and len(lines) >= 10
    (slow,) = json.loads(run("slow", "--list", "-o", "json").stdout)
    assert (slow["name"], slow["fault"]["waitsSeconds"] > 0.3) == ("slow", True)


@pytest.mark.parametrize(
    ("words", "says"),
    [(["quick"], "there is no candidate quick"), (["slow"], "which gateway")],
)
def test_what_is_missing_is_said(words: list[str], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as error:
        run(*words)
    assert error.value.next_step


@pytest.mark.parametrize(
    ("image", "is_it"),
    [
        ("switchboard.dev/switchboard-drills:0.1.0", True),
        ("registry.bank/x/switchboard-drills@sha256:abc", True),
        ("switchboard-drills", True),
        ("switchboard.dev/switchboard:0.1.0", False),
        ("switchboard.dev/switchboard-drills-not:1", False),
    ],
)
def test_the_image_that_drills_need(image: str, is_it: bool) -> None:
    assert drills_image(image) is is_it


def test_the_table_is_whole_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = Outcome(
        candidate="wrong-on-one-intent",
        what="x",
        version="3",
        ended="RolledBack",
        sentence="so",
        seconds=149.4,
        found_in="Canary",
        weight=10,
        requests=12_345,
        failed=3,
        candidates_answers=67,
        late_s=None,
        p99_ms=93.2,
        broken=["it was to be found"],
    )
    heads, row = table([found]).splitlines()
    said = " ".join(heads.split()), " ".join(row.split())
    assert said == (
        "CANDIDATE BECAME IN AFTER REQUESTS FAILED ITS ANSWERS ASKED AFTER P99",
        "✗ wrong-on-one-intent RolledBack Canary 10 % 149 s 12,345 3 67 - 93 ms",
    )
