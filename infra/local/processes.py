"""Long-running processes that outlive the command that started them, and records by which they are found again.

Each process has a session of its own, a log file and a record (JSON: pid, start time, command, digest of its
environment). A pid alone proves nothing, since it is used again: a record is alive only if the process of that pid
started at that time in this boot. Every process carries the path of its record in its environment
(`SWITCHBOARD_RECORD`, inherited by its children), so that one whose record was lost is still found and never
mistaken for somebody else's. Linux only (/proc, pidfd).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from switchboard.errors import SwitchboardError

MARK = "SWITCHBOARD_RECORD"
LOG_LIMIT_BYTES = 10 * 1024 * 1024

Address = tuple[str, int]


@dataclass(frozen=True)
class Program:
    """What to run.

    `fingerprint` stands for all that it reads at its start (a change means a restart); `restart_signal` ends it for
    a restart, where that differs from an end for good.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    record: Path
    listens: tuple[Address, ...] = ()
    fingerprint: str = ""
    restart_signal: signal.Signals = signal.SIGTERM

    @property
    def digest(self) -> str:
        """Of everything but the command line."""
        parts = [sorted(self.env.items()), str(self.cwd), self.fingerprint]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Record(BaseModel):
    """A process that was started."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    pid: int
    started_ticks: int
    boot_id: str
    argv: tuple[str, ...]
    digest: str

    def fits(self, program: Program) -> bool:
        return self.argv == program.argv and self.digest == program.digest


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Those that this process started: they must be reaped if they end while it lives."""


@functools.cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_ticks(pid: int) -> int | None:
    """When the process started, in ticks since boot; None where it is gone (or a zombie)."""
    if (child := _children.get(pid)) is not None and child.poll() is not None:
        del _children[pid]
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def alive(record: Record) -> bool:
    return record.boot_id == boot_id() and started_ticks(record.pid) == record.started_ticks


def read(path: Path) -> Record | None:
    """The record in that file; None where there is none, or half of one."""
    try:
        return Record.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


def find(program: Program) -> Record | None:
    """The running process of that program, also where its record was lost between start and writing."""
    record = read(program.record)
    if record is not None and alive(record):
        return record
    for pid in marked(program.record):
        if (found := _describe(pid, program)) is not None:
            _write(program.record, found)
            return found
    return None


def start(program: Program) -> Record:
    """Start it, detached; its output goes to its log.

    Raises:
        SwitchboardError: the program can't be executed.
    """
    program.log.parent.mkdir(parents=True, exist_ok=True)
    program.record.parent.mkdir(parents=True, exist_ok=True)
    _rotate(program.log)
    with program.log.open("ab") as log:
        try:
            child = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=program.cwd,
                env={**program.env, MARK: str(program.record)},
                start_new_session=True,
            )
        except OSError as error:
            raise SwitchboardError(
                f"can't start {program.name}: {program.argv[0]}: {error.strerror}"
            ) from None
    _children[child.pid] = child
    _yield_as_we_do(child.pid)
    record = Record(
        name=program.name,
        pid=child.pid,
        started_ticks=started_ticks(child.pid) or 0,
        boot_id=boot_id(),
        argv=program.argv,
        digest=program.digest,
    )
    _write(program.record, record)
    return record


def _yield_as_we_do(pid: int) -> None:
    """Under `nice`, it takes what others leave, as it should: the kernel shares processors among sessions first, all of
    them equal (sched(7), "The autogroup feature"), and this is one of its own."""
    if niceness := os.getpriority(os.PRIO_PROCESS, 0):
        with contextlib.suppress(OSError):  # a kernel without it, or one that asks for more than we may give
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def ensure(program: Program, *, grace_s: float = 10.0) -> tuple[Record, bool]:
    """The program's process, started now (True) unless one that fits runs; one that doesn't fit is stopped."""
    stop_unfit(program, grace_s=grace_s)
    record = find(program)
    if record is None:
        return start(program), True
    wake(record)
    return record, False


