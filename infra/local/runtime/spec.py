"""What a container is: the values that go into the runtime and come out of it, and the errors it raises.

They are plain values without behaviour. `ContainerSpec` holds everything that the runtime needs; whoever fills it
(the node agent) has resolved the image, the environment, the volumes and the identity already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Phase = Literal["created", "running", "exited"]


@dataclass(frozen=True)
class Image:
    """What runs in place of an image: host paths shown read-only, and the image's defaults.

    `binds` maps a path on the host to its place in the container. `links` are symbolic links (place, target).
    `user` is the uid that runs where the pod names none (its gid is the same).
    """

    reference: str
    binds: tuple[tuple[Path, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    user: int = 0


@dataclass(frozen=True)
class Mount:
    """A host file or folder (`source`, which must exist) bound at the absolute path `target`."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Limits:
    """Ceilings of a container; None is no ceiling. `cpu_request_cores` is its share when cores are contended."""

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    pids: int | None = None
    cpu_request_cores: float | None = None


@dataclass(frozen=True)
class ContainerSpec:
    """One run of one container.

    `id` is unique in the runtime's folder and safe as a file name: `<pod uid>_<container>_<restart count>`.
    `argv` is the whole command (entrypoint and arguments); its first word is looked up on the PATH of `env`, which
    is laid over the image's own. `working_dir` is made if it is missing. `cgroup` is a relative path such as
    `switchboard/<stack>/<site>/<node>/<pod uid>/<container>`. `tmpfs` are further places for an empty writable
    file system in memory; /tmp and /dev/shm always are.
    `stdin` keeps its standard input open for whoever joins it (`stdin_once`: until the first one leaves); else it
    reads /dev/null. With `tty` its three streams are a terminal.
    """

    id: str
    image: Image
    argv: tuple[str, ...]
    log_path: Path
    cgroup: str
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    uid: int = 0
    gid: int = 0
    supplemental_groups: tuple[int, ...] = ()
    hostname: str = "localhost"
    mounts: tuple[Mount, ...] = ()
    read_only_root: bool = False
    limits: Limits = Limits()
    tmpfs: tuple[str, ...] = ()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


@dataclass(frozen=True)
class ExitStatus:
    """How a run ended. `exit_code` is 128 + `signal` where a signal ended it, as the kubelet shows it.

    `reason` is empty unless the runtime knows more than the code says (say, that the shim was killed).
    """

    exit_code: int
    signal: int | None
    oom_killed: bool
    started_at: datetime
    finished_at: datetime
    reason: str = ""
    log_lines_dropped: int = 0


@dataclass(frozen=True)
class ContainerState:
    """Where a container stands; `pid` is its first process as the host numbers it (None before it runs)."""

    id: str
    phase: Phase
    pid: int | None
    started_at: datetime | None
    exit: ExitStatus | None


@dataclass(frozen=True)
class ExecResult:
    """The end of a command run inside a container; `output` is stdout and stderr as they came, cut at 1 MiB.

    `exit_code` is 126 for what can't be executed, 127 for what isn't there (`output` says why), 128 + the signal for
    what a signal ended.
    """

    exit_code: int
    output: bytes
    timed_out: bool = False

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")


@dataclass(frozen=True)
class Stats:
    """What a container has used (CPU, since its start) and uses (its working set of memory)."""

    cpu_seconds: float
    memory_bytes: int


class StartError(Exception):
    """A container that can't be started. `reason` is the kubelet's word for it.

    `CreateContainerConfigError`: the spec asks for what can't be had here (an identity, a volume that isn't there);
    `RunContainerError`: the root could not be made or the program could not be executed.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class UnknownImage(Exception):
    """An image that the table doesn't know, or whose program isn't there; for a pod it is `ErrImagePull`."""

    def __init__(self, reference: str, known: tuple[str, ...], why: str | None = None) -> None:
        super().__init__(why or f"no image {reference!r} here: the embedded cloud knows {', '.join(known)}")
        self.reference = reference
        self.known = known


class NoSuchContainer(KeyError):
    """The runtime's folder holds no container of this id, or it isn't running where it has to be."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
