"""What the pods of a node share: the node itself, its connections, and what it gives out."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from infra.local.layout import API_PORT, KUBELET_PORT, NodeLayout, SiteLayout
from infra.local.node.checkpoint import Checkpoint
from infra.local.node.environment import service_env
from infra.local.node.image_fetches import Fetches
from infra.local.node.ips import Addresses
from infra.local.node.lifecycle import BackOff
from infra.local.node.objects import Objects
from infra.local.node.records import Moment
from infra.local.runtime import Runtime
from switchboard.events import Events
from switchboard.kube import Kube, Object

PODS_CAPACITY = 110


def boot_id() -> str:
    """This boot of the machine: what was in memory before another one is gone."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Settings:
    """What may differ from one agent to the next (tests make it shorter)."""

    back_off: BackOff = field(default_factory=BackOff)
    refresh_s: float = 20.0
    """How often mounted config maps, secrets and tokens are looked at."""
    status_period_s: float = 60.0
    disk_check_s: float = 10.0
    """How often the disk is looked at: for the node's DiskPressure, and for what pods keep in their volumes there."""
    lease_period_s: float = 10.0
    lease_duration_s: int = 40
    sync_wait_s: float = 5.0
    """How long a starting agent waits for the API server before it starts its pods from the checkpoint."""
    bind_check_s: float = 10.0
    concurrent_starts: int = 4


@dataclass
class Context:
    """The node as its pods' workers see it."""

    stack: str
    site: SiteLayout
    node: NodeLayout
    kube: Kube
    runtime: Runtime
    checkpoint: Checkpoint
    objects: Objects
    events: Events
    addresses: Addresses
    names: Callable[[], dict[str, str]]
    services: Callable[[], Iterable[Object]] = tuple
    """All Services of the site, as last seen."""
    settings: Settings = Settings()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The machine's clock, which somebody may put right at any time: waits are by the event loop's instead."""
    boot: str = field(default_factory=boot_id)
    fetches: Fetches = field(default_factory=Fetches)
    starts: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.starts = asyncio.Semaphore(self.settings.concurrent_starts)

    @property
    def host_ip(self) -> str:
        return str(self.node.ip)

    @property
    def allocatable(self) -> dict[str, str]:
        """What the node has for pods. A disk that can't be looked at is left out: what was reported before stays."""
        found = {
            "cpu": self.node.node.cpu,
            "memory": self.node.node.memory,
            "pods": str(PODS_CAPACITY),
        }
        # Of the disk that the pods are on; the machine's nodes share it, so each of them states all of it.
        with contextlib.suppress(OSError):  # `Registration` says so, and calls the disk full
            found["ephemeral-storage"] = f"{shutil.disk_usage(self.checkpoint.directory).total // 1024}Ki"
        return found

    @property
    def service_env(self) -> dict[str, str]:
        # The API server itself, not the Service before it: pods need no proxy for it, nor somebody who may bind 443.
        return service_env(str(self.site.control_plane_ip), API_PORT)

    @property
    def kubelet_port(self) -> int:
        return KUBELET_PORT

    def clock(self) -> Moment:
        """The time by a clock that goes on while the machine sleeps, and that nobody puts right."""
        return Moment(boot=self.boot, at_s=time.clock_gettime(time.CLOCK_BOOTTIME))

    def cgroup(self, pod_uid: str, container: str) -> str:
        return f"switchboard/{self.stack}/{self.site.name}/{self.node.name}/{pod_uid}/{container}"
