"""What a killed or failed Pulumi leaves, and what Pulumi prints: real files, real processes, a real Pulumi."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra import config, locks, pulumi_cli
from infra.local import cloud, processes, toolchain
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from switchboard.progress import Progress, Step
from tests.conftest import shared_networks, stack_document
from tests.infra.test_pulumi_output import OUTPUT


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
    started = psutil.Process(process.pid)
    while (
        started.name() != name or not started.environ()
    ):  # between fork and exec it has the test's own, or none
        time.sleep(0.001)
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
    named = f"locked by `pulumi 600` .pid {pulumi_process.pid}, root on {socket.gethostname()}, since 20"
    with pytest.raises(SwitchboardError, match=named) as caught:
        locks.release_dead(pulumi_cli.backend(stack), stack)
    assert "wait" in str(caught.value)
    assert lock.exists()


@pytest.mark.parametrize(
    "given",
    [
        {"age_s": 3600},  # the clock was stepped forward, which makes the process younger than its lock
        {"age_s": -3600},
        {"hostname": "as-it-was-called-before"},
        {"age_s": 3600, "hostname": "as-it-was-called-before"},
    ],
    ids=str,
)
def test_neither_clock_nor_host_name_take_a_lock_from_a_running_pulumi(
    stack: str, pulumi_process: subprocess.Popen[bytes], given: dict[str, Any]
) -> None:
    lock = _lock(stack, _owner(pulumi_process.pid, **given))
    with pytest.raises(SwitchboardError, match=f"locked by .* .pid {pulumi_process.pid}, root on "):
        locks.release_dead(pulumi_cli.backend(stack), stack)
    assert lock.exists()


def test_a_lock_without_its_time_is_held_by_the_pulumi_it_names(
    stack: str, pulumi_process: subprocess.Popen[bytes]
) -> None:
    _lock(stack, json.dumps({"pid": pulumi_process.pid, "timestamp": "yesterday"}))
    (lock,) = locks.read(pulumi_cli.backend(stack))
    assert lock.held


def test_a_pulumi_is_known_by_what_it_was_called_as(stack: str) -> None:
    called = ["/opt/pulumi/bin/pulumi", "600"]
    process = subprocess.Popen(called, executable=shutil.which("sleep"))
    try:
        while psutil.Process(process.pid).cmdline() != called:  # between fork and exec it has the test's own
            time.sleep(0.001)
        _lock(stack, _owner(process.pid))
        (lock,) = locks.read(pulumi_cli.backend(stack))
        assert lock.held
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_owner(os.getpid()), id="of a process that is no Pulumi"),
        pytest.param(_owner(2**22 + 1), id="above the largest process number"),
        pytest.param(_owner(2**70), id="of no number that a process can have"),
        pytest.param(_owner(-1), id="of a negative number"),
        pytest.param(_owner("12"), id="of a text"),
        pytest.param(_owner(None), id="of nobody"),
        pytest.param(_owner(1, hostname="another-host"), id="of another host"),
        pytest.param(
            json.dumps({"pid": os.getpid(), "hostname": socket.gethostname()}), id="without its time"
        ),
        pytest.param(
            json.dumps({"pid": os.getpid(), "hostname": socket.gethostname(), "timestamp": "yesterday"}),
            id="of a time that is none",
        ),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"pid": 1', id="cut off"),
        pytest.param("", id="empty"),
    ],
)
def test_a_dead_lock_is_removed(stack: str, text: str) -> None:
    lock = _lock(stack, text)
    locks.release_dead(pulumi_cli.backend(stack), stack)
    assert not lock.exists()


def test_a_lock_of_a_killed_pulumi_that_nobody_reaped_is_dead(stack: str, tmp_path: Path) -> None:
    process = _sleeper(tmp_path, "pulumi")
    try:
        lock = _lock(stack, _owner(process.pid))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        locks.release_dead(pulumi_cli.backend(stack), stack)
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
        assert left.wait(120) != 0
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
    file.write_text(yaml.safe_dump(stack_document(shared_networks())))
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


@pytest.fixture
def busy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: toolchain.Toolchain
) -> Iterator[tuple[str, psutil.Process]]:
    """A stack that a real `pulumi up` is at work on: stopped in the middle, let go at the end."""
    stack = f"test-busy-{os.getpid()}"
    file = ROOT / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(stack_document(shared_networks())))
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    pulumi: subprocess.Popen[bytes] | None = None
    try:
        pulumi_cli.ensure_plugin(stack, tools)
        pulumi_cli.ensure_stack(stack, tools)
        pulumi = subprocess.Popen(_up(tools), cwd=ROOT, env=_environ(stack, tools), stdout=subprocess.DEVNULL)
        while not locks.read(pulumi_cli.backend(stack)):  # it runs the program while it holds its lock
            assert pulumi.poll() is None
            time.sleep(0.005)
        pulumi.send_signal(signal.SIGSTOP)
        yield stack, psutil.Process(pulumi.pid)
    finally:
        if pulumi is not None:
            pulumi.send_signal(signal.SIGCONT)
            pulumi.wait(300)
        file.unlink()


def _up(tools: toolchain.Toolchain) -> list[str]:
    return [
        str(tools.path("pulumi")),
        "up",
        "--yes",
        "--skip-preview",
        "--non-interactive",
        "--color",
        "never",
    ]


def _environ(stack: str, tools: toolchain.Toolchain) -> dict[str, str]:
    return {**os.environ, **pulumi_cli.environment(stack, tools)}


def test_of_two_ups_the_second_is_told_by_whom_the_stack_is_held(
    busy: tuple[str, psutil.Process], tools: toolchain.Toolchain
) -> None:
    """By our commands in one line of ours, by a bare `pulumi up` in Pulumi's own words; the state stays as it is."""
    stack, first = busy
    before = _checkpoint(stack).read_bytes()
    host = re.escape(socket.gethostname())
    named = rf"locked by `pulumi up --yes .*` \(pid {first.pid}, \S+ on {host}, since 20.*\); nothing was"
    for second in (
        lambda: pulumi_cli.run(stack, tools, ["up", "--yes"]),
        lambda: pulumi_cli.ensure_stack(stack, tools),
        lambda: pulumi_cli.up(stack, tools, Progress(io.StringIO())),
    ):
        with pytest.raises(SwitchboardError, match=named) as caught:
            second()
        assert str(caught.value).count("\n") == 1, "the error and the next step"
    bare = subprocess.run(_up(tools), cwd=ROOT, env=_environ(stack, tools), capture_output=True, text=True)
    assert bare.returncode != 0
    told = bare.stdout + bare.stderr
    assert "the stack is currently locked by 1 lock(s)" in told
    assert f"(pid {first.pid})" in told
    assert _checkpoint(stack).read_bytes() == before
    assert [lock.held for lock in locks.read(pulumi_cli.backend(stack))] == [True]


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["up"], True),
        (["-v", "3", "up"], True),
        (["stack", "import"], True),
        (["preview"], False),
        (["--version"], False),
        (["config", "set", "x", "up"], False),
    ],
)
def test_a_command_that_changes_the_stack_waits_for_nobody(
    stack: str, tmp_path: Path, arguments: list[str], refused: bool
) -> None:
    """While `switchboard up` is at it (in another process, as flock sees it: another open file)."""
    with cloud.exclusive(stack, "switchboard up"):
        second = (
            pytest.raises(SwitchboardError, match=r"`switchboard up` \(pid .* is at work on stack")
            if refused
            else contextlib.nullcontext()
        )
        with second, pulumi_cli._held(stack, arguments):
            pass


