"""NetworkPolicies: nothing may connect in Switchboard's namespaces but what the table of paths names.

A site's policies follow from `PATHS` alone. Each end of a path gets its half: the source may go out, the destination
may be come to. Sites are apart, and what is reached through a load balancer shows the address of a node or of the
balancer, so such paths are held by address and port: by the *networks* of the stack, those of the bank in which its
sites (nodes, load balancers, API servers, database, bucket) and its people are. Nothing else leads out.

The embedded cloud stores these objects and enforces none; `infra.netpol` judges connections by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlsplit

import pulumi
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from infra.components import alertmanager, gateway, mlflow, model_server, operator, prometheus
from infra.components.site import SiteNamespace
from infra.config import Site, Stack
from switchboard import labels

WHY = f"{labels.DOMAIN}/why"
"""An annotation on each policy: what its paths are for."""

APP, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
EACH = "*"
"""As a label's value in the table: one path for each edge region of the site."""


class Outside(StrEnum):
    """Ends of paths that are no pods of Switchboard's."""

    ANYONE = "anyone"
    NETWORKS = "networks"
    """The bank's networks, as the stack file has them."""
    DNS = "dns"
    """The cluster's DNS: pods of kube-system, or a node's own cache at the address that it has by convention."""


@dataclass(frozen=True)
class Group:
    """Pods of a namespace that have the same paths, by their labels."""

    name: str
    role: Literal["private", "public"]
    """Of the sites in which they are."""
    labels: Mapping[str, str] = field(default_factory=dict)
    balanced: bool = False
    """They are reached through a load balancer, from their own site as well: by address, then."""


@dataclass(frozen=True)
class Path:
    """A connection that there must be: who opens it, to whom, to which ports (TCP unless it says so), and why."""

    source: Group | Outside
    destination: Group | Outside
    ports: tuple[int, ...]
    why: str
    protocols: tuple[str, ...] = ("TCP",)


GATEWAY = Group("gateway", "public", {COMPONENT: "gateway"})
EDGE_GATEWAY = Group(
    f"edge-{EACH}-gateway", "public", {COMPONENT: "gateway", labels.TIER: "edge", labels.REGION: EACH}
)
MODELS = Group("model-server", "public", {COMPONENT: "model-server"})
CORE_MODELS = Group("core-model-server", "public", {COMPONENT: "model-server", labels.TIER: "core"})
EDGE_MODELS = Group(
    f"edge-{EACH}-model-server",
    "public",
    {COMPONENT: "model-server", labels.TIER: "edge", labels.REGION: EACH},
)
PROMETHEUS = Group("prometheus", "public", {APP: "prometheus"}, balanced=True)
OPERATOR = Group("operator", "public", {COMPONENT: operator.NAME})
FEDERATING = Group("prometheus", "private", {APP: "prometheus"}, balanced=True)
ALERTMANAGER = Group("alertmanager", "private", {APP: "alertmanager"}, balanced=True)
MLFLOW = Group("mlflow", "private", {COMPONENT: "registry"}, balanced=True)
TRAINING = Group("training", "private", {COMPONENT: "training"})
EVERYONE = tuple(Group("dns", role) for role in ("private", "public"))

DNS_PORT = 53
API_SERVER_PORTS = (443, 6443)
"""The Service's and the API server's own: policies see the second, in most clusters."""

