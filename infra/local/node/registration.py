"""The node at the API server: its Node object, its Lease, its conditions.

The Lease is the heartbeat (every 10 s); the Node's status is written once a minute, and at once when it changes: the
disk fills up, or the control plane, which missed the heartbeat for a while, has set Ready to Unknown. Both are tried
again for as long as the agent lives; a Node that somebody deleted is registered anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra.local.layout import NodeLayout
from infra.local.node.context import Context, boot_id
from infra.local.node.records import parse_time, show_time
from switchboard import labels
from switchboard.informer import Informer, Key
from switchboard.kube import LEASES, NODES, ApiError, Object, Unreachable

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_DISK_PRESSURE_SHARE = 0.03
_DISK_RELIEF_SHARE = 0.05
_KUBERNETES_VERSION = "v1.37.2"


def node_labels(node: NodeLayout) -> dict[str, str]:
    found = {
        labels.HOSTNAME: node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        labels.REGION: node.region,
        labels.TIER: node.node.tier,
        labels.SITE: node.site,
    }
    if node.node.zone:
        found[labels.ZONE] = node.node.zone
    return found


def node_object(node: NodeLayout) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node_labels(node)},
        "spec": {"providerID": f"switchboard://{node.site}/{node.name}"},
    }


def disk_pressure(free_share: float, before: bool) -> bool:
    """Whether the disk is nearly full; once it was, only some more room ends that, so that it doesn't flap."""
    return free_share < (_DISK_RELIEF_SHARE if before else _DISK_PRESSURE_SHARE)


def renew_time(now: datetime, last: datetime | None) -> datetime:
    """The Lease's next `renewTime`: it never goes back, though the machine's clock may.

    The control plane takes a renewTime that isn't later than the one before for no sign of life.
    """
    return now if last is None or now > last else last + timedelta(microseconds=1)


def _conditions(full: bool, since: dict[str, tuple[str, str]], now: str) -> list[Object]:
    wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        (
            "DiskPressure",
            "True" if full else "False",
            "KubeletHasDiskPressure" if full else "KubeletHasNoDiskPressure",
            "the disk of the state folder is nearly full" if full else "kubelet has no disk pressure",
        ),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    found = []
    for kind, flag, reason, message in wanted:
        if since.get(kind, ("", ""))[0] != flag:
            since[kind] = (flag, now)
        found.append(
            {
                "type": kind,
                "status": flag,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since[kind][1],
            }
        )
    return found


def node_status(
    node: NodeLayout, allocatable: dict[str, str], conditions: list[Object], port: int, machine_id: str
) -> Object:
    """The status that a kubelet reports. CPU and memory are what the stack file says, not what the machine has."""
    return {
        "capacity": allocatable,
        "allocatable": allocatable,
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": str(node.ip)},
            {"type": "Hostname", "address": node.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],  # so that exec and port-forward come as WebSockets
        "nodeInfo": {
            "architecture": node_labels(node)["kubernetes.io/arch"],
            "bootID": boot_id(),
            "containerRuntimeVersion": "switchboard://0.1.0",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": _KUBERNETES_VERSION,
            "machineID": machine_id,
            "operatingSystem": "linux",
            "osImage": "Switchboard embedded node",
            "systemUUID": machine_id,
        },
    }