@pytest.mark.parametrize(
    ("arguments", "judged"),
    [
        (["up", "--yes"], True),
        (["preview"], True),
        (["-C", ".", "up"], True),
        (["refresh"], False),
        (["stack", "ls"], False),
        (["watch"], True),
        (["--color", "never", "--non-interactive", "update"], True),
        (["stack", "init", "preview"], False),
        (["config", "set", "switchboard:domain", "up"], False),
    ],
)
def test_the_policies_are_asked_where_changes_are_made_or_shown(arguments: list[str], judged: bool) -> None:
    policies = ["--policy-pack", str(ROOT / "infra" / "policy")] if judged else []
    assert pulumi_cli.with_policies(arguments) == [*arguments, *policies]
    assert pulumi_cli.with_policies([*arguments, "--", "x"]) == [*arguments, *policies, "--", "x"]
    assert (pulumi_cli.POLICIES / "PulumiPolicy.yaml").is_file()


def test_another_stack_s_name_reaches_no_pulumi(stack: str, tools: toolchain.Toolchain) -> None:
    """Only this stack's clusters were looked at; the one that is named would be destroyed."""
    with pytest.raises(SwitchboardError, match="names stack production") as caught:
        pulumi_cli.run(stack, tools, ["destroy", "--stack", "production", "--yes"])
    assert "switchboard pulumi --stack production -- …" in str(caught.value)


def test_who_holds_the_stack_by_a_pulumi_command_is_named(stack: str) -> None:
    named = r"`switchboard pulumi -- up --target 'a b'` \(pid "
    with (
        pulumi_cli._held(stack, ["up", "--target", "a b"]),
        pytest.raises(SwitchboardError, match=named),
        cloud.exclusive(stack, "switchboard up"),
    ):
        pass


def test_an_interrupted_up_lets_pulumi_end_in_order(
    monkeypatch: pytest.MonkeyPatch, stack: str, tmp_path: Path, tools: toolchain.Toolchain
) -> None:
    """A program in Pulumi's place, which takes a while over its end and then says so."""
    script = tmp_path / "pulumi"
    script.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        "    print('cancelled in order', flush=True)\n"
        "    sys.exit(3)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "print('working', flush=True)\n"
        "time.sleep(600)\n"
    )
    script.chmod(stat.S_IRWXU)
    log = paths.state_dir(stack) / "logs" / "pulumi-up.log"
    code = (
        "import io, sys\n"
        "from pathlib import Path\n"
        "from infra import pulumi_cli\n"
        "from infra.local.toolchain import Found, Toolchain\n"
        "from switchboard.progress import Progress\n"
        f"tools = Toolchain({{'pulumi': Found('pulumi', Path({str(script)!r}), '', 'test')}})\n"
        f"pulumi_cli.up({stack!r}, tools, Progress(io.StringIO()))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (log.exists() and "working" in log.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert log.read_text() == "working\ncancelled in order\n"


def _empty_deployment() -> dict[str, Any]:
    return {"manifest": {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}}


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
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=180)
    assert done.returncode == 3


def test_a_failure_in_the_background_is_told_to_who_asks() -> None:
    from infra.up import _in_background

    def fail() -> int:
        raise SwitchboardError("no plugin")

    with pytest.raises(SwitchboardError, match="no plugin"):
        _in_background(fail).result()
