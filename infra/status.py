"""`switchboard status`: what runs in a stack, healthy or not, and where it is reached.

The face for other programs is `Status` as JSON: `healthy`, `endpoints` and `sites` stay as they are; what else is
in it may grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from infra import config, namespaces
from infra.local import cloud
from infra.local.layout import SiteLayout
from switchboard import labels
from switchboard.errors import SwitchboardError
from switchboard.kinds import MODEL_SERVERS
from switchboard.kube import (
    DEPLOYMENTS,
    SERVICES,
    ApiError,
    Credentials,
    Kind,
    Kube,
    Object,
    Unreachable,
)
from switchboard.paths import state_dir
from switchboard.text import columns

MISSING = "missing"
ALL_READY = "ReplicasReady"
"""The reason of a ModelServer's condition `Ready` where there is nothing to tell."""
ENDPOINT = f"{labels.DOMAIN}/endpoint"


class Endpoints(BaseModel):
    """Where the cloud is reached; None or empty where a part isn't there (yet)."""

    gateway: str | None = None
    edges: dict[str, str] = Field(default_factory=dict)
    mlflow: str | None = None
    prometheus: str | None = None
    alertmanager: str | None = None


class Part(BaseModel):
    """A process of a site, a node or a workload."""

    name: str
    healthy: bool
    address: str = ""
    note: str = ""


class SiteStatus(BaseModel):
    kubeconfig: Path
    components: list[Part] = Field(default_factory=list)
    nodes: list[Part] = Field(default_factory=list)
    workloads: list[Part] = Field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        return [*self.components, *self.nodes, *self.workloads]


class Status(BaseModel):
    stack: str
    healthy: bool
    endpoints: Endpoints
    sites: dict[str, SiteStatus]

    @property
    def parts(self) -> list[Part]:
        """All parts of all sites."""
        return [part for site in self.sites.values() for part in site.parts]


def read(stack_name: str) -> Status:
    """The state of a stack's embedded sites, as it is now.

    Raises:
        SwitchboardError: the stack file is wrong.
    """
    stack = config.load(stack_name)
    endpoints = Endpoints()
    sites: dict[str, SiteStatus] = {}
    local = {site.name: site for site in cloud.status(stack_name)}
    for site in stack.sites:
        if site.embedded is None:
            continue
        layout = SiteLayout(site, state_dir(stack_name))
        found = SiteStatus(kubeconfig=layout.kubeconfig)
        for component in local[site.name].components:
            found.components.append(
                Part(
                    name=component.name,
                    healthy=component.healthy,
                    address=component.address,
                    note=component.note,
                )
            )
        for node in local[site.name].nodes:
            found.nodes.append(
                Part(name=node.name, healthy=node.healthy, address=node.address, note=node.note)
            )
        if layout.kubeconfig.exists():
            namespace = namespaces.of_role(site.role)
            try:
                present = asyncio.run(_in_cluster(layout, namespace, site.role, found, endpoints))
            except (ApiError, Unreachable) as error:
                found.workloads.append(
                    Part(name="api", healthy=False, note=f"the API server doesn't answer: {error}")
                )
            except (SwitchboardError, OSError, ValueError) as error:
                # The kubeconfig, or a certificate in it, is spoilt.
                found.workloads.append(
                    Part(name="api", healthy=False, note=f"can't be asked: {' '.join(str(error).split())}")
                )
            else:
                found.workloads += missing(expected(stack)[site.name], present)
        sites[site.name] = found
    parts = [part for site in sites.values() for part in site.parts]
    # A site that was never up has no kubeconfig: its processes and nodes are unhealthy, its workloads not looked for.
    return Status(
        stack=stack_name,
        healthy=bool(parts) and all(part.healthy for part in parts),
        endpoints=endpoints,
        sites=sites,
    )


def expected(stack: config.Stack) -> dict[str, list[str]]:
    """What each site has once the program has been applied: its workloads and the addresses it is reached at."""
    sites: dict[str, list[str]] = {}
    for site in stack.sites:
        if site.role == "private":
            names = ("alertmanager", "mlflow", "prometheus")
            sites[site.name] = [f"{kind}/{name}" for kind in ("deployment", "endpoint") for name in names]
            continue
        regions = [edge.region for edge in site.edges]
        parts = [f"deployment/{name}" for name in ("gateway", "operator", "prometheus")]
        parts += ["endpoint/gateway", "endpoint/prometheus"]
        for region in regions:
            parts += [f"deployment/gateway-{region}", f"endpoint/edge-{region}"]
        for server in stack.model_servers:
            parts.append(f"modelserver/{server.name}")
            if server.on_edges:
                parts += [f"modelserver/{server.name}-{region}" for region in regions]
        sites[site.name] = parts
    return sites


def missing(wanted: Sequence[str], present: Collection[str]) -> list[Part]:
    """An unhealthy part for each of `wanted` that isn't `present`."""
    return [Part(name=name, healthy=False, note=MISSING) for name in wanted if name not in present]