class Registration:
    """Keeps the Node and its Lease at the API server; `registered` is set once the Node is there.

    `on_back` is called when the API server answers again after it didn't.
    """

    def __init__(self, context: Context, on_back: Callable[[], None] = lambda: None) -> None:
        self._context = context
        self._on_back = on_back
        self._since: dict[str, tuple[str, str]] = {}
        self._sent: dict[str, str] = {}
        self._full = False
        self._renewed: datetime | None = None
        self._look = asyncio.Event()
        self.registered = asyncio.Event()
        self.node: Object | None = None

    async def run(self) -> None:
        """Until cancelled."""
        name = self._context.node.name
        own = Informer(
            self._context.kube, NODES, field_selector=f"metadata.name={name}", on_change=self._node_changed
        )
        async with asyncio.TaskGroup() as tasks:
            for work in (self._keep_node(), self._keep_lease(), own.run()):
                tasks.create_task(work)

    def _node_changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        """Somebody else changed the Node: what this agent knows better is reported again, at once."""
        if new is None or (self.node is not None and new["metadata"]["uid"] != self.node["metadata"]["uid"]):
            self.registered.clear()
            self._look.set()
        elif self._sent:
            have = {c["type"]: c["status"] for c in (new.get("status") or {}).get("conditions") or []}
            if foreign := {kind for kind, flag in self._sent.items() if have.get(kind) != flag}:
                for kind in foreign:
                    self._since.pop(kind, None)
                self._sent = {}
                self._look.set()

    async def _keep_node(self) -> None:
        settings, failures, report_at = self._context.settings, 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            self._look.clear()
            full = disk_pressure(self._disk_free_share(), self._full)
            try:
                if not self.registered.is_set():
                    await self._register()
                if full != self._full or not self._sent or loop.time() >= report_at:
                    await self._report(full)
                    report_at = loop.time() + settings.status_period_s
                if not self.registered.is_set():
                    log.info("node %s is registered", self._context.node.name)
                    self.registered.set()
                failures = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(settings.disk_check_s):
                        await self._look.wait()
            except (ApiError, Unreachable) as error:
                self._sent = {}
                if isinstance(error, ApiError) and error.not_found:
                    self.registered.clear()
                if failures == 0:
                    log.warning("node %s can't report: %s", self._context.node.name, error)
                failures += 1
                await asyncio.sleep(min(5.0, 0.1 * 2 ** min(failures, 6)))

    async def _register(self) -> None:
        kube, body = self._context.kube, node_object(self._context.node)
        try:
            self.node = await kube.create(NODES, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            self.node = await kube.get(NODES, self._context.node.name)
            have = self.node["metadata"].get("labels") or {}
            wanted = node_labels(self._context.node)
            if any(have.get(key) != value for key, value in wanted.items()):
                self.node = await kube.patch(NODES, self._context.node.name, {"metadata": {"labels": wanted}})
        for condition in (self.node.get("status") or {}).get("conditions") or []:
            self._since.setdefault(condition["type"], (condition["status"], condition["lastTransitionTime"]))
        self.node.setdefault("kind", "Node")

    def _disk_free_share(self) -> float:
        try:
            usage = shutil.disk_usage(self._context.checkpoint.directory)
        except OSError as error:
            log.error("the disk of the state folder can't be looked at: %s", error)
            return 0.0
        return usage.free / usage.total

    async def _report(self, full: bool) -> None:
        context = self._context
        conditions = _conditions(full, self._since, show_time(self._context.now()))
        body = node_status(context.node, context.allocatable, conditions, context.kubelet_port, machine_id())
        await context.kube.patch(
            NODES, context.node.name, {"status": body}, patch_type="strategic", subresource="status"
        )
        if full != self._full:
            (log.warning if full else log.info)(
                "the disk of the state folder is %snearly full", "" if full else "not "
            )
        self._full = full
        self._sent = {condition["type"]: condition["status"] for condition in conditions}

    async def _keep_lease(self) -> None:
        period_s, failures = self._context.settings.lease_period_s, 0
        await self.registered.wait()
        while True:
            try:
                await self._renew()
                if failures:
                    self._on_back()
                failures = 0
                await asyncio.sleep(period_s)
            except (ApiError, Unreachable) as error:
                if failures == 0:
                    log.warning("node %s can't renew its lease: %s", self._context.node.name, error)
                failures += 1
                await asyncio.sleep(min(period_s, 0.2 * 2 ** min(failures, 5)))

    async def _renew(self) -> None:
        name = self._context.node.name
        if self._renewed is None and (
            seen := await self._context.kube.get_or_none(LEASES, name, _LEASE_NAMESPACE)
        ):
            self._renewed = parse_time(
                (seen.get("spec") or {}).get("renewTime") or show_time(self._context.now())
            )
        self._renewed = renew_time(self._context.now(), self._renewed)
        spec: Object = {
            "holderIdentity": name,
            "leaseDurationSeconds": self._context.settings.lease_duration_s,
            "renewTime": self._renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._context.kube.patch(LEASES, name, {"spec": spec}, _LEASE_NAMESPACE)
        except ApiError as error:
            if not error.not_found:
                raise
            meta: dict[str, Any] = {"name": name, "namespace": _LEASE_NAMESPACE}
            if self.node is not None:
                meta["ownerReferences"] = [
                    {
                        "apiVersion": "v1",
                        "kind": "Node",
                        "name": name,
                        "uid": self.node["metadata"]["uid"],
                    }
                ]
            await self._context.kube.create(LEASES, {"metadata": meta, "spec": spec})


def machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename
