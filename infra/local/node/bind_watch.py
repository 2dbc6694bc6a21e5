"""Finds programs that listen on all addresses, and names them.

All pods of a machine share its network, each with a loopback address of its own; a program that binds 0.0.0.0 takes
its port from every other pod. A program has to bind `status.podIP`; one that doesn't gets a Warning Event.

Reading the table of sockets is cheap and done seldom; only when a listener on all addresses is there that wasn't
before are the pods' processes searched for its owner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTEN = "0A"
_ANY = {"0" * 8, "0" * 32}


def listeners_on_all(table: str) -> dict[int, int]:
    """From the text of /proc/net/tcp or tcp6: inode → port of each socket that listens on every address."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            if address in _ANY:
                found[int(fields[9])] = int(port, 16)
    return found


def read_listeners(proc: Path = Path("/proc")) -> dict[int, int]:
    found: dict[int, int] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found |= listeners_on_all((proc / "self" / "net" / name).read_text())
    return found


def _namespace(pid: int | str, proc: Path) -> str | None:
    try:
        return str((proc / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None


def _sockets(pid: str, proc: Path) -> Iterator[int]:
    try:
        descriptors = list((proc / pid / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError, ValueError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield int(target[8:-1])


def owners(inodes: Iterable[int], pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, int]:
    """Which container holds which of these sockets: inode → first pid of the container (its PID namespace's)."""
    wanted = set(inodes)
    by_namespace = {ns: pid for pid in pids if (ns := _namespace(pid, proc)) is not None}
    by_namespace.pop(_namespace("self", proc) or "", None)
    found: dict[int, int] = {}
    for entry in proc.iterdir():
        if (
            entry.name.isdigit()
            and (first := by_namespace.get(_namespace(entry.name, proc) or "")) is not None
        ):
            found |= {inode: first for inode in _sockets(entry.name, proc) if inode in wanted}
    return found
