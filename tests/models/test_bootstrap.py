"""The Job that makes the first champion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models import bootstrap
from models.bootstrap import Step, next_step
from models.registry import set_alias
from models.rest import BOOTSTRAP_TAG, FILES_TAG, Registry, Version
from models.training import Trained
from switchboard.paths import ROOT
from tests.fixtures_mlflow import Cuttable
from tests.models.conftest import Register

HASHES = json.dumps({name: {"sha256": "0" * 64, "size": 1} for name in ("classifier.npz", "classifier.json")})


def _version(number: int, *, ours: bool = True, whole: bool = True, status: str = "READY") -> Version:
    tags = ({BOOTSTRAP_TAG: "true"} if ours else {}) | ({FILES_TAG: HASHES} if whole else {})
    return Version("m", str(number), "run", status, 0, tags=tags)


@pytest.mark.parametrize(
    ("champion", "versions", "expected", "why"),
    [
        (None, [], Step(), "nothing there: train"),
        ("3", [], Step(done=True), "there is a champion, whatever else"),
        ("3", [_version(1)], Step(done=True), "a promoted champion stays"),
        (None, [_version(1)], Step(point_at="1"), "made, but the Job was stopped before the alias"),
        (None, [_version(10), _version(9)], Step(point_at="9"), "the lowest, as numbers"),
        (
            None,
            [_version(1, ours=False), _version(2)],
            Step(point_at="2"),
            "a person's version isn't promoted",
        ),
        (None, [_version(1, whole=False), _version(2)], Step(point_at="2"), "a version without its hashes"),
        (None, [_version(1, status="FAILED_REGISTRATION")], Step(), "a version that failed"),
    ],
)
def test_what_to_do(champion: str | None, versions: list[Version], expected: Step, why: str) -> None:
    assert next_step(champion, versions) == expected, why


def _start(model: str, url: str, *more: str) -> subprocess.Popen[str]:
    """As in its pod: nothing but the interpreter, a read-only home, the address."""
    return subprocess.Popen(
        [sys.executable, "-m", "models.bootstrap", "--model", model, "--alias", "champion", *more],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": url, "HOME": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(model: str, url: str, *more: str) -> tuple[int, str]:
    process = _start(model, url, *more)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def test_two_at_once_make_one_champion_and_a_third_changes_nothing(
    mlflow_server: str, model_name: str, trained: Trained
) -> None:
    processes = [_start(model_name, mlflow_server) for _ in range(2)]
    logs = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
    registry = Registry(mlflow_server)
    champion = registry.version_of_alias(model_name, "champion")
    assert [version.version for version in registry.versions(model_name)] == [champion.version]
    assert champion.tags["switchboard.data_sha256"] == trained.data.sha256

    code, log = _run(model_name, mlflow_server)
    assert code == 0
    assert f"{model_name}@champion is version {champion.version}" in log
    assert "training" not in log


def test_goes_on_where_it_was_stopped(mlflow_server: str, register: Register, model_name: str) -> None:
    """Registered, and killed before the alias was set."""
    made = register(bootstrap=True)
    code, log = _run(model_name, mlflow_server)
    assert code == 0, log
    assert "training" not in log
    assert Registry(mlflow_server).version_of_alias(model_name, "champion").version == made.version


def test_a_promoted_champion_is_left_alone(mlflow_server: str, register: Register, model_name: str) -> None:
    register(bootstrap=True)
    second = register()
    set_alias(model_name, "champion", second.version, tracking_uri=mlflow_server)
    found = bootstrap.bootstrap(model_name, "champion", tracking_uri=mlflow_server, timeout_s=120)
    assert found == second.version


def test_waits_for_mlflow(link: Cuttable, register: Register, model_name: str) -> None:
    made = register(alias="champion")
    link.down()
    timer = threading.Timer(1.0, link.up)
    timer.start()
    found = bootstrap.bootstrap(model_name, "champion", tracking_uri=link.url, timeout_s=240)
    timer.join()
    assert found == made.version


def test_mlflow_that_never_comes() -> None:
    code, log = _run("m", "http://127.37.0.254:9", "--timeout-s", "0.3")
    assert code == 1
    last = log.strip().splitlines()
    assert any("wasn't reachable within" in line for line in last)
    assert "Traceback" not in log


@pytest.mark.parametrize("arguments", [["--timeout-s", "soon"], ["--what"]])
def test_wrong_arguments(arguments: list[str]) -> None:
    assert _run("m", "http://127.37.0.254:9", *arguments)[0] == 2


def test_a_name_that_is_none() -> None:
    code, log = _run("../m", "http://127.37.0.254:9")
    assert code == 1
    assert "is not a model uri" in log


def test_no_address(tmp_path: Path) -> None:
    code, log = _run("m", "")
    assert code == 1
    assert "MLFLOW_TRACKING_URI" in log
