"""What a killed or failed Pulumi leaves, and what Pulumi prints: real files, real processes, a real Pulumi."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra import config, pulumi_cli
from infra.local import processes, toolchain
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from switchboard.progress import Progress, Step
from tests.conftest import free_networks, stack_document

OUTPUT = """\
Updating (local):

@ updating......
 ~  kubernetes:apps/v1:Deployment public-gateway updating (0s) [diff: ~spec]
 ~  kubernetes:apps/v1:Deployment public-gateway updating (0s) [diff: ~spec]; its controller has not seen it yet
@ updating....
 ~  kubernetes:apps/v1:Deployment public-gateway updated (5s) [diff: ~spec]; 1 of 1 replicas available
 +  kubernetes:core/v1:Service public-chat creating (0s)
 +  kubernetes:core/v1:Service public-chat created (0.1s)
 ++ kubernetes:core/v1:ConfigMap public-prometheus creating replacement (0s) [diff: ~data]
 -  kubernetes:core/v1:ConfigMap old deleted (0.01s)

Outputs:
    endpoints: {
        mlflow    : "http://127.96.172.144:5000"
    }

Resources:
    + 1 created
    ~ 1 updated
    - 1 deleted
    55 unchanged

Duration: 12s
"""


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An embedded stack's name, its state in a folder of its own; nothing of it runs."""
    name = f"test-cli-{os.getpid()}"
    file = tmp_path / f"Pulumi.{name}.yaml"
    file.write_text(yaml.safe_dump(stack_document([f"127.{150 + index}.0.0/16" for index in range(4)])))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(file))
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    return name


@pytest.fixture
def tools() -> toolchain.Toolchain:
    return toolchain.locate(["pulumi", "pulumi-language-python"])


