"""Is an embedded site well? What each part answers, asked without changing anything.

The asking is apart from the bringing up (`infra.local.site`), which waits on the same conditions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from infra.local import controlplane, processes, supervisor
from infra.local.layout import API_PORT, KUBELET_PORT, SiteLayout
from infra.local.node import provisioner
from infra.local.proxy import report
from switchboard.errors import SwitchboardError
from switchboard.kube import (
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUMES,
    SERVICE_ACCOUNTS,
    ApiError,
    Credentials,
    Kind,
    Kube,
    Object,
    Unreachable,
)

TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Component:
    """A process of a site: `note` says what is wrong, or what there is to know."""

    name: str
    pid: int | None
    healthy: bool
    address: str
    note: str = ""


@dataclass(frozen=True)
class NodeHealth:
    """A node as the API server sees it; healthy when its condition Ready is true."""

    name: str
    healthy: bool
    tier: str
    region: str
    address: str
    note: str = ""


@dataclass(frozen=True)
class SiteHealth:
    """One site: healthy when all of its components are and all its nodes are ready."""

    name: str
    role: str
    region: str
    kubeconfig: Path
    components: tuple[Component, ...]
    nodes: tuple[NodeHealth, ...]

    @property
    def running(self) -> bool:
        """Does anything of it run?"""
        return any(component.pid is not None for component in self.components)

    @property
    def healthy(self) -> bool:
        return all(part.healthy for part in self.components) and all(node.healthy for node in self.nodes)


async def api_server_ready(kube: Kube) -> bool:
    """Does the API server take requests, its own role bindings in place?"""
    try:
        return await kube.request("GET", "/readyz", timeout_s=TIMEOUT_S) == "ok"
    except (ApiError, Unreachable):
        return False


async def controllers_work(layout: SiteLayout, kube: Kube) -> bool:
    """Are the controllers and the scheduler healthy, and has a pod what it needs (service account, the CA)?"""
    try:
        account = await kube.get_or_none(SERVICE_ACCOUNTS, "default", "default")
        root_ca = await kube.get_or_none(CONFIG_MAPS, "kube-root-ca.crt", "default")
    except (ApiError, Unreachable):
        return False
    if account is None or root_ca is None:
        return False
    answers = await asyncio.gather(*(healthz(layout, port) for port in _HEALTHZ.values()))
    return not any(answers)


_HEALTHZ = {
    controlplane.CONTROLLER_MANAGER: controlplane.CONTROLLER_MANAGER_PORT,
    controlplane.SCHEDULER: controlplane.SCHEDULER_PORT,
}


async def healthz(layout: SiteLayout, port: int) -> str:
    """What is wrong according to `/healthz` on the control plane's address; empty where all is well."""
    try:
        credentials = Credentials(
            server=f"https://{layout.control_plane_ip}:{port}", ca=layout.ca_cert.read_text()
        )
        async with Kube(credentials, timeout_s=TIMEOUT_S) as kube:
            answer = await kube.request("GET", "/healthz")
    except (ApiError, Unreachable, OSError) as error:
        return str(error)
    return "" if answer == "ok" else str(answer)[:200]


