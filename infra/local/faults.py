"""Faults of the embedded cloud, caused in its real processes: each lasts while it is entered, and is mended after it.

A killed process is somebody else's to start anew: the node's agent a container's, the site's supervisor its own. What
is frozen keeps its sockets and answers nobody, as a machine that hangs or is lost to the network; what is slowed has
less processor time than it asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local import processes
from infra.local.layout import NodeLayout, SiteLayout
from infra.local.node.agent import runtime_dir
from infra.local.node.container_spec import parse_run_id
from infra.local.runtime import cgroups
from infra.local.runtime.cgroups import Placement
from infra.local.runtime.record import Folder
from infra.local.runtime.spec import Limits
from switchboard.errors import SwitchboardError

LEAST_CPU_M = 1
STOPPED_S = 5.0
FILL_TRIES, FILL_STEP = 64, 1 << 20
"""A limit on memory is set to what is taken, or to so many bytes more, until the kernel takes it."""


@dataclass(frozen=True)
class Container:
    """One that runs: whose it is, where it is, and its first process."""

    pod_uid: str
    name: str
    pid: int
    placement: Placement

    def processes(self) -> set[int]:
        """All of it, the first one too where there are no cgroups."""
        return self.placement.processes() or {self.pid}


def containers(runtime: Path, pod_uid: str | None = None) -> list[Container]:
    """Those that run, of all that a node's runtime keeps (`runtime_dir`), or of one pod."""
    found = []
    for path in sorted(runtime.iterdir()) if runtime.is_dir() else []:
        folder = Folder(path)
        with contextlib.suppress(ValueError):
            uid, name, _ = parse_run_id(folder.id)
            record, raw = folder.read_record(), folder.read_raw()
            if record is None or raw.get("phase") != "running" or pod_uid not in (None, uid):
                continue
            if (handle := folder.open_program()) is not None:
                os.close(handle)
                found.append(Container(uid, name, int(raw["pid"]), record.placement))
    return found


def kill(those: Iterable[Container]) -> int:
    """SIGKILL to all their processes; how many containers that were."""
    killed = 0
    for one in those:
        killed += 1
        _signal(one.processes(), signal.SIGKILL)
    return killed


@contextlib.contextmanager
def frozen(those: Iterable[Container], own: Iterable[int] = ()) -> Iterator[None]:
    """Stopped, until the end: containers, and processes of the cloud's own."""
    held = {pid for one in those for pid in one.processes()} | set(own)
    try:
        _signal(held, signal.SIGSTOP)
        _wait_until(lambda: all(_state(pid) in "TtZX" for pid in held))
        yield
    finally:
        _signal(held, signal.SIGCONT)


@contextlib.contextmanager
def slowed(those: Iterable[Container], cpu_m: int) -> Iterator[None]:
    """With so many thousandths of a core each, until the end.

    Raises:
        SwitchboardError: there is no such number, or no cgroup that would see to it.
    """
    if cpu_m < LEAST_CPU_M:
        raise SwitchboardError(f"{cpu_m}m of processor time can't be: it must be {LEAST_CPU_M}m at least")
    with contextlib.ExitStack() as stack:
        for one in those:
            stack.enter_context(_changed(*_quota(_cgroup(one, "cpu", "processor time"), cpu_m)))
        yield


@contextlib.contextmanager
def filled(those: Iterable[Container]) -> Iterator[None]:
    """With no more memory than they have taken, until the end: the next that they ask for is too much.

    Raises:
        SwitchboardError: there is no cgroup that would see to it.
    """
    with contextlib.ExitStack() as stack:
        for one in those:
            folder = _cgroup(one, "memory", "memory")
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            taken = int(stat["total_rss"] if "total_rss" in stat else stat["anon"])  # v1, v2
            limits = (str(taken + more * FILL_STEP) for more in range(FILL_TRIES))
            stack.enter_context(_changed(_memory_file(folder), *limits))
        yield


@contextlib.contextmanager
def lost(site: SiteLayout, node: NodeLayout) -> Iterator[None]:
    """A machine that nobody hears of: its agent and all its containers stand still, until the end."""
    # The agent first: it starts nothing more.
    with frozen((), agent_of(site, node)), frozen(containers(runtime_dir(node))):
        yield


def agent_of(site: SiteLayout, node: NodeLayout) -> list[int]:
    """The process of a node's agent, if it runs."""
    agent = processes.read(site.run / f"node-{node.name}.json")
    return [agent.pid] if agent is not None and processes.alive(agent) else []


def program(site: SiteLayout, name: str) -> processes.Record:
    """A process of a site's own: one of its control plane, its Service proxy, or a node's agent.

    Raises:
        SwitchboardError: there is none of that name that runs.
    """
    records = {file.stem: processes.read(file) for file in sorted(site.run.glob("*.json"))}
    running = {
        key: record for key, record in records.items() if record is not None and processes.alive(record)
    }
    if name not in running:
        raise SwitchboardError(
            f"no process {name} runs in the site {site.name}", f"there are {', '.join(running) or 'none'}"
        )
    return running[name]


def _cgroup(one: Container, controller: str, what: str) -> Path:
    folder = one.placement.directories.get(controller)
    if folder is None:
        raise SwitchboardError(f"the container {one.name} has no cgroup for {what}")
    return Path(folder)


def _memory_file(folder: Path) -> Path:
    """The file that says how much memory there may be."""
    version = 2 if (folder / "memory.max").exists() else 1
    return folder / cgroups.settings(version, "memory", Limits(memory_bytes=1))[0][0]


def _quota(folder: Path, cpu_m: int) -> tuple[Path, str]:
    """The file that says how much processor time there is, and what it is to say."""
    version = 2 if (folder / "cpu.max").exists() else 1
    name, value, _ = cgroups.settings(version, "cpu", Limits(cpu_cores=cpu_m / 1000))[
        -1
    ]  # the period is before it
    return folder / name, value


@contextlib.contextmanager
def _changed(file: Path, *texts: str) -> Iterator[None]:
    """With the first of these that the kernel takes: it can't take so much memory back at once as a limit may say."""
    before = file.read_text().strip()
    try:
        for number, text in enumerate(texts, 1):
            try:
                file.write_text(text)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or number == len(texts):
                    raise
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # its container has ended meanwhile
            file.write_text(before)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _wait_until(holds: Callable[[], bool]) -> None:
    """The kernel needs a moment for each thread; for as long as that, not for ever."""
    deadline = time.monotonic() + STOPPED_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.002)


def _signal(those: Iterable[int], number: int) -> None:
    for pid in those:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
