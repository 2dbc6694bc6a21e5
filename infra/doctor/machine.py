"""Is the machine fit for the stack? Facts by `look`, judgements by `judge`, which reads nothing itself.

What only the embedded cloud needs (namespaces, control groups, loopback addresses, ports) isn't asked for a stack of
existing clusters.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import psutil

from infra.doctor.report import Finding, failed, ok, skipped, warning
from infra.local import ports, processes
from infra.local.bootstrap import LOCK
from infra.local.layout import SiteLayout
from infra.local.runtime import cgroups
from switchboard import paths

GIB = 1024**3
MIB = 1024**2

MEMORY_OF_A_CLOUD = int(2.5 * GIB)
"""An idle embedded cloud of two sites."""
MEMORY_LOW, DISK_LOW, DISK_WANTED = 256 * MIB, 1 * GIB, 5 * GIB
INODES_LOW, INODES_WANTED = 10_000, 100_000
OPEN_FILES_WANTED = 4096
INOTIFY_WANTED = 64
"""Every Envoy and every agent has one or two."""
CLOCK_TOLERANCE_S = 24 * 3600.0


@dataclass(frozen=True)
class Room:
    """The room at a place that is written to. `inodes` is None on file systems that make them as needed."""

    what: str
    place: Path
    free_bytes: int
    free_inodes: int | None
    writable: bool


@dataclass(frozen=True)
class Hierarchy:
    """A hierarchy of control groups: may groups be made in it?"""

    version: int
    controllers: tuple[str, ...]
    writable: bool


@dataclass(frozen=True)
class Facts:
    """The machine as it is now; empty strings where nothing is wrong. `taken` is None where it wasn't asked."""

    system: str
    release: str
    python: tuple[int, int]
    no_namespaces: str
    hierarchies: tuple[Hierarchy, ...]
    cores: float
    memory_bytes: int
    available_bytes: int
    rooms: tuple[Room, ...]
    open_files: tuple[int, int]
    inotify_instances: int | None
    no_loopback: str
    taken: tuple[ports.Taken, ...] | None
    now_s: float
    newest_s: float
    newest: str
    random: bool
    embedded: bool = True
    running: bool = False
    loopback_networks: tuple[str, ...] = field(default=())


def judge(facts: Facts) -> list[Finding]:
    """One finding a check, in the order in which a person would ask."""
    general = [
        _system(facts),
        _cores(facts),
        _memory(facts),
        *(_room(room) for room in facts.rooms),
        _open_files(facts),
        _clock(facts),
        _random(facts),
    ]
    if not facts.embedded or facts.system != "Linux":
        return general
    return [*general, _namespaces(facts), _cgroups(facts), _inotify(facts), _loopback(facts), _ports(facts)]


def _system(facts: Facts) -> Finding:
    words = f"{facts.system} {facts.release}, Python {facts.python[0]}.{facts.python[1]}"
    if facts.embedded and facts.system != "Linux":
        return failed(
            "machine/system",
            f"{words}: the embedded cloud runs on Linux only",
            "use a stack of existing clusters, or a Linux machine",
        )
    return ok("machine/system", words)


def _cores(facts: Facts) -> Finding:
    words = f"{facts.cores:g} core{'s' if facts.cores != 1 else ''}"
    if facts.embedded and facts.cores < 2:
        return warning(
            "machine/cores", f"{words}: starts take several times as long", "give the machine 2 cores or more"
        )
    return ok("machine/cores", words)


def _memory(facts: Facts) -> Finding:
    words = f"{_size(facts.available_bytes)} of {_size(facts.memory_bytes)} available"
    if facts.available_bytes < MEMORY_LOW:
        return failed(
            "machine/memory",
            f"{words}: the kernel will soon kill processes",
            "end what isn't needed (`ps aux --sort=-rss | head`), or give the machine more",
        )
    if facts.embedded and not facts.running and facts.available_bytes < MEMORY_OF_A_CLOUD:
        return warning(
            "machine/memory",
            f"{words}: an idle cloud takes {_size(MEMORY_OF_A_CLOUD)}",
            "end what isn't needed, or give the machine more",
        )
    return ok("machine/memory", words)


