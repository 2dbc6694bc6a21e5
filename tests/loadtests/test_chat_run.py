"""`switchboard loadtests chat`: real Locust runs, short ones, against a service that behaves and one that doesn't."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from loadtests import cli
from switchboard import requests
from switchboard.errors import SwitchboardError
from switchboard.gateways import GATEWAY_VARIABLE
from tests.loadtests.conftest import Remote


def run(*arguments: str) -> Result:
    env: dict[str, Any] = {GATEWAY_VARIABLE: None}
    usual = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(cli.app, ["chat", *arguments], env=env, catch_exceptions=False)
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_a_service_that_holds(remote: Remote, tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.html"
    result = run(
        *("--url", remote.url, "--rate", "10", "--duration", "6s", "--p99", "5s", "--output", "json"),
        *("--html", str(report), "--seconds", str(tmp_path / "seconds.csv")),
        *("--requests", str(tmp_path / "requests.csv")),
    )
    found = json.loads(result.stdout)
    assert result.exit_code == 0, found
    assert found["ok"]
    assert found["failed"] == 0
    # A constant rate: nothing but the start and the end of the run bends it.
    assert 20 <= found["total"] == len(remote.asked) <= 90
    assert {asked["language"] for asked in remote.asked} == {"en", "zh"}
    assert len(remote.sessions) > 1
    assert len(set(remote.keys)) == len(remote.keys)
    assert "chat zh" in report.read_text()
    rows = [line.split(",") for line in (tmp_path / "seconds.csv").read_text().splitlines()]
    assert rows[0] == ["second", "due", "good", "failed"]
    assert sum(int(row[1]) for row in rows[1:]) == found["total"]
    assert int(rows[1][0]) == int(found["first_s"])
    with (tmp_path / "requests.csv").open() as file:
        each = requests.read(file)
    assert len(each) == found["total"]
    assert {(one.failure, one.version) for one in each} == {(None, "1")}


@pytest.mark.parametrize(
    ("behaviour", "arguments", "reason"),
    [
        ({"status": 503, "every": 3}, [], "503 overloaded"),
        ({"answer": {"intent": None}, "every": 3}, [], "the answer's intent is missing or of the wrong type"),
        ({"delay_s": 0.6}, ["--p99", "500ms"], "the 99th percentile is"),
    ],
)
def test_a_service_that_does_not(
    remote: Remote, behaviour: dict[str, Any], arguments: list[str], reason: str
) -> None:
    for name, value in behaviour.items():
        setattr(remote, name, value)
    result = run("--url", remote.url, "--rate", "10", "--duration", "2s", *arguments)
    assert result.exit_code == 1
    assert reason in result.stdout


def test_a_slow_service_does_not_slow_the_questions(remote: Remote) -> None:
    remote.delay_s = 1.5
    result = run("--url", remote.url, "--rate", "10", "--duration", "5s", "--output", "json", "--p99", "60s")
    found = json.loads(result.stdout)
    assert found["p50_ms"] >= 1500
    # A closed loop of as many customers as one sees waiting would ask at two thirds of the rate.
    assert len(remote.asked) >= 40


def test_nobody_there(remote: Remote) -> None:
    result = run("--url", "http://127.38.0.6:9", "--rate", "5", "--duration", "2s")
    assert result.exit_code == 1
    assert "requests failed" in result.stdout
    assert "no answer" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which gateway"),
        (["--url", "gateway:80"], "is no address"),
        (["--url", "http://127.38.0.6:9", "--rate", "0"], "--rate 0"),
        (["--url", "http://127.38.0.6:9", "--duration", "soon"], "--duration: 'soon' is no time"),
        (["--url", "http://127.38.0.6:9", "--p99", "fast"], "--p99: 'fast' is no time"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        run(*arguments)


def test_told_to_stop_it_ends_its_customers_too_and_leaves_what_they_asked(
    remote: Remote, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "switchboard.cli", "loadtests", "chat", "--url", remote.url]
    command += ["--rate", "5", "--duration", "120s", "--requests", str(tmp_path / "requests.csv")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 110  # the command asks for 120 s
        while not remote.asked and time.monotonic() < deadline:
            time.sleep(0.1)
        assert remote.asked
        customers = psutil.Process(process.pid).children(recursive=True)
        assert customers
        process.terminate()
        assert process.wait(120) == 143
        gone, alive = psutil.wait_procs(customers, timeout=120)
        assert gone and not alive
        with (tmp_path / "requests.csv").open() as file:
            assert len(requests.read(file)) == len(remote.asked)
    finally:
        process.kill()
