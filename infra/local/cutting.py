"""A node cut off from its cluster: what its processes send arrives at nobody but themselves, and their customers.

All sites of this machine share one loopback device, where a packet's addresses don't say who sent it. Its sender's
cgroup does (`net_cls`): the agent and all containers of a node are put into one of their own, and the kernel's packet
filter drops what comes from there. Their own pods are reached, and those that ask at their customers' port are
answered: a customer of an edge is on its side of the cut.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from infra.local.runtime.packages import library_folders
from infra.local.toolchain import debian, locks, lookup
from infra.local.toolchain.running import Runner
from switchboard import paths
from switchboard.errors import SwitchboardError

CUSTOMERS_PORT: Final = 8080
PACKAGE: Final = "nftables"
TIMEOUT_S: Final = 20.0
_MAJOR: Final = 0x5B
"""Of class ids: net_cls numbers nobody else's (tc counts from 1)."""


def rules(table: str, class_id: int, own: Sequence[str], port: int = CUSTOMERS_PORT) -> str:
    """What the packet filter is told; `own` are the addresses of the node and of its pods."""
    addresses = ", ".join(sorted(own))
    return f"""table inet {table} {{
  chain output {{
    type filter hook output priority 0; policy accept;
    meta cgroup != {class_id:#x} accept
    ip daddr {{ {addresses} }} accept
    ip saddr {{ {addresses} }} tcp sport {port} accept
    drop
  }}
}}
"""


@contextlib.contextmanager
def cut(node: str, pids: Iterable[int], own: Sequence[str]) -> Iterator[None]:
    """While it is entered, nothing of these processes, and of those that they start, leaves the node.

    Raises:
        SwitchboardError: this machine has no means for it, or this user may not.
    """
    number = zlib.crc32(node.encode()) & 0xFFFF or 1
    table, class_id = f"switchboard_cut_{number:04x}", _MAJOR << 16 | number
    filter_ = _Filter()
    with _classes() as root:
        group = root / f"switchboard-cut-{number:04x}"
        group.mkdir(exist_ok=True)
        try:
            (group / "net_cls.classid").write_text(str(class_id))
            for pid in pids:
                _join(group, pid)
            filter_.run("", f"add table inet {table}\ndelete table inet {table}\n")  # of one that was killed
            filter_.run(f"cutting {node} off", rules(table, class_id, own))
            try:
                yield
            finally:
                filter_.run(f"connecting {node} again", f"delete table inet {table}\n")
        finally:
            while members := (group / "cgroup.procs").read_text().split():
                for member in members:
                    _join(root, int(member))
            group.rmdir()


def _join(group: Path, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(pid))


@contextlib.contextmanager
def _classes() -> Iterator[Path]:
    """The hierarchy of network classes, wherever this machine has it."""
    with tempfile.TemporaryDirectory(prefix="switchboard-net-cls-") as folder:
        said = ""
        for options in ("net_cls", "net_cls,net_prio"):
            command = ["mount", "-t", "cgroup", "-o", options, "none", folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            if done.returncode == 0:
                break
            said = done.stderr.strip()
        else:
            raise SwitchboardError(
                f"a node can't be cut off here: {said or 'the kernel has no net_cls'}",
                "it takes root and a kernel with the cgroup controller net_cls",
            )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], capture_output=True, timeout=TIMEOUT_S, check=False)


class _Filter:
    """nft: the machine's, or Debian's package in the cache."""

    def __init__(self) -> None:
        found = shutil.which("nft", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
        self._environ = dict(os.environ)
        if found is None:
            root = _fetched()
            found = str(root / "usr" / "sbin" / "nft")
            self._environ["LD_LIBRARY_PATH"] = os.pathsep.join(str(root / one) for one in library_folders())
        self._program = found

    def run(self, what: str, text: str) -> None:
        done = subprocess.run(
            [self._program, "-f", "-"],
            input=text,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[:300]
            raise SwitchboardError(f"{what or 'the packet filter'}: {said}", "it takes root and nf_tables")


def _fetched() -> Path:
    target = lookup.tools_dir() / f"{PACKAGE}-{platform.machine()}"
    runner = Runner()
    lock = lookup.tools_dir() / ".locks" / "apt.lock"
    with locks.held(lock, waiting=lambda holder: None, cancelled=runner.check):
        if target.is_dir():
            return target
        staging = target.with_name(f".{target.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        log = paths.cache_dir() / "logs" / f"{PACKAGE}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        apt = lookup.tools_dir() / ".apt"
        debian.make_root([PACKAGE], staging, apt, log, runner, lambda text: None)
        staging.rename(target)
    return target