def _room(room: Room) -> Finding:
    check = f"machine/disk/{room.what}"
    inodes = "" if room.free_inodes is None else f", {room.free_inodes:,} inodes"
    words = f"{_size(room.free_bytes)}{inodes} free at {room.place}"
    if not room.writable:
        return failed(
            check,
            f"{room.place} can't be written",
            f"make it writable for this user: `ls -ld {room.place}`, `mount`",
        )
    few = room.free_inodes is not None and room.free_inodes < INODES_LOW
    if room.free_bytes < DISK_LOW or few:
        return failed(
            check,
            words,
            "make room: `go clean -cache` frees Go's, `docker system prune` or `du -xh` show the rest",
        )
    if room.free_bytes < DISK_WANTED or (room.free_inodes is not None and room.free_inodes < INODES_WANTED):
        return warning(check, words, "make room before it is full: volumes, logs and etcd grow")
    return ok(check, words)


def _open_files(facts: Facts) -> Finding:
    soft, hard = facts.open_files
    if hard < OPEN_FILES_WANTED:
        return warning(
            "machine/open files",
            f"at most {hard} a process: a gateway under load needs more",
            f"raise it: `ulimit -Hn {OPEN_FILES_WANTED}` as root, or LimitNOFILE of the service or container",
        )
    return ok("machine/open files", f"{soft} a process, up to {hard}")


