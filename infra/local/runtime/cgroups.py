"""Limits and accounting of a container by control groups, v1 or v2, whichever the machine has.

A container's group is made below the group of the caller where that can be (so that enclosing limits hold), else
nearer to the root of the hierarchy. What may not be done is not done and is named in `Placement.unenforced`: a
container runs without limits rather than not at all. Groups that were made are removed again, with the empty ones
above them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.local.runtime.spec import Limits, Stats

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
_V2_CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: its controllers, where it is mounted, and the caller's own group in it."""

    version: int
    controllers: tuple[str, ...]
    mount_point: Path
    own: Path

    def bases(self) -> Iterator[Path]:
        """Where a group may be made, the best place first: the own group, then those above it."""
        place = self.own
        while place != self.mount_point and self.mount_point in place.parents:
            yield place
            place = place.parent
        yield self.mount_point


@dataclass(frozen=True)
class Placement:
    """Where a container's groups are: controller → folder, the folders they were made below, what isn't enforced."""

    directories: dict[str, str] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    unenforced: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Placement:
        return cls(value["directories"], value["bases"], tuple(value["unenforced"]))

    @property
    def folders(self) -> list[Path]:
        return [Path(folder) for folder in dict.fromkeys(self.directories.values())]

    @property
    def join_files(self) -> list[str]:
        """Where a process of one thread writes "0" to join.

        In v1 that is `tasks`: the kernel moves a lone thread without waiting for a grace period, as `cgroup.procs`
        would (10-15 ms each time).
        """
        tasks = [(folder / "tasks", folder / "cgroup.procs") for folder in self.folders]
        return [str(v1 if v1.exists() else v2) for v1, v2 in tasks]

    @property
    def oom_file(self) -> str:
        """The file with the counter `oom_kill N`; empty where there is none."""
        if (folder := self.directories.get("memory")) is None:
            return ""
        v2 = Path(folder, "memory.events")
        return str(v2 if v2.exists() else Path(folder, "memory.oom_control"))

    def processes(self) -> set[int]:
        """Who is in it, as the caller's PID namespace numbers them."""
        found: set[int] = set()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
        return found


def parse_hierarchies(mountinfo: str, own_cgroups: str) -> list[Hierarchy]:
    """The hierarchies that /proc/self/mountinfo and /proc/self/cgroup speak of, the controllers v1 holds first."""
    own: dict[str, str] = {}
    for line in own_cgroups.splitlines():
        _, held, path = line.split(":", 2)
        for name in held.split(","):
            own[name] = path  # v2 has the empty name
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        names = [name for name in options.split(",") if name in CONTROLLERS]
        if kind == "cgroup" and names:
            found.append(_hierarchy(1, tuple(names), root, mount_point, own.get(names[0], "/")))
        elif kind == "cgroup2":
            found.append(_hierarchy(2, (), root, mount_point, own.get("", "/")))
    return sorted(found, key=lambda hierarchy: hierarchy.version)


def _hierarchy(version: int, names: tuple[str, ...], root: str, mount_point: str, own: str) -> Hierarchy:
    # In a container only a part of the hierarchy is mounted: `root` is what the mount point stands for.
    inside = os.path.relpath(own, root)
    point = Path(mount_point)
    outside = inside.startswith("..") or own.startswith("/..")  # of the cgroup namespace
    return Hierarchy(version, names, point, point if outside else point / inside)


def hierarchies() -> list[Hierarchy]:
    """Those of this machine; a v2 hierarchy with the controllers that it has and v1 doesn't hold."""
    found = parse_hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    taken = {name for hierarchy in found for name in hierarchy.controllers}
    complete = []
    for hierarchy in found:
        if hierarchy.version == 2:
            available = _read(hierarchy.mount_point / "cgroup.controllers").split()
            names = tuple(name for name in _V2_CONTROLLERS if name in available and name not in taken)
            hierarchy = Hierarchy(2, names, hierarchy.mount_point, hierarchy.own)
        if hierarchy.controllers:
            complete.append(hierarchy)
    return complete


def settings(version: int, controller: str, limits: Limits) -> list[tuple[str, str, bool]]:
    """The files to write for a controller, in order: (name, value, whether it may be missing)."""
    shares = None if limits.cpu_request_cores is None else max(2, round(limits.cpu_request_cores * 1024))
    quota = None
    if limits.cpu_cores is not None:
        quota = max(_MIN_QUOTA_US, round(limits.cpu_cores * _PERIOD_US))
    memory, pids = limits.memory_bytes, limits.pids
    found: list[tuple[str, str, bool]] = []
    if controller == "memory" and memory is not None:
        if version == 1:
            found += [("memory.limit_in_bytes", str(memory), False)]
            found += [("memory.memsw.limit_in_bytes", str(memory), True)]
        else:
            found += [("memory.max", str(memory), False), ("memory.swap.max", "0", True)]
            found += [("memory.oom.group", "1", True)]
    if controller == "cpu" and quota is not None:
        if version == 1:
            found += [("cpu.cfs_period_us", str(_PERIOD_US), False), ("cpu.cfs_quota_us", str(quota), False)]
        else:
            found += [("cpu.max", f"{quota} {_PERIOD_US}", False)]
    if controller == "cpu" and shares is not None:
        # The kubelet's formula from shares (2 … 262144) to a v2 weight (1 … 10000).
        weight = 1 + ((min(shares, 262_144) - 2) * 9999) // 262_142
        found += [("cpu.shares", str(shares), True) if version == 1 else ("cpu.weight", str(weight), True)]
    if controller == "pids" and pids is not None:
        found += [("pids.max", str(pids), False)]
    return found


