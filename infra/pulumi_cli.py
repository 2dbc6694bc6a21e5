"""Pulumi as a program that we run: its environment, its Kubernetes plugin, its stack, and one `up`.

State is kept in a folder of the stack (a self-managed backend), so nothing needs an account. A run that was killed
leaves a lock and unfinished operations in it, and helpers of Pulumi's that wait for it for good; all are cleared
before the next one, when their owner is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from infra import config
from infra.local import processes, toolchain
from infra.local.layout import SiteLayout
from infra.plugin.install import install_in_home
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT, cache_dir, state_dir
from switchboard.progress import Progress, Step

PASSPHRASE = "local"  # noqa: S105
"""Of the `local` stack's secrets: it holds none worth keeping; other stacks bring a secrets provider of their own."""

FETCH_TIMEOUT_S = 20.0
RETRY_AFTER_S = 24 * 3600.0
CLOCK_TOLERANCE_S = 2.0
"""A process's start is known to a second or so: it is counted from the boot, whose time is in whole seconds."""

_CHANGE = re.compile(r"^ *[+\-~]+ +(\S+) (\S+) (creat|updat|delet|replac)(ed|e|ing)\b")


def backend(stack_name: str) -> Path:
    """The folder that Pulumi keeps an embedded stack's state in."""
    return state_dir(stack_name) / "pulumi"


def pulumi_home(stack_name: str) -> Path:
    """The Pulumi home of a stack that has to do with the stand-in for the Kubernetes plugin."""
    return state_dir(stack_name) / "pulumi-home"