def _sleeper(folder: Path, name: str, **environ: str) -> subprocess.Popen[bytes]:
    """A process of that name."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    program = folder / name
    shutil.copy(sleep, program)
    process = subprocess.Popen([str(program), "600"], env={**os.environ, **environ})
    while psutil.Process(process.pid).name() != name:  # between fork and exec it has the test's own
        pass
    return process


@pytest.fixture
def pulumi_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = _sleeper(tmp_path, "pulumi")
    yield process
    process.kill()
    process.wait()


def _lock(stack: str, text: str) -> Path:
    folder = pulumi_cli.backend(stack) / ".pulumi" / "locks" / "organization" / config.PROJECT / stack
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "0c29e9ba.json"
    lock.write_text(text)
    return lock


def _owner(pid: object, *, hostname: str | None = None, age_s: float = 0) -> str:
    stamp = datetime.now(timezone(timedelta(hours=8))) - timedelta(seconds=age_s)
    return json.dumps(
        {
            "pid": pid,
            "username": "root",
            "hostname": hostname or socket.gethostname(),
            # As Go writes it, in nanoseconds.
            "timestamp": stamp.isoformat().replace("+08:00", "123+08:00"),
        }
    )


def test_a_lock_of_a_running_pulumi_is_respected(stack: str, pulumi_process: subprocess.Popen[bytes]) -> None:
    lock = _lock(stack, _owner(pulumi_process.pid))
    with pytest.raises(
        SwitchboardError, match=f"locked by pulumi .pid {pulumi_process.pid}, since "
    ) as caught:
        pulumi_cli._release_dead_lock(stack)
    assert "wait" in str(caught.value)
    assert lock.exists()


def test_a_lock_older_than_its_process_is_anothers(
    stack: str, pulumi_process: subprocess.Popen[bytes]
) -> None:
    lock = _lock(stack, _owner(pulumi_process.pid, age_s=3600))
    pulumi_cli._release_dead_lock(stack)
    assert not lock.exists()


@pytest.mark.parametrize(
    "text",
    [
        _owner(os.getpid()),  # runs, but is no Pulumi
        _owner(2**22 + 1),  # above the largest pid
        _owner(2**70),
        _owner(-1),
        _owner("12"),
        _owner(None),
        _owner(1, hostname="another-host"),
        json.dumps({"pid": os.getpid(), "hostname": socket.gethostname()}),
        json.dumps({"pid": os.getpid(), "hostname": socket.gethostname(), "timestamp": "yesterday"}),
        "[]",
        "null",
        '{"pid": 1',
        "",
    ],
)
def test_a_dead_lock_is_removed(stack: str, text: str) -> None:
    lock = _lock(stack, text)
    pulumi_cli._release_dead_lock(stack)
    assert not lock.exists()


def test_a_lock_of_a_killed_pulumi_that_nobody_reaped_is_dead(stack: str, tmp_path: Path) -> None:
    process = _sleeper(tmp_path, "pulumi")
    try:
        lock = _lock(stack, _owner(process.pid))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        pulumi_cli._release_dead_lock(stack)
        assert not lock.exists()
    finally:
        process.wait()


def test_leftovers_are_ended_and_others_are_not(
    stack: str, tmp_path: Path, pulumi_process: subprocess.Popen[bytes]
) -> None:
    mark = str(pulumi_cli._mark(stack))
    left = _sleeper(tmp_path, "pulumi-language-python", **{processes.MARK: mark})
    try:
        pulumi_cli.end_leftovers(stack)
        assert left.wait(30) != 0
        assert pulumi_process.poll() is None
        pulumi_cli.end_leftovers(stack)
    finally:
        left.kill()
        left.wait()


def _checkpoint(stack: str) -> Path:
    return pulumi_cli.backend(stack) / ".pulumi" / "stacks" / config.PROJECT / f"{stack}.json"


@pytest.mark.parametrize("text", ["", "{", '{"version": 3, "checkpoint": {"la', "\0\0\0"])
def test_a_damaged_checkpoint_is_told(stack: str, tools: toolchain.Toolchain, text: str) -> None:
    checkpoint = _checkpoint(stack)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text(text)
    with pytest.raises(SwitchboardError, match=f"state of stack {stack} is damaged") as caught:
        pulumi_cli.ensure_stack(stack, tools)
    assert str(checkpoint) in str(caught.value)
    assert "clean" in str(caught.value)
    assert checkpoint.read_text() == text, "it is the user's to decide"


def test_operations_that_a_kill_left_pending_are_cleared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: toolchain.Toolchain
) -> None:
    """With a real Pulumi, whose stack has its file in the checkout."""
    stack = f"test-pending-{os.getpid()}"
    file = ROOT / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(stack_document(free_networks(4))))
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    try:
        pulumi_cli.ensure_stack(stack, tools)
        checkpoint = _checkpoint(stack)
        state: dict[str, Any] = json.loads(checkpoint.read_text())
        latest = state["checkpoint"].get("latest")
        assert not (latest or {}).get("pending_operations")
        state["checkpoint"]["latest"] = {
            **(latest or _empty_deployment()),
            "pending_operations": [
                {
                    "type": "creating",
                    "resource": {
                        "urn": f"urn:pulumi:{stack}::{config.PROJECT}::pulumi:pulumi:Stack::{config.PROJECT}-{stack}",
                        "custom": False,
                        "type": "pulumi:pulumi:Stack",
                    },
                }
            ],
        }
        checkpoint.write_text(json.dumps(state))
        pulumi_cli.ensure_stack(stack, tools)
        after = json.loads(checkpoint.read_text())["checkpoint"]["latest"]
        assert not after.get("pending_operations")
    finally:
        file.unlink()


def _empty_deployment() -> dict[str, Any]:
    return {"manifest": {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "no output"),
        (["something odd", "  the end  "], "the end"),
        (["x", "error: no stack selected", "error: later"], "no stack selected"),
        (["    error: update failed"], "update failed"),
        (
            ["Diagnostics:", "  error: could not start:", "    line one", "    line two"],
            "could not start: line one line two",
        ),
        (["  error:", "    the reason", ""], "the reason"),
    ],
)
def test_the_reason_is_the_first_error_on_one_line(lines: list[str], reason: str) -> None:
    assert pulumi_cli._reason(lines) == reason


@pytest.mark.parametrize(
    ("lines", "summary"),
    [
        (OUTPUT.splitlines(), "1 created, 1 updated, 1 deleted, 55 unchanged"),
        (["Resources:", "    58 unchanged", "", "Duration: 3s"], "58 unchanged"),
        (["Resources:", "    +-2 replaced", "    3 unchanged"], "3 unchanged"),
        ([" +  kubernetes:core/v1:Service 3 created", "no resources"], "done"),
        ([], "done"),
    ],
)
def test_the_summary_counts_changes(lines: list[str], summary: str) -> None:
    assert pulumi_cli._summary(lines) == summary


class _Details(Step):
    """A step that keeps all its details."""

    def __init__(self) -> None:
        super().__init__(Progress(io.StringIO()), "pulumi up")
        self.all: list[str] = []

    def detail(self, text: str) -> None:
        self.all.append(text)


def test_the_output_is_followed_and_kept(tmp_path: Path) -> None:
    source, log = tmp_path / "output", tmp_path / "pulumi-up.log"
    source.write_text(OUTPUT)
    step = _Details()
    with subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE, text=True) as process:
        lines = pulumi_cli._follow(process, log, step)
    assert log.read_text() == OUTPUT
    assert lines == OUTPUT.splitlines()
    assert step.all == [
        "0 done, updating apps/v1:Deployment public-gateway",
        "0 done, updating apps/v1:Deployment public-gateway",
        "1 done, updated apps/v1:Deployment public-gateway",
        "1 done, creating core/v1:Service public-chat",
        "2 done, created core/v1:Service public-chat",
        "2 done, creating core/v1:ConfigMap public-prometheus",
        "3 done, deleted core/v1:ConfigMap old",
    ]


@pytest.mark.parametrize(
    ("failed_at", "now", "again"),
    [
        (None, 1e9, True),
        (1e9, 1e9, False),
        (1e9, 1e9 + 86_399, False),
        (1e9, 1e9 + 86_400, True),
        (1e9, 1e9 - 1, True),  # the clock was set back
    ],
)
def test_when_a_failed_download_is_tried_again(failed_at: float | None, now: float, again: bool) -> None:
    assert pulumi_cli.may_try_again(failed_at, now) is again


def test_a_failed_download_is_remembered_until_it_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path / "cache"))
    calls = tmp_path / "calls"
    program = tmp_path / "pulumi"

    def ends_with(code: int) -> None:
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexit {code}\n')
        program.chmod(stat.S_IRWXU)

    ends_with(1)
    assert [pulumi_cli._fetch_official(str(program), "4.1.0", os.environ) for _ in range(2)] == [False, False]
    assert calls.read_text().split("\n") == ["plugin install resource kubernetes 4.1.0", ""]
    assert not pulumi_cli._fetch_official(str(program), "4.2.0", os.environ), "another version"
    assert len(calls.read_text().split("\n")) == 3
    marker = pulumi_cli._failed_fetch("4.1.0")
    two_days_ago = marker.stat().st_mtime - 2 * 86_400
    os.utime(marker, (two_days_ago, two_days_ago))
    ends_with(0)
    assert pulumi_cli._fetch_official(str(program), "4.1.0", os.environ)
    assert not marker.exists()


def test_nobody_waits_for_the_download_when_the_command_ends() -> None:
    script = textwrap.dedent("""
        import threading
        from infra.up import _in_background
        assert _in_background(lambda: 7).result() == 7
        _in_background(threading.Event().wait)
        raise SystemExit(3)
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert done.returncode == 3


def test_a_failure_in_the_background_is_told_to_who_asks() -> None:
    from infra.up import _in_background

    def fail() -> int:
        raise SwitchboardError("no plugin")

    with pytest.raises(SwitchboardError, match="no plugin"):
        _in_background(fail).result()