def node_is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def look(layout: SiteLayout) -> SiteHealth:
    """The site's health now; takes a few seconds at most, whatever is down."""
    ip = layout.control_plane_ip
    try:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig), timeout_s=TIMEOUT_S) as kube:
            api_note, nodes, volumes = await asyncio.gather(
                _api_note(kube), _list(kube, NODES), _list(kube, PERSISTENT_VOLUMES)
            )
    except SwitchboardError as error:
        api_note, nodes, volumes = str(error.what), [], []
    notes = dict(
        zip(_HEALTHZ, await asyncio.gather(*(healthz(layout, p) for p in _HEALTHZ.values())), strict=True)
    )
    ports = {
        controlplane.ETCD: controlplane.ETCD_PORT,
        controlplane.API_SERVER: API_PORT,
        **_HEALTHZ,
    }
    components = []
    for name, port in ports.items():
        note = api_note if name in (controlplane.ETCD, controlplane.API_SERVER) else notes[name]
        if name == controlplane.ETCD and "etcd" not in note:
            note = ""  # the API server's readiness says so where etcd doesn't answer
        components.append(_component(layout, name, f"{ip}:{port}", note))
    components.append(_proxy(layout))
    for node in layout.nodes:
        name = f"node-{node.name}"
        components.append(_component(layout, name, f"{node.ip}:{KUBELET_PORT}", _ready_note(layout, name)))
    components.append(_component(layout, supervisor.NAME, "", ""))
    return SiteHealth(
        name=layout.name,
        role=layout.site.role,
        region=layout.site.region,
        kubeconfig=layout.kubeconfig,
        components=tuple(components),
        nodes=(*_node_health(layout, nodes), *stranded(layout, volumes)),
    )


def _component(layout: SiteLayout, name: str, address: str, note: str) -> Component:
    record = processes.read(layout.run / f"{name}.json")
    if record is None or not processes.alive(record):
        return Component(name, None, False, address, "not running")
    if processes.is_stopped(record):
        note = "stopped by a signal; `make up` lets it go on"
    return Component(name, record.pid, not note, address, note)


def _proxy(layout: SiteLayout) -> Component:
    """Unhealthy also where a Service's port can't be served: somebody else has it."""
    told = report.read(layout.run / "proxy.ready")
    wrong = "not ready yet" if told is None else told.note if told.refused else ""
    found = _component(layout, "proxy", str(layout.proxy_ip), wrong)
    return replace(found, note=told.note) if found.healthy and told is not None else found


def _ready_note(layout: SiteLayout, name: str) -> str:
    return "" if (layout.run / f"{name}.ready").exists() else "not ready yet"


async def _api_note(kube: Kube) -> str:
    try:
        answer = await kube.request("GET", "/readyz")
    except ApiError as error:
        failed = [line for line in error.message.splitlines() if line.startswith("[-]")]
        return "; ".join(failed) or error.message[:200]
    except Unreachable as error:
        return str(error)[:200]
    return "" if answer == "ok" else str(answer)[:200]


async def _list(kube: Kube, kind: Kind) -> list[Object]:
    try:
        # `list` itself is patient: lists may be long, these are not.
        return list((await kube.request("GET", kind.path(), timeout_s=TIMEOUT_S))["items"])
    except (ApiError, Unreachable):
        return []


def _node_health(layout: SiteLayout, nodes: Iterable[Object]) -> list[NodeHealth]:
    seen = {node["metadata"]["name"]: node for node in nodes}
    found = []
    for node in layout.nodes:
        there = seen.get(node.name)
        note = "unknown to the API server" if there is None else _why_not_ready(there)
        ready = there is not None and node_is_ready(there)
        found.append(NodeHealth(node.name, ready, node.node.tier, node.region, str(node.ip), note))
    return found


def stranded(layout: SiteLayout, volumes: Iterable[Object]) -> list[NodeHealth]:
    """Nodes that the stack file no longer has, and that claims still hold volumes of: no pod can have those."""
    known = {node.name for node in layout.nodes}
    claims: dict[str, list[str]] = {}
    for volume in volumes:
        node, claim = provisioner.node_of(volume), volume["spec"].get("claimRef") or {}
        released = (volume.get("status") or {}).get("phase") == "Released"  # `up` deletes it
        if node is not None and node not in known and not released:
            claims.setdefault(node, []).append(f"{claim.get('namespace')}/{claim.get('name')}")
    return [
        NodeHealth(
            name,
            False,
            *("", "", ""),
            f"no longer in the stack file, but has the volume of claim {', '.join(sorted(held))}:"
            " put the node back, or delete the claim",
        )
        for name, held in sorted(claims.items())
    ]


def _why_not_ready(node: Object) -> str:
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            return str(condition.get("message") or condition.get("reason") or "not ready")
    return ""