def environment(stack_name: str, tools: toolchain.Toolchain) -> dict[str, str]:
    """What `pulumi` and `kubectl` need in their environment to work on this stack; PATH is complete."""
    stack = config.load(stack_name)
    embedded = [SiteLayout(site, state_dir(stack_name)) for site in stack.sites if site.embedded is not None]
    path = [*map(str, tools.bin_dirs), str(Path(sys.executable).parent)]
    rest = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part and part not in path]
    values = {
        "PATH": os.pathsep.join(path + rest),
        "SWITCHBOARD_STACK": stack_name,
        "PULUMI_STACK": stack_name,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    if embedded:
        # Public sites first: the first file's context is the current one.
        order = sorted(embedded, key=lambda layout: layout.site.role == "private")
        values["KUBECONFIG"] = os.pathsep.join(str(layout.kubeconfig) for layout in order)
        values["PULUMI_BACKEND_URL"] = backend(stack_name).as_uri()
        values["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
        if pulumi_home(stack_name).exists():
            values["PULUMI_HOME"] = str(pulumi_home(stack_name))
            values["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    return values


def ensure_plugin(stack_name: str, tools: toolchain.Toolchain) -> str:
    """Make sure that Pulumi finds a Kubernetes plugin; say which: `official …` or `stand-in`.

    The official plugin is used where it is installed or can be; the stand-in, in a Pulumi home of the stack's own,
    only where it can't.
    """
    wanted = version("pulumi-kubernetes")
    home = pulumi_home(stack_name)
    environ = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true", processes.MARK: str(_mark(stack_name))}
    if environ.get("PULUMI_HOME") == str(home):
        del environ["PULUMI_HOME"]
    pulumi = str(tools.path("pulumi"))
    listed = subprocess.run([pulumi, "plugin", "ls", "--json"], capture_output=True, text=True, env=environ)
    installed = json.loads(listed.stdout or "[]") if listed.returncode == 0 else []
    if any(plugin["name"] == "kubernetes" and plugin.get("version") == wanted for plugin in installed):
        shutil.rmtree(home, ignore_errors=True)
        _failed_fetch(wanted).unlink(missing_ok=True)
        return f"official {wanted}"
    if _fetch_official(pulumi, wanted, environ):
        shutil.rmtree(home, ignore_errors=True)
        return f"official {wanted}"
    install_in_home(home, wanted, Path(sys.executable))
    return "stand-in"


def _failed_fetch(wanted: str) -> Path:
    """The file whose time says when the official plugin could not be fetched."""
    return cache_dir() / f"no-kubernetes-plugin-{wanted}"


def _fetch_official(pulumi: str, wanted: str, environ: Mapping[str, str]) -> bool:
    """Try to install the official plugin; a failure is remembered for a day, for all stacks and checkouts."""
    failed = _failed_fetch(wanted)
    if not may_try_again(failed.stat().st_mtime if failed.exists() else None, time.time()):
        return False
    try:
        fetched = subprocess.run(
            [pulumi, "plugin", "install", "resource", "kubernetes", wanted],
            capture_output=True,
            env=dict(environ),
            timeout=FETCH_TIMEOUT_S,
        )
        if fetched.returncode == 0:
            failed.unlink(missing_ok=True)
            return True
    except subprocess.TimeoutExpired:
        pass  # a network that drops packets without a word
    with contextlib.suppress(OSError):  # a cache that can't be written only forgets it
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.touch()
    return False


def may_try_again(failed_at: float | None, now: float) -> bool:
    """Whether a download that failed at `failed_at` (seconds since the epoch; None: never) is to be tried at `now`.

    A time in the future is of a clock that was set back, and says nothing.
    """
    return failed_at is None or not 0 <= now - failed_at < RETRY_AFTER_S


def _mark(stack_name: str) -> Path:
    """What the processes of `up`'s Pulumi have in their environment (see `infra.local.processes`)."""
    return state_dir(stack_name) / "run" / "pulumi.json"


def end_leftovers(stack_name: str) -> None:
    """End what a killed `up` left running: Pulumi, or the language host that waits for a Pulumi that is gone.

    Only for who holds the stack (`cloud.exclusive`): no other `up` is at work then.
    """
    for pid in processes.marked(_mark(stack_name)):
        ticks = processes.started_ticks(pid)
        if ticks is not None:
            processes.end(pid, ticks, grace_s=3)


def ensure_stack(stack_name: str, tools: toolchain.Toolchain) -> None:
    """Create the stack in its backend where it isn't there, and clear what a killed run left behind.

    Raises:
        SwitchboardError: another Pulumi is at work on this stack, or its state can't be repaired.
    """
    backend(stack_name).mkdir(parents=True, exist_ok=True, mode=0o700)
    _release_dead_lock(stack_name)
    end_leftovers(stack_name)
    checkpoint = backend(stack_name) / ".pulumi" / "stacks" / config.PROJECT / f"{stack_name}.json"
    if not checkpoint.exists():
        _run(stack_name, tools, ["stack", "init", stack_name, "--secrets-provider", "passphrase"])
        return
    try:
        state = json.loads(checkpoint.read_text())
    except ValueError:
        raise SwitchboardError(
            f"the Pulumi state of stack {stack_name} is damaged: {checkpoint}",
            f"restore {checkpoint.name}.bak beside it, or `switchboard clean --stack {stack_name}` to start over",
        ) from None
    latest = state.get("checkpoint", {}).get("latest") or {}
    if latest.get("pending_operations"):
        _run(stack_name, tools, ["refresh", "--yes", "--skip-preview", "--clear-pending-creates"])


def _release_dead_lock(stack_name: str) -> None:
    for lock in (backend(stack_name) / ".pulumi" / "locks").rglob("*.json"):
        try:
            owner = json.loads(lock.read_text())
        except (OSError, ValueError):
            owner = None
        if isinstance(owner, dict) and _is_held(owner):
            raise SwitchboardError(
                f"stack {stack_name} is locked by pulumi (pid {owner['pid']}, since {owner['timestamp']})",
                "wait until it ends, then run this again",
            )
        lock.unlink(missing_ok=True)


def _is_held(owner: Mapping[str, object]) -> bool:
    """Whether who wrote a lock still runs: a pid alone may be another's by now, after a restart of the machine for
    one, so it must be a Pulumi that was started before."""
    pid, stamp = owner.get("pid"), owner.get("timestamp")
    if not isinstance(pid, int) or owner.get("hostname") != socket.gethostname():
        return False
    try:
        locked_at_s = datetime.fromisoformat(str(stamp)).timestamp()
        process = psutil.Process(pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and process.name().startswith("pulumi")
            and process.create_time() <= locked_at_s + CLOCK_TOLERANCE_S
        )
    except (ValueError, OverflowError, psutil.Error):
        return False


def run(stack_name: str, tools: toolchain.Toolchain, arguments: Sequence[str]) -> int:
    """Pulumi with the stack's environment, on this terminal; its exit code."""
    environ = {**os.environ, **environment(stack_name, tools)}
    return subprocess.run([str(tools.path("pulumi")), *arguments], cwd=ROOT, env=environ).returncode


def _own_environment(stack_name: str, tools: toolchain.Toolchain) -> dict[str, str]:
    """That of a Pulumi that nobody sits in front of: it is found by its mark when it is left behind."""
    return {**os.environ, **environment(stack_name, tools), processes.MARK: str(_mark(stack_name))}


def _run(stack_name: str, tools: toolchain.Toolchain, arguments: Sequence[str]) -> str:
    environ = _own_environment(stack_name, tools)
    done = subprocess.run(
        [str(tools.path("pulumi")), *arguments, "--non-interactive", "--color", "never"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SwitchboardError(
            f"`pulumi {' '.join(arguments[:2])}` failed: {_reason((done.stdout + done.stderr).splitlines())}",
            f'`make pulumi ARGS="{" ".join(arguments)}"` shows all of it',
        )
    return done.stdout


def up(stack_name: str, tools: toolchain.Toolchain, progress: Progress, *, refresh: bool = False) -> str:
    """`pulumi up` without questions, its changes counted live; returns Pulumi's summary (`61 created`).

    With `refresh` it first compares its state with what is there.

    Raises:
        SwitchboardError: with Pulumi's own reason, and where its whole output is.
    """
    log = state_dir(stack_name) / "logs" / "pulumi-up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environ = _own_environment(stack_name, tools)
    command = [
        str(tools.path("pulumi")),
        "up",
        "--yes",
        "--skip-preview",
        "--non-interactive",
        "--color",
        "never",
        *(["--refresh"] if refresh else []),
    ]
    with progress.step(f"pulumi up ({stack_name})") as step:
        with subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            lines = _follow(process, log, step)
        if process.returncode != 0:
            raise SwitchboardError(f"`pulumi up` failed: {_reason(lines)}", f"all of its output: {log}")
    return _summary(lines)


def _follow(process: subprocess.Popen[str], log: Path, step: Step) -> list[str]:
    """Copy the output to `log`, show what is being changed, and return the last lines."""
    recent: deque[str] = deque(maxlen=2000)
    done = 0
    with log.open("w", buffering=1) as file:  # line by line: it is read while Pulumi works
        for line in process.stdout or ():
            file.write(line)
            recent.append(line.rstrip())
            if match := _CHANGE.match(line):
                done += match[4] != "ing"
                step.detail(
                    f"{done} done, {match[3]}{match[4]} {match[1].removeprefix('kubernetes:')} {match[2]}"
                )
    return list(recent)


def _reason(lines: Sequence[str]) -> str:
    """Pulumi's first error in its own words, on one line."""
    for index, line in enumerate(lines):
        if "error:" in line:
            words = [line.split("error:", 1)[1].strip()]
            if not words[0] or words[0].endswith(":"):
                words += [following.strip() for following in lines[index + 1 : index + 4]]
            return " ".join(filter(None, words))
    return lines[-1].strip() if lines else "no output"


def _summary(lines: Sequence[str]) -> str:
    counts = [
        " ".join(line.split()[1:])
        for line in lines
        if re.match(r"^ +[+\-~]+ +\d+ (created|updated|deleted|replaced)", line)
    ]
    unchanged = [line.strip() for line in lines if re.match(r"^ +\d+ unchanged", line)]
    return ", ".join(counts + unchanged) or "done"
