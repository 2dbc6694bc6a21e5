"""Is something left of a cloud that is gone: processes whose state was deleted, mounts, control groups?

Clouds of other stacks and checkouts that run are nobody's leftovers; they are named, since they take memory and cores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.doctor.report import Finding, ok, warning
from infra.local import leftovers, processes
from infra.local.leftovers import Mount
from infra.local.runtime import cgroups
from switchboard import paths

_SHOWN = 4
_STATE = re.compile(r"^(?P<state>/.+)/sites/[^/]+/nodes/")
"""A mount of a pod's, in the state folder of its stack."""


@dataclass(frozen=True)
class Marked:
    """A process that some cloud started: the record that its environment names."""

    pid: int
    record: Path
    record_folder_exists: bool

    @property
    def state(self) -> Path | None:
        """The state folder of its stack."""
        parts = self.record.parts
        if "sites" in parts:
            return Path(*parts[: parts.index("sites")])
        return self.record.parent.parent if self.record.parent.name == "run" else None


@dataclass(frozen=True)
class Group:
    """A stack's control group: `switchboard/<stack>` in some hierarchy."""

    path: Path
    stack: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What is on the machine that clouds leave; `own` is the state folder of the stack in question, `lines` what is
    left of that stack where nothing of it should run (None: it runs)."""

    own: Path
    marked: tuple[Marked, ...]
    mounts: tuple[Path, ...]
    groups: tuple[Group, ...]
    lines: tuple[str, ...] | None = None


def judge(facts: Facts) -> list[Finding]:
    """One finding for this stack, one for the rest of the machine."""
    return [_own(facts), _others(facts)]


def _own(facts: Facts) -> Finding:
    check = "leftovers/this stack"
    if facts.lines:
        return warning(
            check,
            f"no agent runs, but there {'is' if len(facts.lines) == 1 else 'are'} {_some(facts.lines)}",
            f"`make up` takes pods over, `switchboard down --stack {facts.own.name}` ends and removes all of it",
        )
    return ok(check, "nothing is left over")


def _others(facts: Facts) -> Finding:
    check = "leftovers/other clouds"
    dead = [each for each in facts.marked if not each.record_folder_exists]
    living = {each.state for each in facts.marked if each.record_folder_exists and each.state} - {facts.own}
    mounts = [each for each in facts.mounts if _state_of(each) not in {*living, facts.own}]
    names = {state.name for state in living} | {facts.own.name}
    groups = [each for each in facts.groups if each.stack not in names]
    pids = sorted({each.pid for each in dead} | {pid for group in groups for pid in group.pids})
    told = [f"process {pid}" for pid in pids]
    told += [f"mount {each}" for each in mounts] + [f"control group {each.path}" for each in groups]
    if told:
        steps = [f"`kill {' '.join(map(str, pids))}`"] if pids else []
        steps += [f"`umount {' '.join(map(str, mounts))}`"] if mounts else []
        steps += [f"`find {group.path} -depth -type d -exec rmdir {{}} +`" for group in groups]
        return warning(check, f"of clouds that are gone: {_some(told)}", "; ".join(steps))
    if living:
        return ok(check, f"running: {', '.join(sorted(map(str, living)))}")
    return ok(check, "none")


def _state_of(mount: Path) -> Path | None:
    found = _STATE.match(f"{mount}/")
    return Path(found["state"]) if found else None


def _some(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ", ".join(lines[:_SHOWN]) + more


# --- gathering -------------------------------------------------------------------------------------------


def look(stack_name: str, *, running: bool) -> Facts:
    """One pass over the process table, the mounts and the control groups."""
    own = paths.state_dir(stack_name)
    mounts = leftovers.parse_mounts(Path("/proc/self/mountinfo").read_text())
    return Facts(
        own,
        tuple(_marked()),
        tuple(pods_mounts(mounts)),
        tuple(_groups()),
        None if running or not own.exists() else tuple(leftovers.find(own, stack_name)),
    )


def pods_mounts(mounts: Iterable[Mount]) -> list[Path]:
    """Those that lie in a node's folder of some stack."""
    return [each.point for each in mounts if _state_of(each.point) is not None]


def _marked() -> Iterable[Marked]:
    for pid, record in processes.all_marked():
        yield Marked(pid, record, record.parent.exists())


def _groups() -> Iterable[Group]:
    seen = set()
    for hierarchy in cgroups.hierarchies():
        for base in hierarchy.bases():
            top = base / "switchboard"
            for path in sorted(top.iterdir()) if top.is_dir() else ():
                if path.is_dir() and path not in seen:
                    seen.add(path)
                    yield Group(path, path.name, tuple(sorted(_pids(path))))


def _pids(group: Path) -> set[int]:
    found: set[int] = set()
    for folder, _, files in os.walk(group):
        if "cgroup.procs" in files:
            try:
                found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
            except OSError:  # it went meanwhile
                continue
    return found
