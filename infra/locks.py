"""Who is at work on a stack: Pulumi's own locks, and the words by which the stack's lock names its holder.

A self-managed backend keeps a file for each running Pulumi, and a killed one leaves it behind. A pid alone may be
another's by now, after a restart of the machine for one, so an owner lives only if it is a Pulumi of this host that was
started before the lock was written.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from switchboard.errors import SwitchboardError

CLOCK_TOLERANCE_S = 2.0
"""A process's start is known to a second or so: it is counted from the boot, whose time is in whole seconds."""
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
    since = _moment(found.get("timestamp"))
    process = _owner(found, since)
    command = _command(process) if process is not None else "pulumi"
    return Lock(
        path,
        words(command, pid if isinstance(pid, int) else None, str(found.get("username")), host, since),
        process is not None,
    )


def _owner(found: Mapping[str, object], since: datetime | None) -> psutil.Process | None:
    """The process that wrote a lock, if it still runs."""
    pid = found.get("pid")
    if not isinstance(pid, int) or since is None or found.get("hostname") != socket.gethostname():
        return None
    try:
        process = psutil.Process(pid)
        lives = (
            process.status() != psutil.STATUS_ZOMBIE
            and process.name().startswith("pulumi")
            and process.create_time() <= since.timestamp() + CLOCK_TOLERANCE_S
        )
    except (ValueError, OverflowError, psutil.Error):
        return None
    return process if lives else None


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
