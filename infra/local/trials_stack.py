"""The stack of the trials (`infra.local.trials`): one embedded site with two nodes, a Deployment and a StatefulSet.

It has loopback ranges of its own and a temporary folder that goes with it; nothing else is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.local import cloud, leftovers, processes
from infra.local.layout import SiteLayout
from infra.local.runtime.record import Folder
from switchboard.errors import SwitchboardError
from switchboard.kube import (
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
    ApiError,
    Credentials,
    Kube,
    Object,
    Unreachable,
)
from switchboard.progress import Progress

STACK = "trials"
SITE = "private"
NODES_NAMED = ("node-1", "node-2")
PATIENCE_S = 180.0
_NETWORKS = range(200, 240)
_NAMESPACE = "default"
_COUNTING = "trap 'exit 0' TERM; echo $HOSTNAME >> /data/log; while :; do sleep 0.2; done"
_PODS = 4
"""Of the Deployment 3, of the StatefulSet 1."""


@dataclass
class Trial:
    """A running stack, and what was found out about it."""

    layout: SiteLayout
    progress: Progress
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        """Note whether a promise holds."""
        self.progress.note(f"  {'✓' if holds else '✗'} {what}")
        if not holds:
            self.failures.append(what)

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > patience_s:
                self.check(False, f"{what} (not within {patience_s:.0f} s)")
                return
            time.sleep(0.5)
        self.check(True, f"{what} ({time.monotonic() - began:.1f} s)")

    def list(self, kind: Any, namespace: str | None = _NAMESPACE) -> list[Object]:
        """Objects of a kind; none while the API server doesn't answer."""

        async def work() -> list[Object]:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                return await kube.list(kind, namespace)

        try:
            return asyncio.run(work())
        except (ApiError, Unreachable):
            return []

    def create(self, kind: Any, body: Object) -> None:
        async def work() -> None:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                await kube.create(kind, body, _NAMESPACE)

        asyncio.run(work())

    def delete(self, pod: str) -> None:
        async def work() -> None:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                await kube.delete(PODS, pod, _NAMESPACE)

        asyncio.run(work())
        self.until(lambda: pod not in self.pods(), f"pod {pod} is deleted")

    def pods(self) -> dict[str, Object]:
        return {pod["metadata"]["name"]: pod for pod in self.list(PODS)}

    def ready(self) -> bool:
        """All pods and nodes ready, and as many as there have to be?"""
        pods, nodes = self.list(PODS), self.list(NODES, None)
        return len(pods) == _PODS and len(nodes) == 2 and all(is_ready(found) for found in (*pods, *nodes))

    def pids(self) -> dict[str, int]:
        """The first process of each running container, by pod uid."""
        found = {}
        for folder in _containers(self.layout):
            state = folder.state()
            if state.phase == "running" and state.pid is not None and folder.shim_lives():
                found[folder.id.split("_")[0]] = state.pid
        return found

    def kill(self, name: str) -> None:
        record = processes.read(self.layout.run / f"{name}.json")
        if record is not None:
            processes.end(record.pid, record.started_ticks, first=signal.SIGKILL)

    def runs(self, name: str) -> bool:
        record = processes.read(self.layout.run / f"{name}.json")
        return record is not None and processes.alive(record)

    def lines(self) -> int:
        """How often the StatefulSet's pod began, as it wrote to its volume."""
        logs = [log.read_text() for node in self.layout.nodes for log in node.volumes_dir.glob("*/log")]
        return sum(text.count("db-0\n") for text in logs)

    def identity(self) -> tuple[str, ...]:
        """Of the StatefulSet's pod and its claim: uids, volume, address."""
        pod = self.pods().get("db-0", {"metadata": {"uid": "none"}, "status": {}})
        (claim,) = self.list(PERSISTENT_VOLUME_CLAIMS)
        return (
            pod["metadata"]["uid"],
            claim["metadata"]["uid"],
            claim["spec"]["volumeName"],
            pod["status"].get("podIP", ""),
        )


def is_ready(obj: Object) -> bool:
    """Is a pod or a node ready?"""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _containers(layout: SiteLayout) -> list[Folder]:
    return [
        Folder(path)
        for runtime in leftovers.runtimes_of(layout.directory)
        for path in sorted(runtime.iterdir())
    ]


def sleeping_pod(name: str) -> Object:
    """A pod that does nothing."""
    container = {"name": "main", "image": "debian:bookworm", "command": ["sleep", "inf"]}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def _objects() -> list[tuple[Any, Object]]:
    idle = {"metadata": {"labels": {"app": "idle"}}, "spec": sleeping_pod("idle")["spec"]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    counting = {
        "name": "main",
        "image": "debian:bookworm",
        "command": ["sh", "-c", _COUNTING],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    db = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [counting], "terminationGracePeriodSeconds": 2},
    }
    return [
        (
            DEPLOYMENTS,
            {
                "metadata": {"name": "idle"},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "idle"}}, "template": idle},
            },
        ),
        (
            STATEFUL_SETS,
            {
                "metadata": {"name": "db"},
                "spec": {
                    "serviceName": "db",
                    "selector": {"matchLabels": {"app": "db"}},
                    "template": db,
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
                },
            },
        ),
    ]


def _free_networks(count: int) -> list[str]:
    """Loopback /16 networks in which nobody listens at the control plane's or a Service's place."""
    found = []
    for number in _NETWORKS:
        with socket.socket() as probe:
            if probe.connect_ex((f"127.{number}.0.1", 6443)) != 0:
                found.append(f"127.{number}.0.0/16")
        if len(found) == count:
            return found
    raise SwitchboardError(f"no {count} free loopback networks", "stop clouds that you don't need")


def stack_document() -> Object:
    """A stack with one site that may be started, on loopback networks that are free."""
    networks = _free_networks(4)
    sites = [
        {
            "name": name,
            "role": role,
            "region": "cn-shanghai",
            "embedded": {
                "network": network,
                "services": services,
                "nodes": [{"name": node, "zone": f"zone-{node}"} for node in NODES_NAMED],
            },
        }
        # A stack has a public site too; this one is never started.
        for (name, role), (network, services) in zip(
            ((SITE, "private"), ("public", "public")),
            zip(networks[::2], networks[1::2], strict=True),
            strict=True,
        )
    ]
    images = {
        "switchboard": "switchboard.dev/switchboard:0.1.0",
        "envoy": "envoyproxy/envoy:v1.40.0",
        "prometheus": "prom/prometheus:v3.13.0",
        "alertmanager": "prom/alertmanager:v0.25.0",
    }
    return {
        "config": {
            "switchboard:sites": sites,
            "switchboard:images": images,
            "switchboard:modelServers": [
                {"name": "chat", "model": "chat-intent", "dataRegions": ["cn-shanghai"]}
            ],
        }
    }


@contextlib.contextmanager
def running(progress: Progress) -> Iterator[Trial]:
    """The trials' stack, up and with pods; everything of it goes afterwards."""
    root = Path(tempfile.mkdtemp(prefix="switchboard-trials-"))
    file = root / f"Pulumi.{STACK}.yaml"
    file.write_text(yaml.safe_dump(stack_document()))
    os.environ |= {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}
    try:
        cloud.up(STACK, progress, sites=[SITE])
        trial = Trial(cloud.layouts(STACK)[0], progress)
        for kind, body in _objects():
            trial.create(kind, body)
        trial.until(trial.ready, "pods and nodes are ready")
        yield trial
    finally:
        cloud.clean(STACK, progress)
        shutil.rmtree(root)
