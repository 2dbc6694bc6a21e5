"""`switchboard scaling …` as a person and as a program use it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from operators.scaling_cli import app, read_policy
from operators.simulator.compare import POLICIES
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.operators.simulator.conftest import Recorded, prometheus

__all__ = ["prometheus"]

STEP = [(0, 100), (5, 100), (300, 100), (305, 400), (900, 400), (905, 100), (1500, 100), (1505, 100)]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "monday.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("time_s", "requests_per_s"), *STEP])
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("minReplicas: 2\nmaxReplicas: 12\n")
    return path


@pytest.mark.parametrize("command", ["simulate", "replay"])
def test_help_has_examples(command: str) -> None:
    found = run(command, "--help")
    assert found.exit_code == 0
    assert "Examples" in found.stdout
    assert f"switchboard scaling {command}" in found.stdout


def test_help_is_quick_to_import() -> None:
    code = "import sys, operators.scaling_cli; print(sorted({'numpy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_simulate_on_a_trace(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = [
        "simulate",
        "--trace",
        trace,
        "--scenario",
        "monday",
        "--start-s",
        "5",
        "--seeds",
        "2",
        "--html",
        page,
    ]
    table = run(*words)
    assert table.exit_code == 0
    head, *rows = table.stdout.strip().splitlines()
    assert " ".join(head.split()) == "POLICY OUT OF LEVEL REPLICA-HOURS PEAK OF LEAST REVERSALS"
    assert {row.split()[0] for row in rows[: len(POLICIES)]} == set(POLICIES)
    assert "AT STEP" not in table.stdout, "a trace of one's own isn't the step"
    assert "x the replica-hours of hpa-rate" in table.stdout
    found = json.loads(run(*words, "--output", "json").stdout)
    assert set(found) == {"totals", "cells"}
    assert set(found["totals"]) == set(POLICIES)
    assert set(found["totals"]["kpa"]) == {"violation_s", "replica_h", "peak", "reversals"}
    assert len(found["cells"]) == 2 * len(POLICIES)
    assert found["totals"]["switchboard"]["violation_s"] > 0, "nobody foresees a step"
    content = page.read_text()
    assert content.count("<svg") == 1
    assert "monday" in content
    assert str(tmp_path) not in content


def test_simulate_shows_the_turns_after_a_step_and_the_peak_against_the_least(tmp_path: Path) -> None:
    words = ["simulate", "--scenario", "step", "--start-s", "60", "--seeds", "1"]
    words += ["--html", str(tmp_path / "page.html")]
    rows = run(*words).stdout.splitlines()
    cells = {cell["policy"]: cell for cell in json.loads(run(*words, "-o", "json").stdout)["cells"]}
    shown = {row.split()[0]: row.split()[-3:] for row in rows[1 : len(POLICIES) + 1]}
    assert shown == {
        name: [f"{one['peak'] / one['least_constant']:.2f}x", f"{one['reversals']:,}", f"{one['reversals']}"]
        for name, one in cells.items()
    }
    assert rows[0].split()[-4:] == ["LEAST", "REVERSALS", "AT", "STEP"]
    assert max(map(len, rows[: len(POLICIES) + 1])) <= 80
    assert shown["switchboard"][-1] == "1"


def test_each_command_has_a_page_of_its_own(
    trace: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("replay", "--policy", policy, "--trace", trace).exit_code == 0
    few = ["--scenario", "monday", "--start-s", "5", "--seeds", "1"]
    assert run("simulate", "--trace", trace, *few).exit_code == 0
    assert {path.name for path in tmp_path.glob("*.html")} == {
        "scaling-comparison.html",
        "scaling-replay.html",
    }


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        ("simulate", ["scaling-comparison.html", "5, 60, 180, 420", "its defaults"]),
        ("replay", ["scaling-replay.html", "the core", "now", "the defaults"]),
    ],
)
def test_help_names_the_defaults(command: str, defaults: list[str]) -> None:
    found = " ".join(run(command, "--help").stdout.replace("│", " ").split())
    assert [one for one in defaults if one not in found] == []


def test_more_traffic_than_all_replicas_can_take(tmp_path: Path, policy: Path) -> None:
    """10,000 replicas of 40 requests/s, the most there may be, are enough for 400,000."""
    path = tmp_path / "huge.csv"
    path.write_text("time_s,requests_per_s\n0,400001\n5,400001\n")
    says = "400,001 requests/s are more than the 400,000 that 10,000 replicas of 40 can take"
    for words in (["simulate"], ["replay", "--policy", str(policy)]):
        with pytest.raises(SwitchboardError, match=says) as caught:
            run(*words, "--trace", path, "--html", tmp_path / "page.html")
        assert "\n" not in str(caught.value)


def test_as_much_traffic_as_all_replicas_can_take(tmp_path: Path) -> None:
    """Where thrice what it takes would be more than there may be, that is the bound of all policies."""
    path = tmp_path / "large.csv"
    path.write_text("time_s,requests_per_s\n0,390000\n5,390000\n60,390000\n")
    words = [
        "simulate",
        "--trace",
        path,
        "--scenario",
        "large",
        "--start-s",
        "5",
        "--seeds",
        "1",
        "-o",
        "json",
    ]
    found = json.loads(run(*words, "--html", tmp_path / "page.html").stdout)["totals"]
    assert set(found) == set(POLICIES)
    assert all(9_750 <= one["peak"] <= 10_000 for one in found.values())


def test_a_policy_of_ones_own_counts(trace: Path, policy: Path, tmp_path: Path) -> None:
    words = [
        "simulate",
        "--trace",
        trace,
        "--scenario",
        "monday",
        "--start-s",
        "60",
        "--seeds",
        "1",
        "-o",
        "json",
    ]
    words += ["--html", str(tmp_path / "page.html")]
    free = json.loads(run(*words).stdout)["totals"]["switchboard"]
    bound = json.loads(run(*words, "--policy", policy).stdout)["totals"]["switchboard"]
    assert bound["peak"] == 12 < free["peak"]


def test_replay_of_a_trace(trace: Path, policy: Path, tmp_path: Path) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.yaml"
    other.write_text("minReplicas: 4\nmaxReplicas: 30\n")
    words = ["replay", "--policy", policy, "--trace", trace, "--against", other, "--html", page]
    text = run(*words)
    assert text.exit_code == 0
    assert {line.split()[0] for line in text.stdout.splitlines() if line.startswith(("new", "before"))} == {
        "new",
        "before",
    }
    found = json.loads(run(*words, "-o", "json").stdout)["totals"]
    assert found["new"]["peak"] == 12
    assert found["before"]["peak"] > 12
    assert found["new"]["violation_s"] > found["before"]["violation_s"] > 0
    assert "<svg" in page.read_text()


def test_replay_from_prometheus(prometheus: Recorded, policy: Path, tmp_path: Path) -> None:
    words = ["replay", "--policy", policy, "--from-prometheus", prometheus.url, "--last", "90m", "-o", "json"]
    end = prometheus.end.strftime("%Y-%m-%dT%H:%M:%S")
    found = json.loads(run(*words, "--end", end, "--html", tmp_path / "page.html").stdout)
    assert set(found["totals"]) == {"new", "defaults"}
    assert 4 <= found["totals"]["new"]["peak"] <= 12
    assert found["totals"]["new"]["replica_h"] > 3


def test_replay_of_an_edges_own_replicas(prometheus: Recorded, policy: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["replay", "--policy", policy, "--from-prometheus", prometheus.url, "--region", "cn-beijing"]
    words += ["--last", "10m", "--end", prometheus.end.strftime("%Y-%m-%dT%H:%M:%S"), "--html", page]
    found = run(*words)
    assert found.exit_code == 0
    assert "OF LEAST" in found.stdout
    assert "requests to chat on the edge of cn-beijing from" in page.read_text()


def test_replay_of_a_service_that_there_isn_t(prometheus: Recorded, policy: Path) -> None:
    words = ["replay", "--policy", policy, "--from-prometheus", prometheus.url, "--model-server", "voice"]
    end = prometheus.end.strftime("%Y-%m-%dT%H:%M:%S")
    with pytest.raises(SwitchboardError, match=r"no requests to voice .*\n.* it knows those to chat, "):
        run(*words, "--last", "1h", "--end", end)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing option"),
        (["--policy", "POLICY"], "say where the traffic is from"),
        (
            ["--policy", "POLICY", "--trace", "TRACE", "--from-prometheus", "http://127.0.0.1:9"],
            "one of them",
        ),
        (["--policy", "POLICY", "--trace", "/none"], "does not exist"),
        (["--policy", "POLICY", "--trace", "TRACE", "--bound-s", "0.1"], "none is within --bound-s"),
        (
            ["--policy", "POLICY", "--from-prometheus", "http://127.0.0.1:9", "--last", "5y"],
            "no length of time",
        ),
    ],
)
def test_wrong_usage(words: list[str], says: str, trace: Path, policy: Path) -> None:
    put = {"POLICY": str(policy), "TRACE": str(trace)}
    found = run("replay", *[put.get(word, word) for word in words])
    assert found.exit_code == 2
    assert says in " ".join(found.output.replace("│", " ").split())


def test_a_page_that_can_t_be_written(trace: Path, policy: Path, tmp_path: Path) -> None:
    with pytest.raises(SwitchboardError, match=r"can't write .*No such file"):
        run("replay", "--policy", policy, "--trace", trace, "--html", tmp_path / "none" / "page.html")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("maxReplicas: 3\nminReplicas: 5\n", "minReplicas 5 is more than maxReplicas 3"),
        ("maxReplicas: many\n", "maxReplicas: Input should be a valid integer"),
        ("maxReplicas: 3\nspeed: 2\n", "speed: Extra inputs are not permitted"),
        ("maxReplicas: [\n", "policy .*: while parsing"),
        ("", "valid dictionary"),
        ("kind: ModelServer\nspec: {}\n", "valid dictionary"),
    ],
)
def test_a_policy_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(SwitchboardError, match=says) as caught:
        read_policy(path)
    assert "\n" not in str(caught.value)


def test_a_policy_in_its_model_server(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("kind: ModelServer\nspec:\n  model: chat-intent\n  scaling: {maxReplicas: 7}\n")
    assert read_policy(path).max_replicas == 7