def _clock(facts: Facts) -> Finding:
    now = datetime.fromtimestamp(facts.now_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if facts.now_s + CLOCK_TOLERANCE_S < facts.newest_s:
        later = datetime.fromtimestamp(facts.newest_s, UTC).strftime("%Y-%m-%d")
        return failed(
            "machine/clock",
            f"it is {now}, and {facts.newest} is of {later}: the clock is behind",
            "set the clock (`timedatectl set-ntp true`): certificates and tokens are refused otherwise",
        )
    return ok("machine/clock", now)


def _random(facts: Facts) -> Finding:
    if not facts.random:
        return failed(
            "machine/random numbers",
            "the kernel's generator isn't seeded yet: making keys would wait for it",
            "wait a minute; on a virtual machine add a virtio-rng device",
        )
    return ok("machine/random numbers", "seeded")


def _namespaces(facts: Facts) -> Finding:
    if facts.no_namespaces:
        return failed(
            "machine/namespaces",
            f"pods can't have a root folder of their own: {facts.no_namespaces}",
            "run as root, or allow them: `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000`;"
            " in a container, give it CAP_SYS_ADMIN",
        )
    return ok("machine/namespaces", "mount namespaces can be made")


def _cgroups(facts: Facts) -> Finding:
    can = {name for each in facts.hierarchies if each.writable for name in each.controllers}
    versions = " and ".join(f"v{version}" for version in sorted({each.version for each in facts.hierarchies}))
    if lacking := [name for name in ("memory", "cpu") if name not in can]:
        return warning(
            "machine/control groups",
            f"{versions or 'none mounted'}: no limits of {' and '.join(lacking)} can be set, pods run without",
            "run as root, or have the groups delegated (`systemd-run --user --scope -p Delegate=yes`)",
        )
    return ok("machine/control groups", f"{versions}, with {', '.join(sorted(can))}")


def _inotify(facts: Facts) -> Finding:
    found = facts.inotify_instances
    if found is not None and found < INOTIFY_WANTED:
        return warning(
            "machine/inotify",
            f"{found} instances a user: each gateway needs one",
            "`sysctl fs.inotify.max_user_instances=512`",
        )
    return ok("machine/inotify", "not limited" if found is None else f"{found} instances a user")


def _loopback(facts: Facts) -> Finding:
    if facts.no_loopback:
        return failed(
            "machine/loopback",
            facts.no_loopback,
            "give the loopback interface all of 127.0.0.0/8: `ip addr add 127.0.0.1/8 dev lo; ip link set lo up`",
        )
    networks = ", ".join(facts.loopback_networks) or "127.0.0.0/8"
    return ok("machine/loopback", f"addresses of {networks} can be used")


def _ports(facts: Facts) -> Finding:
    if facts.taken is None:
        return skipped("machine/ports", "not looked at")
    if facts.taken:
        return failed("machine/ports", "; ".join(each.words for each in facts.taken), ports.mend(facts.taken))
    return ok("machine/ports", "nobody else is on the stack's addresses")


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"


# --- gathering -------------------------------------------------------------------------------------------


def look(stack_name: str, layouts: Sequence[SiteLayout], *, embedded: bool) -> Facts:
    """The machine's facts for a stack with those embedded sites. Changes nothing but for probes that it takes back."""
    newest_s, newest = _newest(stack_name)
    running = any(_runs(path) for layout in layouts for path in layout.run.glob("*.json"))
    linux = sys.platform.startswith("linux")
    total, available = _memory_of_this_group()
    networks = [net for layout in layouts for net in (layout.embedded.network, layout.embedded.services)]
    return Facts(
        system=platform.system(),
        release=platform.release(),
        python=sys.version_info[:2],
        no_namespaces=_no_namespaces() if embedded and linux else "",
        hierarchies=_hierarchies() if linux else (),
        cores=_cores_of_this_group(),
        memory_bytes=total,
        available_bytes=available,
        rooms=tuple(_rooms(stack_name)),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        inotify_instances=_number(Path("/proc/sys/fs/inotify/max_user_instances")),
        no_loopback=_no_loopback(networks),
        taken=_taken(layouts) if linux else None,
        now_s=time.time(),
        newest_s=newest_s,
        newest=newest,
        random=_random_is_ready(),
        embedded=embedded,
        running=running,
        loopback_networks=tuple(map(str, networks)),
    )


def _runs(path: Path) -> bool:
    record = processes.read(path)
    return record is not None and processes.alive(record)


def _taken(layouts: Sequence[SiteLayout]) -> tuple[ports.Taken, ...]:
    found = [each for layout in layouts for each in (*ports.shared(layout), *ports.own(layout))]
    return tuple(dict.fromkeys(found))


def _no_namespaces() -> str:
    """Why a container's namespaces can't be made, tried by a process of its own; empty where they can."""
    from infra.local.runtime import sandbox

    flags = sandbox.CLONE_NEWNS | sandbox.CLONE_NEWPID | (sandbox.CLONE_NEWUSER if os.geteuid() else 0)
    script = (
        "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "
        f"code = libc.unshare({flags}); print(os.strerror(ctypes.get_errno()) if code else '')"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()[-200:]


def _hierarchies() -> tuple[Hierarchy, ...]:
    return tuple(
        Hierarchy(found.version, found.controllers, any(os.access(base, os.W_OK) for base in found.bases()))
        for found in cgroups.hierarchies()
    )


def _cores_of_this_group() -> float:
    """Those that this process may use: its affinity, and the quota of its control group."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    words = _text(Path("/sys/fs/cgroup/cpu.max")).split()
    if len(words) == 2 and words[0].isdigit():
        return min(count, int(words[0]) / int(words[1]))
    quota = _number(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
    period = _number(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    return min(count, quota / period) if quota and period and quota > 0 else count


def _memory_of_this_group() -> tuple[int, int]:
    """(all, available) in bytes: the machine's, or what the control group of this container leaves."""
    memory = psutil.virtual_memory()
    for limit_file, usage_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit = _number(Path("/sys/fs/cgroup") / limit_file)
        usage = _number(Path("/sys/fs/cgroup") / usage_file)
        if limit is not None and usage is not None and limit < memory.total:
            # What is counted as used holds the page cache, which goes when it is needed.
            cache = _of_stat(Path("/sys/fs/cgroup") / Path(usage_file).with_name("memory.stat"))
            return limit, min(memory.available, limit - usage + cache)
    return memory.total, memory.available


def _of_stat(path: Path) -> int:
    """`inactive_file` of a memory.stat, in bytes."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _rooms(stack_name: str) -> list[Room]:
    places = {
        "state": paths.state_dir(stack_name),
        "tools": paths.cache_dir(),
        "temporary": Path(tempfile.gettempdir()),
    }
    return [_room_at(what, place) for what, place in places.items()]


def _room_at(what: str, place: Path) -> Room:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    usage, inodes = shutil.disk_usage(there), os.statvfs(there)
    return Room(
        what, there, usage.free, inodes.f_favail if inodes.f_files else None, os.access(there, os.W_OK)
    )


def _no_loopback(networks: Sequence[IPv4Network]) -> str:
    """Why an address of one of the networks can't be bound, tried at its last one but one (nobody has it)."""
    for network in networks or (IPv4Network("127.254.0.0/16"),):
        address = str(network.broadcast_address - 2)
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return f"{address} can't be used: {error.strerror}"
    return ""


def _newest(stack_name: str) -> tuple[float, str]:
    """The newest time that something here bears, and what: the clock can't be before it."""
    candidates = [paths.ROOT / LOCK, paths.ROOT / ".git" / "HEAD", paths.state_dir(stack_name)]
    times = [(path.stat().st_mtime, path) for path in candidates if path.exists()]
    found = max(times, default=(0.0, paths.ROOT))
    return found[0], found[1].name


def _random_is_ready() -> bool:
    if not hasattr(os, "getrandom"):
        return True
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return False
    return True


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
