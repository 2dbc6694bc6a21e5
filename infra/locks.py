"""Who is at work on a stack: Pulumi's own locks, and the words by which the stack's lock names its holder.

A self-managed backend keeps a file for each running Pulumi, and a killed one leaves it behind. Of what a lock says only
its pid is evidence: while a Pulumi of that pid lives, the lock is held. Its time proves nothing against that, since a
clock that is stepped moves the start of every process (the kernel counts it from the boot), and a machine's name may
change under a running Pulumi. So a pid that is another Pulumi's by now keeps a dead lock until that one ends: a wait,
where the other mistake would let two write one state.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from switchboard.errors import SwitchboardError

_COMMAND_LENGTH = 80


@dataclass(frozen=True)
class Lock:
    """A lock of Pulumi's: its file, and who wrote it in words; `held` while that one lives."""

    path: Path
    owner: str
    held: bool


def words(command: str, pid: int | None, user: str, host: str, since: datetime | None) -> str:
    """`` `pulumi up` (pid 12, root on host-1, since 2026-11-23 22:01:05)``."""
    who = [f"pid {pid}"] if pid is not None else []
    when = [f"since {since.astimezone():%Y-%m-%d %H:%M:%S}"] if since is not None else []
    return f"`{command}` ({', '.join([*who, f'{user} on {host}', *when])})"


def me(command: str) -> str:
    """This process at work with that command, as whoever comes meanwhile is told."""
    return words(command, os.getpid(), _user(), socket.gethostname(), datetime.now(UTC))


def read(backend: Path) -> list[Lock]:
    """Pulumi's locks in that backend's folder, held ones and left ones."""
    return [_read(path) for path in sorted((backend / ".pulumi" / "locks").rglob("*.json"))]


def release_dead(backend: Path, stack: str) -> None:
    """Remove the locks whose owners are gone.

    Raises:
        SwitchboardError: one is held; names its owner.
    """
    for lock in read(backend):
        if lock.held:
            raise held_by(stack, lock.owner)
        lock.path.unlink(missing_ok=True)


def held_by(stack: str, owner: str) -> SwitchboardError:
    """The error for who comes second."""
    return SwitchboardError(
        f"stack {stack} is locked by {owner}; nothing was changed",
        "wait until it ends, then run this again",
    )


def _read(path: Path) -> Lock:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        return Lock(path, "an unreadable lock", False)
    pid, host = found.get("pid"), str(found.get("hostname"))
    process = _owner(pid)
    command = _command(process) if process is not None else "pulumi"
    return Lock(
        path,
        words(
            command,
            pid if isinstance(pid, int) else None,
            str(found.get("username")),
            host,
            _moment(found.get("timestamp")),
        ),
        process is not None,
    )


def _owner(pid: object) -> psutil.Process | None:
    """The Pulumi of that pid, if one runs."""
    if not isinstance(pid, int):
        return None
    try:
        process = psutil.Process(pid)
        lives = process.status() != psutil.STATUS_ZOMBIE and _is_pulumi(process)
    except (ValueError, OverflowError, psutil.Error):
        return None
    return process if lives else None


def _is_pulumi(process: psutil.Process) -> bool:
    """By its name or by what it was called as: of another user's process only these can be read."""
    called = [process.name()]
    with contextlib.suppress(psutil.AccessDenied):
        called += [Path(word).name for word in process.cmdline()[:1]]
    return any(name.startswith("pulumi") for name in called)


def _moment(stamp: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(stamp))
        moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return moment


def _command(process: psutil.Process) -> str:
    try:
        program, *arguments = process.cmdline() or [process.name()]
    except psutil.Error:
        return "pulumi"
    text = shlex.join([Path(program).name, *arguments])
    return text if len(text) <= _COMMAND_LENGTH else f"{text[: _COMMAND_LENGTH - 1]}…"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
