"""How it is told: the table, the JSON, the exit code; and that no check takes another with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.doctor import Finding, Report, Verdict, examine, run, table
from infra.doctor.report import failed, ok, skipped, warning
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.conftest import shared_networks, stack_document

FINDINGS = [
    ok("machine/cores", "2 cores"),
    warning("state/drift", "1 gone", "up --refresh"),
    failed("tools/etcd", "missing", "`make up` makes it"),
    skipped("sites/public", "never brought up"),
]


def test_the_table() -> None:
    assert table(Report(stack="local", findings=FINDINGS, seconds=1.24)).splitlines() == [
        "CHECK          STATUS   WHAT",
        "machine/cores  ok       2 cores",
        "state/drift    warning  1 gone",
        "  → up --refresh",
        "tools/etcd     failed   missing",
        "  → `make up` makes it",
        "sites/public   skipped  never brought up",
        "",
        "stack local: 1 failed, 1 warning, 1 ok, 1 skipped (1.2 s)",
    ]


@pytest.mark.parametrize(("findings", "passed"), [(FINDINGS, False), (FINDINGS[:2], True), ([], True)])
def test_it_passes_unless_something_failed(findings: list[Finding], passed: bool) -> None:
    assert Report(stack="x", findings=findings).passed is passed


@pytest.mark.parametrize(
    ("error", "what", "mend"),
    [
        (SwitchboardError("no\netcd", "make it"), "no etcd", "make it"),
        (ValueError("x"), "couldn't be looked at: ValueError: x", "defect"),
    ],
)
def test_a_check_that_fails_itself_is_a_finding(error: Exception, what: str, mend: str) -> None:
    def look() -> list[Finding]:
        raise error

    (found,) = run._safely("tools", look)
    assert (found.check, found.status, found.what) == ("tools", Verdict.FAILED, what)
    assert found.mend and mend in found.mend


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"doctor{os.getpid()}"
    file = tmp_path / f"Pulumi.{name}.yaml"
    file.write_text(yaml.safe_dump(stack_document(shared_networks())))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(file))
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    return name


def test_a_stack_that_was_never_up_has_nothing_wrong(stack: str) -> None:
    found = examine(stack)
    by_check = {each.check: each for each in found.findings}
    assert len(by_check) == len(found.findings)
    assert by_check["sites/public"].status is Verdict.SKIPPED
    assert by_check["state/checkpoint"].status is Verdict.SKIPPED
    assert by_check["tools/prometheus"].status is Verdict.OK, by_check["tools/prometheus"]
    # Whether packages are as locked is for who changes them to say.
    wrong = [each for each in found.findings if each.status is Verdict.FAILED]
    assert [each for each in wrong if not each.check.startswith("environment")] == []


def test_the_command(stack: str, tmp_path: Path) -> None:
    """A stack file that is wrong: exit code 1, told as JSON."""
    (tmp_path / f"Pulumi.{stack}.yaml").write_text("config: {switchboard:nodes: 3}\n")
    command = [sys.executable, "-m", "switchboard.cli", "doctor", "--stack", stack, "--output", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is False
    found = {each["check"]: each for each in report["findings"]}
    assert "unknown key switchboard:nodes" in found["stack/file"]["what"]
    assert found["sites"]["status"] == "skipped"
    assert found["machine/cores"]["status"], "the rest is told all the same"
