"""Pulumi as a program that we run: its environment, its Kubernetes plugin, its stack, and one `up`.

State is kept in a folder of the stack (a self-managed backend), so nothing needs an account. A run that was killed
leaves a lock and unfinished operations in it, and helpers of Pulumi's that wait for it for good; all are cleared
before the next one, when their owner is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from infra import config, identity, locks, pulumi_arguments, pulumi_output
from infra.local import cloud, processes, toolchain
from infra.local.layout import SiteLayout
from infra.plugin.install import install_in_home
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT, cache_dir, state_dir
from switchboard.progress import Progress, Step

PASSPHRASE = "local"  # noqa: S105
"""Of the `local` stack's secrets: it holds none worth keeping; other stacks bring a secrets provider of their own."""

CHANGING = frozenset({"destroy", "dn", "down", "import", "refresh", "stack import", "up", "update", "watch"})
"""Pulumi's commands that change a stack, with their aliases."""
WITHOUT_PROGRAM = frozenset({"destroy", "dn", "down", "import", "refresh"})
"""Those for which Pulumi doesn't run the program, which would look first whether the clusters are the stack's."""
JUDGED = frozenset({"up", "update", "preview", "pre", "watch"})
"""Those at which the policies are asked."""
POLICIES = ROOT / "infra" / "policy"
UNCHANGED_POLICIES = POLICIES / "unchanged.json"
"""Settings for them, where Pulumi insists on some: none."""

FETCH_TIMEOUT_S = 20.0
RETRY_AFTER_S = 24 * 3600.0


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
    locks.release_dead(backend(stack_name), stack_name)
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


def run(stack_name: str, tools: toolchain.Toolchain, arguments: Sequence[str]) -> int:
    """Pulumi with the stack's environment, on this terminal; its exit code.

    A command that changes an embedded stack holds the stack, as `switchboard up` does. Ctrl-C is Pulumi's, which ends
    in order at the first one and at once at the second.

    Raises:
        SwitchboardError: somebody else is at work on the stack; names who. Or a cluster isn't the stack file's, or the
            arguments name another stack.
    """
    pulumi_arguments.stay_on(stack_name, arguments)
    environ = {**os.environ, **environment(stack_name, tools)}
    if pulumi_arguments.command(arguments) in WITHOUT_PROGRAM:
        identity.verify(config.load(stack_name), state_dir(stack_name), applying=True)
    with _held(stack_name, arguments):
        command = [str(tools.path("pulumi")), *with_policies(arguments)]
        process = subprocess.Popen(command, cwd=ROOT, env=environ)
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()


def with_policies(arguments: Sequence[str]) -> list[str]:
    """Pulumi's arguments and the stack's policies, where it makes or shows changes, beside the packs that are named."""
    if pulumi_arguments.command(arguments) not in JUDGED:
        return list(arguments)
    return pulumi_arguments.policy_packs(arguments, POLICIES, UNCHANGED_POLICIES)


@contextlib.contextmanager
def _held(stack_name: str, arguments: Sequence[str]) -> Iterator[None]:
    """The stack's lock where the command changes an embedded stack. What a killed Pulumi left is cleared."""
    if pulumi_arguments.command(arguments) not in CHANGING or not config.load(stack_name).embedded:
        yield
        return
    with cloud.exclusive(stack_name, f"switchboard pulumi -- {shlex.join(arguments)}"):
        locks.release_dead(backend(stack_name), stack_name)
        yield


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
        why = pulumi_output.reason((done.stdout + done.stderr).splitlines())
        raise SwitchboardError(
            f"`pulumi {' '.join(arguments[:2])}` failed: {why}",
            f'`make pulumi ARGS="{" ".join(arguments)}"` shows all of it',
        )
    return done.stdout


def up(stack_name: str, tools: toolchain.Toolchain, progress: Progress, *, refresh: bool = False) -> str:
    """`pulumi up` without questions, its changes counted live; returns Pulumi's summary (`61 created`).

    With `refresh` it first compares its state with what is there. The policies judge once more what was judged as it is
    declared (`infra.policy.stack`): now with all that only the clusters know.

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
        "--policy-pack",
        pulumi_arguments.as_item(POLICIES),
        *(["--refresh"] if refresh else []),
    ]
    with progress.step(f"pulumi up ({stack_name})") as step:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                lines = _follow(process, log, step)
            except KeyboardInterrupt:
                _interrupt(process, log, step)
                raise
        if process.returncode != 0:
            if owner := next((lock.owner for lock in locks.read(backend(stack_name)) if lock.held), None):
                raise locks.held_by(stack_name, owner)
            raise pulumi_output.error(lines, log)
    return pulumi_output.summary(lines)


def _interrupt(process: subprocess.Popen[str], log: Path, step: Step) -> None:
    """Have Pulumi end in order, so that its state tells what was done; a second Ctrl-C ends it at once.

    Ctrl-C at a terminal reaches Pulumi too, and would be its second one if it were passed on.
    """
    alone = sys.stdin is None or not sys.stdin.isatty()
    if alone:
        process.send_signal(signal.SIGINT)
    step.detail("interrupted: Pulumi ends what it has begun (Ctrl-C again ends it at once)")
    try:
        _follow(process, log, step, mode="a")
        process.wait()
    except KeyboardInterrupt:
        if alone:
            process.send_signal(signal.SIGINT)
        process.wait()


def _follow(
    process: subprocess.Popen[str], log: Path, step: Step, *, mode: Literal["w", "a"] = "w"
) -> list[str]:
    """Copy the output to `log`, show what is being changed, and return the last lines."""
    recent: deque[str] = deque(maxlen=2000)
    done = 0
    with log.open(mode, buffering=1) as file:  # line by line: it is read while Pulumi works
        for line in process.stdout or ():
            file.write(line)
            recent.append(line.rstrip())
            if change := pulumi_output.change(line):
                done += change.done
                step.detail(f"{done} done, {change.words}")
    return list(recent)