PATHS = (
    *(Path(one, Outside.DNS, (DNS_PORT,), "names", ("UDP", "TCP")) for one in EVERYONE),
    Path(Outside.ANYONE, GATEWAY, (gateway.PORT,), "customers' requests, from any address"),
    Path(GATEWAY, CORE_MODELS, (model_server.PORT,), "requests to the site's replicas, and their health checks"),
    Path(EDGE_GATEWAY, EDGE_MODELS, (model_server.PORT,), "requests to an edge's own replicas when it is cut off"),
    Path(GATEWAY, Outside.NETWORKS, API_SERVER_PORTS, "its agent watches the model servers' pods"),
    Path(OPERATOR, Outside.NETWORKS, API_SERVER_PORTS, "it watches ModelServers, and makes what runs of them"),
    # By the Service's address in its site: what arrives is from the pod itself.
    Path(OPERATOR, replace(PROMETHEUS, balanced=False), (prometheus.PORT,), "it asks for the traffic"),
    Path(OPERATOR, GATEWAY, (gateway.STATS_PORT,), "it asks for the traffic while Prometheus is away"),
    Path(OPERATOR, CORE_MODELS, (model_server.PORT,), "it compares what the arms of a release answered"),
    Path(MODELS, MLFLOW, (mlflow.PORT,), "a replica gets its model"),
    Path(TRAINING, MLFLOW, (mlflow.PORT,), "a run is logged, its model registered"),
    Path(OPERATOR, MLFLOW, (mlflow.PORT,), "a release moves the champion, and writes the ledger"),
    Path(PROMETHEUS, GATEWAY, (gateway.STATS_PORT,), "scrapes"),
    Path(PROMETHEUS, MODELS, (model_server.PORT,), "scrapes"),
    Path(PROMETHEUS, OPERATOR, (operator.PORT,), "scrapes"),
    Path(PROMETHEUS, Outside.NETWORKS, API_SERVER_PORTS, "it finds pods to scrape"),
    Path(PROMETHEUS, ALERTMANAGER, (alertmanager.PORT,), "alerts"),
    Path(FEDERATING, PROMETHEUS, (prometheus.PORT,), "federation"),
    Path(FEDERATING, ALERTMANAGER, (alertmanager.PORT,), "alerts, and scrapes"),
    Path(FEDERATING, Outside.NETWORKS, API_SERVER_PORTS, "it finds pods to scrape"),
    Path(Outside.NETWORKS, MLFLOW, (mlflow.PORT,), "people's browsers and commands"),
    Path(Outside.NETWORKS, ALERTMANAGER, (alertmanager.PORT,), "people's browsers and commands"),
    Path(Outside.NETWORKS, FEDERATING, (prometheus.PORT,), "people's browsers and commands"),
    Path(Outside.NETWORKS, PROMETHEUS, (prometheus.PORT,), "people's browsers and commands"),
)  # fmt: skip
"""Every path of every stack, but for MLflow's to a database and a bucket, which are where the stack file says."""


def paths(stack: Stack) -> tuple[Path, ...]:
    """All paths of a stack."""
    store, found = stack.mlflow, list(PATHS)
    if store.database is not None:
        found.append(Path(MLFLOW, Outside.NETWORKS, (store.database.port,), "its records"))
    if store.artifacts is not None:
        url = urlsplit(store.artifacts.endpoint)
        port = url.port or (80 if url.scheme == "http" else 443)
        found.append(Path(MLFLOW, Outside.NETWORKS, (port,), "its artifacts"))
    return tuple(found)


def networks(stack: Stack) -> tuple[str, ...]:
    """The networks of the bank, as CIDRs: those of the stack file, and the embedded sites' own ranges."""
    embedded = [site.embedded for site in stack.sites if site.embedded is not None]
    ranges = [str(cidr) for one in embedded for cidr in (one.network, one.services)]
    given = [] if stack.embedded else [str(cidr) for cidr in stack.networks]
    return tuple(sorted({*ranges, *given}))


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy's spec, as YAML has it, and what it is for."""

    spec: dict[str, Any]
    why: str