def create(relative: str, limits: Limits, found: list[Hierarchy] | None = None) -> Placement:
    """Make a fresh group and set its limits. A group that still holds processes is an OSError (EBUSY)."""
    directories: dict[str, str] = {}
    bases: dict[str, str] = {}
    unenforced: list[str] = []
    found = hierarchies() if found is None else found
    for hierarchy in found:
        made = _make(hierarchy, relative)
        for controller in hierarchy.controllers:
            if made is None or (made[2] is not None and controller not in made[2]):
                unenforced += [name for name, _, _ in settings(hierarchy.version, controller, limits)]
                continue
            folder, base, _ = made
            directories[controller], bases[controller] = str(folder), str(base)
            unenforced += _apply(folder, settings(hierarchy.version, controller, limits))
    wanted = {"memory": limits.memory_bytes, "cpu": limits.cpu_cores, "pids": limits.pids}
    known = {name for hierarchy in found for name in hierarchy.controllers}
    unenforced += [name for name, value in wanted.items() if value is not None and name not in known]
    return Placement(directories, bases, tuple(unenforced))


def _make(hierarchy: Hierarchy, relative: str) -> tuple[Path, Path, set[str] | None] | None:
    """(folder, base, controllers enabled or None for all); None where no group can be made."""
    best: tuple[int, Path] | None = None
    for base in hierarchy.bases():
        if not os.access(base, os.W_OK):
            continue
        count = len(hierarchy.controllers)
        if hierarchy.version == 2:
            count = len(_enable(base, hierarchy.controllers))
        if best is None or count > best[0]:
            best = (count, base)
        if count == len(hierarchy.controllers):
            break
    if best is None or best[0] == 0:
        return None
    base = best[1]
    try:
        folder = _make_fresh(base, relative, hierarchy)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise
        return None
    if hierarchy.version == 1:
        return folder, base, None
    return folder, base, set(_read(folder / "cgroup.controllers").split())


def _make_fresh(base: Path, relative: str, hierarchy: Hierarchy) -> Path:
    folder = base / relative
    for attempt in range(5):
        try:
            place = base
            for part in Path(relative).parts[:-1]:
                place = place / part
                place.mkdir(exist_ok=True)
                if hierarchy.version == 2:
                    _enable(place, hierarchy.controllers)
            if folder.exists():
                _rmdir(folder)  # counters begin at zero in every run
            folder.mkdir()
            return folder
        except FileNotFoundError:  # another agent removed an empty parent at this moment
            if attempt == 4:
                raise
    return folder


def _enable(folder: Path, controllers: tuple[str, ...]) -> set[str]:
    """Pass v2 controllers on to the groups below; those that are passed on."""
    control = folder / "cgroup.subtree_control"
    enabled = set(_read(control).split())
    for name in controllers:
        if name not in enabled:
            # EBUSY: the group has processes of its own, and then it can't.
            with contextlib.suppress(OSError):
                control.write_text(f"+{name}")
                enabled.add(name)
    return enabled & set(controllers)


def _apply(folder: Path, values: list[tuple[str, str, bool]]) -> list[str]:
    failed = []
    for name, value, optional in values:
        path = folder / name
        if optional and not path.exists():
            continue
        try:
            path.write_text(value)
        except OSError:
            failed.append(name)
    return failed


def stats(placement: Placement) -> Stats | None:
    """CPU time and working set (usage less inactive file cache, as the kubelet counts); None without groups."""
    memory = placement.directories.get("memory")
    if memory is None:
        return None
    if "cpuacct" in placement.directories:
        cpu_s = int(Path(placement.directories["cpuacct"], "cpuacct.usage").read_text()) / _NS_PER_S
    elif "cpu" in placement.directories:
        cpu_s = int(_field(Path(placement.directories["cpu"], "cpu.stat"), "usage_usec")) / 1_000_000
    else:
        return None
    usage, inactive_file = Path(memory, "memory.current"), "inactive_file"
    if not usage.exists():
        usage, inactive_file = Path(memory, "memory.usage_in_bytes"), "total_inactive_file"
    used, inactive = int(usage.read_text()), int(_field(Path(memory, "memory.stat"), inactive_file))
    return Stats(cpu_s, max(0, used - inactive))


def kill(placement: Placement) -> None:
    """SIGKILL whoever is in it."""
    for pid in placement.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove(placement: Placement) -> list[Path]:
    """Remove the groups and the empty ones above, up to where they were made below; what would not go."""
    left = []
    for controller, folder in placement.directories.items():
        place, base = Path(folder), Path(placement.bases[controller])
        try:
            _rmdir(place)
        except OSError:
            left.append(place)
            continue
        while (place := place.parent) != base and base in place.parents:
            try:
                place.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # others live in it
                break
    return list(dict.fromkeys(left))


def _rmdir(folder: Path) -> None:
    """Remove one group; the kernel may need a moment to let go of processes that have just ended."""
    for attempt in range(20):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == 19:
                raise
            time.sleep(0.01)


def _field(path: Path, name: str) -> str:
    return next((line.split()[1] for line in _read(path).splitlines() if line.startswith(name + " ")), "0")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
