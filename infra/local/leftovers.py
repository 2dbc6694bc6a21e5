"""What may be left of an embedded stack when it is down: processes, mounts and control groups, found and removed.

Found by what only Switchboard gives its own: the mark in a process's environment (`processes.MARK`), the records of
the container runtimes, a mount point below the state folder, the group `switchboard/<stack>`. A shell or an editor
that merely stands in the state folder is nobody's leftover.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from infra.local import processes, runtime
from infra.local.runtime import cgroups

MNT_DETACH = 2
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Process:
    pid: int
    started_ticks: int
    command: str


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo, as far as it is needed here."""

    point: Path
    filesystem: str


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The mounts of a mountinfo file, in its order (a later one may lie on an earlier one)."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        mounts.append(Mount(Path(_unescape(fields[4])), after.split()[0]))
    return mounts


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below the folder, the last mounted first."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    return [m.point for m in reversed(mounts) if m.point == directory or directory in m.point.parents]


def processes_of(directory: Path) -> list[Process]:
    """Processes that were started for the stack or site whose state is in that folder."""
    found = []
    for pid in set(processes.marked(directory)) - {os.getpid()}:
        ticks = processes.started_ticks(pid)
        if ticks is not None:
            found.append(Process(pid, ticks, _command(pid)))
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()[:120]
    return "?"


def cgroups_of(stack: str, below: str = "") -> list[Path]:
    """The control groups `switchboard/<stack>[/below]` wherever the runtime may have made them, innermost first."""
    tops = {base / "switchboard" / stack / below for found in cgroups.hierarchies() for base in found.bases()}
    found = [Path(path) for top in tops for path, _, _ in os.walk(top)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def runtimes_of(directory: Path) -> list[Path]:
    """The container runtimes' folders of the nodes below a stack's, a site's or a node's folder.

    Their records are how a container's shim is found: it has neither the mark nor the folder in its command.
    """
    return sorted(
        path for above in ("sites/*/nodes/*/", "nodes/*/", "") for path in directory.glob(f"{above}runtime")
    )


def remove(directory: Path, stack: str, site: str = "") -> list[str]:
    """Remove what is left of a stack, or of one of its sites; returns a line for each thing that would not go.

    Processes are ended (TERM, then KILL), containers killed, mounts detached, empty control groups removed. A group
    with somebody in it stays: another checkout may have a stack of that name.
    """
    for process in processes_of(directory):
        processes.end(process.pid, process.started_ticks, grace_s=3)
    for folder in runtimes_of(directory):
        asyncio.run(runtime.cleanup(folder))
    for point in mounts_below(directory):
        detach(point)
    for group in _with_parents(cgroups_of(stack, site)):
        with contextlib.suppress(OSError):
            group.rmdir()
    return find(directory, stack, site)


def _with_parents(groups: list[Path]) -> list[Path]:
    """The groups, and after them those above up to `switchboard`, which go where they have become empty."""
    above = {parent for group in groups for parent in group.parents if "switchboard" in parent.parts}
    return groups + sorted(above - set(groups), key=lambda path: len(path.parts), reverse=True)


def find(directory: Path, stack: str, site: str = "") -> list[str]:
    """A line for each thing that is left; none where the stack or site is really down."""
    lines = [f"process {p.pid} ({p.command})" for p in processes_of(directory)]
    lines += [line for folder in runtimes_of(directory) for line in runtime.leftovers(folder)]
    lines += [f"mount {point}" for point in mounts_below(directory)]
    lines += [f"control group {group}" for group in cgroups_of(stack, site)]
    return lines


def detach(point: Path) -> bool:
    """Unmount, at once or as soon as nobody uses it; False where that is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.umount2(os.fsencode(point), MNT_DETACH) == 0