def policies(table: Iterable[Path], site: Site, networks: Iterable[str]) -> dict[str, Policy]:
    """The NetworkPolicies that let a table's paths through in a site, by name; `networks` are the bank's, as CIDRs.

    `default-deny` isolates every pod both ways; the others let the paths of one group of pods through.
    """
    specs: dict[str, dict[str, Any]] = {}
    whys: dict[str, list[str]] = {}
    for group, direction, peers, path in _halves(table, site, tuple(networks)):
        spec = specs.setdefault(group.name, {"podSelector": _selector(group), "policyTypes": []})
        if direction.capitalize() not in spec["policyTypes"]:
            spec["policyTypes"] = sorted([*spec["policyTypes"], direction.capitalize()], reverse=True)
        rule: dict[str, Any] = {"from" if direction == "ingress" else "to": peers} if peers else {}
        rule["ports"] = [
            {"port": port, "protocol": protocol} for port in path.ports for protocol in path.protocols
        ]
        if rule not in (rules := spec.setdefault(direction, [])):
            rules.append(rule)
        if path.why not in whys.setdefault(group.name, []):
            whys[group.name].append(path.why)
    nothing = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return {
        "default-deny": Policy(nothing, "nothing passes but what the other policies name"),
        **{name: Policy(spec, "; ".join(whys[name])) for name, spec in specs.items()},
    }


def _halves(
    table: Iterable[Path], site: Site, networks: tuple[str, ...]
) -> Iterator[tuple[Group, str, list[dict[str, Any]], Path]]:
    """What each path means for its pods in `site`: whose, which direction, with whom (empty: with anyone)."""
    for path in _of_regions(table, [edge.region for edge in site.edges]):
        source, destination = path.source, path.destination
        if isinstance(source, Group) and source.role == site.role:
            yield source, "egress", _peers(destination, destination, site, networks), path
        if isinstance(destination, Group) and destination.role == site.role:
            yield destination, "ingress", _peers(source, destination, site, networks), path


def _peers(
    end: Group | Outside, destination: Group | Outside, site: Site, networks: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The peers of a rule for a path's other `end`; without any, everyone is meant."""
    if end is Outside.ANYONE:
        return []
    if end is Outside.DNS:
        kube_system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
        return [{"namespaceSelector": kube_system}, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
    balanced = isinstance(destination, Group) and destination.balanced
    found: list[dict[str, Any]] = []
    if isinstance(end, Group) and end.role == site.role:
        found.append({"podSelector": _selector(end)})
    if not isinstance(end, Group) or end.role != site.role or balanced:
        found += [{"ipBlock": {"cidr": cidr}} for cidr in networks]
    return found


def _selector(group: Group) -> dict[str, Any]:
    return {"matchLabels": dict(group.labels)} if group.labels else {}


def _of_regions(table: Iterable[Path], regions: Iterable[str]) -> Iterator[Path]:
    """The table with the paths of `EACH` edge written out."""
    for path in table:
        ends = [end for end in (path.source, path.destination) if isinstance(end, Group)]
        if not any(EACH in end.labels.values() for end in ends):
            yield path
            continue
        for region in regions:
            yield replace(
                path, source=_in_region(path.source, region), destination=_in_region(path.destination, region)
            )


def _in_region(end: Group | Outside, region: str) -> Group | Outside:
    if not isinstance(end, Group):
        return end
    where = {key: region if value == EACH else value for key, value in end.labels.items()}
    return replace(end, name=end.name.replace(EACH, region), labels=where)


class NetworkPolicies(pulumi.ComponentResource):
    """The policies of a site's namespace.

    Outputs: `policies`, their names.
    """

    policies: tuple[str, ...]

    def __init__(self, namespace: SiteNamespace, stack: Stack) -> None:
        site = namespace.site
        super().__init__(
            "switchboard:infra:NetworkPolicies",
            f"{site.name}-network",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        made = policies(paths(stack), site, networks(stack))
        for name, policy in made.items():
            NetworkPolicy(
                f"{site.name}-{name}",
                metadata=namespace.meta(
                    name, {"app.kubernetes.io/part-of": "switchboard"}, {WHY: policy.why}
                ),
                spec=policy.spec,
                opts=namespace.child(self),
            )
        self.policies = tuple(made)
        self.register_outputs({"policies": list(made)})