async def _in_cluster(
    layout: SiteLayout, namespace: str, role: str, found: SiteStatus, endpoints: Endpoints
) -> set[str]:
    """Add the site's workloads and addresses; returns the names of those that are there, as `expected` has them."""
    async with Kube(Credentials.from_kubeconfig(layout.kubeconfig), timeout_s=5) as kube:
        services, deployments, servers = await asyncio.gather(
            kube.list(SERVICES, namespace, label_selector=ENDPOINT),
            kube.list(DEPLOYMENTS, namespace),
            _model_servers(kube, namespace),
        )
    # A ModelServer's own Deployment is told of by its status.
    found.workloads += [_workload(DEPLOYMENTS, item) for item in deployments if not _is_made(item)]
    found.workloads += [_model_server(item) for item in servers]
    addresses = [_endpoint(service, role, endpoints) for service in services]
    return {part.name for part in found.workloads} | {f"endpoint/{name}" for name in addresses if name}


async def _model_servers(kube: Kube, namespace: str) -> list[Object]:
    """None in a site that has no definition of them (yet)."""
    try:
        return await kube.list(MODEL_SERVERS, namespace)
    except ApiError as error:
        if error.not_found:
            return []
        raise


def _is_made(item: Object) -> bool:
    return any(owner["kind"] == MODEL_SERVERS.kind for owner in item["metadata"].get("ownerReferences") or ())


def _model_server(item: Object) -> Part:
    """Healthy where the operator says so of the object as it is now; why not, in its words."""
    status = item.get("status") or {}
    ready = ready_condition(item)
    told = f"{status.get('readyReplicas', 0)}/{status.get('desiredReplicas', 0)} ready"
    if ready is None:
        told += ": the operator hasn't looked at it as it is now"
    else:
        reason = ready["reason"] if ready["reason"] != ALL_READY else ""
        told = ": ".join(filter(None, (told, reason, ready.get("message"))))
    return Part(
        name=f"{MODEL_SERVERS.kind.lower()}/{item['metadata']['name']}",
        healthy=ready is not None and ready["status"] == "True",
        note=" ".join(told.split()),
    )


def ready_condition(server: Object) -> dict[str, Any] | None:
    """The condition `Ready` of a ModelServer; None where it is about an earlier generation, or isn't there yet."""
    conditions = (server.get("status") or {}).get("conditions") or ()
    found: dict[str, Any] | None = next((one for one in conditions if one["type"] == "Ready"), None)
    current = found is not None and found.get("observedGeneration", 0) >= server["metadata"].get(
        "generation", 0
    )
    return found if current else None


def _workload(kind: Kind, item: Object) -> Part:
    desired = item["spec"].get("replicas", 1)
    status = item.get("status", {})
    ready = status.get("readyReplicas", 0)
    seen = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
    return Part(
        name=f"{kind.kind.lower()}/{item['metadata']['name']}",
        healthy=seen and ready >= desired,
        note=f"{ready}/{desired} ready",
    )


def _endpoint(service: Object, role: str, endpoints: Endpoints) -> str | None:
    """Note the Service's address where it has one; returns what it is called (`gateway`, `edge-cn-beijing`)."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    if not ingress:
        return None
    url = f"http://{ingress[0].get('ip') or ingress[0].get('hostname')}:{service['spec']['ports'][0]['port']}"
    name: str = service["metadata"]["labels"][ENDPOINT]
    if name == "edge":
        region = service["metadata"]["name"].removeprefix("gateway-")
        endpoints.edges[region] = url
        return f"edge-{region}"
    if name == "prometheus":
        if role == "private":
            endpoints.prometheus = url
    elif name in Endpoints.model_fields:
        setattr(endpoints, name, url)
    return name


def table(status: Status) -> str:
    """Kubectl-like columns: sites with their parts, then the addresses."""
    rows = [("SITE", "KIND", "NAME", "STATUS", "ADDRESS", "NOTE")]
    for name, site in status.sites.items():
        for kind, parts in (("process", site.components), ("node", site.nodes), ("workload", site.workloads)):
            for part in parts:
                rows.append(
                    (
                        name,
                        kind,
                        part.name,
                        "Healthy" if part.healthy else "Unhealthy",
                        part.address,
                        part.note,
                    )
                )
    ends = status.endpoints
    addresses = [("ENDPOINT", "ADDRESS"), ("gateway", ends.gateway or "(none)")]
    addresses += [(f"edge {region}", url) for region, url in sorted(ends.edges.items())]
    addresses += [
        (name, getattr(ends, name) or "(none)") for name in ("mlflow", "prometheus", "alertmanager")
    ]
    return "\n\n".join([columns(rows, gap=2), columns(addresses, gap=2), _verdict(status)])


def _verdict(status: Status) -> str:
    if status.healthy:
        return f"stack {status.stack}: healthy"
    bad = [part.name for part in status.parts if not part.healthy]
    if not bad:
        return f"stack {status.stack}: not up\n  → `make up` brings it up"
    return (
        f"stack {status.stack}: unhealthy: {', '.join(bad)}\n"
        "  → `make up` repairs what died; `kubectl describe` shows why the rest isn't ready"
    )