def is_stopped(record: Record) -> bool:
    """Was it stopped by a signal (SIGSTOP, a debugger)? It holds its place and answers nobody then."""
    try:
        stat = Path(f"/proc/{record.pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] in "Tt"


def wake(record: Record) -> None:
    """Let a process that was stopped by a signal go on."""
    if is_stopped(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGCONT)


def stop_unfit(program: Program, *, grace_s: float = 10.0) -> None:
    """Stop the program's process if it runs with other arguments, environment or files than it would now."""
    record = find(program)
    if record is not None and not record.fits(program):
        end(record.pid, record.started_ticks, grace_s=grace_s, first=program.restart_signal)
        program.record.unlink(missing_ok=True)


def stop(path: Path, record: Record | None = None, *, grace_s: float = 10.0) -> bool:
    """TERM, wait, KILL after `grace_s`; then the record is removed. False where it didn't run."""
    record = record or read(path)
    ran = record is not None and alive(record) and end(record.pid, record.started_ticks, grace_s=grace_s)
    path.unlink(missing_ok=True)
    return ran


def end(pid: int, ticks: int, *, grace_s: float = 10.0, first: signal.Signals = signal.SIGTERM) -> bool:
    """End the process of that pid and start time: TERM, and KILL where it is still there after `grace_s`."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if (
            started_ticks(pid) != ticks
        ):  # asked after the pidfd is held, so it can't become another's meanwhile
            return False
        for number, wait_s in ((first, grace_s), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if _gone(handle, wait_s):
                break
        started_ticks(pid)  # reaps it where it is our child
        return True
    finally:
        os.close(handle)


def _gone(handle: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def marked(below: Path) -> Iterator[int]:
    """Pids of the processes whose record is that file, or any file below that folder (children inherit it)."""
    return (pid for pid, mark in all_marked() if mark == below or below in mark.parents)


def all_marked() -> Iterator[tuple[int, Path]]:
    """Pids of the processes of all stacks on this machine, with the records that their environments name."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        for item in environ.split(b"\0"):
            if item.startswith(f"{MARK}=".encode()) and started_ticks(int(entry.name)) is not None:
                yield int(entry.name), Path(os.fsdecode(item[len(MARK) + 1 :]))


def _describe(pid: int, program: Program) -> Record | None:
    """A record of a process of that very command line; its digest is unknown, so it fits nothing and is restarted."""
    try:
        argv = tuple(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0"))
    except OSError:
        return None
    ticks = started_ticks(pid)
    if argv != program.argv or ticks is None:
        return None
    return Record(
        name=program.name, pid=pid, started_ticks=ticks, boot_id=boot_id(), argv=argv, digest="unknown"
    )


def check_addresses(programs: Iterable[Program], patience_s: float = 3.0) -> None:
    """See that nobody else holds an address that one of the programs will listen on.

    A process that was just killed is gone before all of its threads are, and holds its sockets for a moment yet,
    unseen: one that can't be seen is waited for, for `patience_s` altogether.

    Raises:
        SwitchboardError: names the address, who holds it and what to do.
    """
    deadline = time.monotonic() + patience_s
    for program in programs:
        own = find(program)
        for host, port in program.listens:
            pid, who = None, ""
            while not (free := _free(host, port)):
                pid, who = holder(host, port)
                if pid is not None or time.monotonic() >= deadline:
                    break
                time.sleep(0.05)
            if free or (own is not None and pid == own.pid):
                continue
            raise SwitchboardError(
                f"{host}:{port}, where {program.name} is to listen, is in use by {who}",
                f"stop it{f' (kill {pid})' if pid else ''}, or give the site other ranges in the stack file",
            )


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(host: str, port: int) -> tuple[int | None, str]:
    """Who listens on an address, or on that port of all addresses: the pid where it is known, and in words."""
    for found in psutil.net_connections(kind="tcp"):
        if found.status != psutil.CONN_LISTEN or not found.laddr or found.laddr.port != port:
            continue
        if found.laddr.ip in (host, "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            if found.pid is None:
                return None, "a process of another user"
            with contextlib.suppress(psutil.Error):
                command = " ".join(psutil.Process(found.pid).cmdline())
                return found.pid, f"pid {found.pid} ({command[:100]})"
            return found.pid, f"pid {found.pid}"
    return None, "a process that can't be seen from here"


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:])


def _rotate(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _write(path: Path, record: Record) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(record.model_dump_json())
    temporary.replace(path)
