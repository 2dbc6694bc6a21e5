"""A container's folder: what the agent wrote about it, what its shim wrote, and whether the shim lives.

spec.json    written by the runtime before the start: identity, variables (so 0600), cgroups
state.json   written by the shim, always by rename: created, running, exited
lock         locked by the shim for as long as it lives; so nothing here depends on a pid being still the same
root/        the empty folder where the container's namespace mounts its root; on the host it stays empty
shim.log     what the shim had to say, empty unless something is wrong with the runtime itself
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.local.runtime.cgroups import Placement
from infra.local.runtime.spec import ContainerSpec, ContainerState, ExitStatus, Phase

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Record:
    """What `spec.json` holds."""

    id: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    env: dict[str, str]
    working_dir: str
    rootless: bool
    cgroup: str
    placement: Placement

    @classmethod
    def of(cls, spec: ContainerSpec, env: dict[str, str], rootless: bool, placement: Placement) -> Record:
        groups = tuple(sorted(set(spec.supplemental_groups)))
        return cls(
            spec.id, spec.uid, spec.gid, groups, env, spec.working_dir, rootless, spec.cgroup, placement
        )


class Folder:
    """One container's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        return self.path.name

    def write_record(self, record: Record) -> None:
        body = {**record.__dict__, "placement": record.placement.to_json()}
        temporary = self.path / "spec.next"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(body))
        temporary.replace(self.path / "spec.json")

    def read_record(self) -> Record | None:
        try:
            body = json.loads((self.path / "spec.json").read_text())
            placement = Placement.from_json(body.pop("placement"))
            body["groups"] = tuple(body["groups"])
            return Record(**body, placement=placement)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read_raw(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def lock(self) -> int:
        """Take the lock for a shim that is about to start; the descriptor is to be passed on to it."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def shim_lives(self) -> bool:
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def open_shim(self) -> int | None:
        """A pidfd of the living shim, or None if there is none."""
        shim = self.read_raw().get("shim", 0)
        if not shim:
            return None
        try:
            pidfd = os.pidfd_open(shim)
        except OSError:
            return None
        if self.shim_lives():  # after opening: then the number still meant the shim
            return pidfd
        os.close(pidfd)
        return None

    def open_program(self) -> int | None:
        """A pidfd of the running container's PID 1, or None."""
        raw = self.read_raw()
        if raw.get("phase") != "running":
            return None
        try:
            pidfd = os.pidfd_open(raw["pid"])
        except OSError:
            return None
        if ended(pidfd):
            os.close(pidfd)
            return None
        # The shim reaps nobody before its own end, so while it lives the number is this container's. Without a
        # shim, the time at which the process started tells.
        if self.shim_lives() or start_ticks(raw["pid"]) == raw["pid_start"]:
            return pidfd
        os.close(pidfd)
        return None

    def mark_lost(self, reason: str) -> ContainerState:
        """Write the end of a container whose shim could not do it any more (on a full disk it's told, not kept)."""
        raw = self.read_raw()
        now_ns = int(datetime.now(UTC).timestamp() * _NS_PER_S)
        raw.setdefault("started_ns", now_ns)
        raw |= {"phase": "exited", "exit_code": 137, "signal": 9, "oom_killed": False, "finished_ns": now_ns}
        raw |= {"log_lines_dropped": 0, "reason": reason}
        temporary = self.path / "state.lost"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(raw))
            temporary.replace(self.path / "state.json")
        return state_of(self.id, raw)

    def state(self) -> ContainerState:
        return state_of(self.id, self.read_raw())

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def state_of(container: str, raw: dict[str, Any]) -> ContainerState:
    """The shim's words as a value."""
    phase: Phase = raw.get("phase", "created")
    pid = raw.get("pid") or None
    if phase == "created":
        return ContainerState(container, phase, None, None, None)
    started_at = _time(raw["started_ns"])
    if phase == "running":
        return ContainerState(container, phase, pid, started_at, None)
    ended = ExitStatus(
        exit_code=raw["exit_code"],
        signal=raw["signal"] or None,
        oom_killed=raw["oom_killed"],
        started_at=started_at,
        finished_at=_time(raw["finished_ns"]),
        reason=raw["reason"],
        log_lines_dropped=raw["log_lines_dropped"],
    )
    return ContainerState(container, phase, pid, started_at, ended)


def ended(pidfd: int) -> bool:
    """Whether a process has ended, be it reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / _NS_PER_S, UTC)
