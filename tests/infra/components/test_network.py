"""The NetworkPolicies of every stack let each connection through that its parts make, and no other.

The connections are taken from what is declared (addresses in settings, Prometheus' annotations) and from what the
parts themselves make of it (a gateway's endpoints), not from the table that the policies are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import yaml

from infra import config
from infra.components.network import Outside as End
from infra.components.network import Path, networks, paths, policies
from infra.namespaces import of_role
from infra.netpol import Outside, Peer, Pod, Verdict, judge
from serving.gateway.fleets import fleets
from switchboard import labels
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.infra.components.rendered import (
    STACKS,
    Object,
    Workload,
    behind,
    objects,
    stack_of,
    told,
    workloads,
)

CUSTOMER, STRANGER = Outside("198.51.100.7"), Outside("192.0.2.1")
DNS = Pod("kube-system", {"k8s-app": "kube-dns"}, "203.0.113.253", "dns")


@dataclass(frozen=True)
class Connection:
    """A connection as one site sees it."""

    site: str
    source: Peer
    destination: Peer
    port: int
    what: str
    protocol: str = "TCP"


def verdict(stack: str, wanted: Connection) -> Verdict:
    labelled = {
        one["metadata"]["name"]: one["metadata"].get("labels") or {}
        for one in objects(stack, "Namespace", wanted.site)
    }
    rules = objects(stack, "NetworkPolicy", wanted.site)
    assert rules
    return judge(rules, labelled, wanted.source, wanted.destination, wanted.port, wanted.protocol)


def in_networks(stack: str) -> Outside:
    """A node, a load balancer, an API server, a person: whoever is in the bank's networks."""
    return Outside(networks(stack_of(stack))[0].replace("0.0/", "0.9/").partition("/")[0])


def made(stack: str) -> Iterator[Connection]:
    """Every connection that the stack's pods make or get, by what they are told."""
    near = in_networks(stack)
    for one in workloads(stack):
        for protocol in ("UDP", "TCP"):
            yield Connection(one.site, one.pod, DNS, 53, f"{one} resolves names", protocol)
        if one.spec["automountServiceAccountToken"]:
            for port in (443, 6443):
                yield Connection(one.site, one.pod, near, port, f"{one} asks the API server")
        for site, service, port in told(stack, one):
            for target, number in behind(stack, site, service, port):
                if target.pod == one.pod:
                    continue  # its own address: what it may be called
                what = f"{one} was told of {service} in {site}"
                yield Connection(one.site, one.pod, near, port, what)
                yield Connection(site, near, target.pod, number, what)
                if site == one.site:
                    yield Connection(site, one.pod, target.pod, number, what)
    yield from scraped(stack)
    yield from sized(stack)
    yield from routed(stack)
    yield from from_outside(stack)
    store = stack_of(stack).mlflow
    for one in workloads(stack):
        if one.pod.labels["app.kubernetes.io/component"] == "registry" and store.database and store.artifacts:
            bucket = urlsplit(store.artifacts.endpoint)
            yield Connection(one.site, one.pod, near, store.database.port, f"{one} keeps records")
            yield Connection(
                one.site,
                one.pod,
                near,
                bucket.port or {"http": 80, "https": 443}[bucket.scheme],
                f"{one} keeps files",
            )


def scraped(stack: str) -> Iterator[Connection]:
    """By the annotations that Prometheus' own configuration looks for."""
    for one in workloads(stack):
        if one.name != "prometheus":
            continue
        for target in workloads(stack):
            said = target.meta.get("annotations") or {}
            if target.site == one.site and said.get(labels.SCRAPE) == "true":
                port = int(said[labels.SCRAPE_PORT])
                yield Connection(one.site, one.pod, target.pod, port, f"{one} scrapes {target}")


def sized(stack: str) -> Iterator[Connection]:
    """The operator at its site's Prometheus, by the Service's name, at the gateways' statistics, and at the replicas
    that a release compares."""
    for one in workloads(stack):
        if one.name != "operator":
            continue
        env = {entry["name"]: entry.get("value") for entry in one.containers[0]["env"]}
        asked = urlsplit(env["PROMETHEUS_URL"])
        service, _, namespace = (asked.hostname or "").partition(".")
        assert namespace == one.manifest["metadata"]["namespace"]
        for target, port in behind(stack, one.site, service, asked.port or 80):
            yield Connection(one.site, one.pod, target.pod, port, f"{one} was told of {target}")
        for target in workloads(stack):
            if target.site == one.site and target.pod.labels["app.kubernetes.io/component"] == "gateway":
                stats = target.pod.ports["TCP", "stats"]
                yield Connection(one.site, one.pod, target.pod, stats, f"{one} asks {target} for traffic")
            compared = (target.site, target.pod.labels.get(labels.TIER)) == (one.site, "core")
            if compared and labels.MODEL_SERVER in target.pod.labels:
                port = target.pod.ports["TCP", "http"]
                yield Connection(one.site, one.pod, target.pod, port, f"{one} compares {target}'s answers")


def routed(stack: str) -> Iterator[Connection]:
    """A gateway's endpoints, as its agent finds them among the pods."""
    for gateway in workloads(stack):
        if gateway.pod.labels.get("app.kubernetes.io/component") != "gateway":
            continue
        env = {entry["name"]: entry.get("value") for entry in gateway.containers[-1]["env"]}
        pods = {one.pod.ip: one for one in workloads(stack) if one.site == gateway.site}
        found = fleets(
            [ready_pod(one) for one in pods.values()],
            tier=env["GATEWAY_TIER"],
            region=env["GATEWAY_REGION"],
            known=env["MODEL_SERVERS"].split(","),
        )
        assert found and all(fleet.core and fleet.own != () for fleet in found)
        for fleet in found:
            for end in (*fleet.core, *(fleet.own or ())):
                one = pods[end.ip]
                yield Connection(gateway.site, gateway.pod, one.pod, end.port, f"{gateway} routes to {one}")


def ready_pod(one: Workload) -> Object:
    return {
        "metadata": {"name": one.name, "labels": dict(one.pod.labels)},
        "spec": one.spec,
        "status": {
            "phase": "Running",
            "podIP": one.pod.ip,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def from_outside(stack: str) -> Iterator[Connection]:
    """Customers at the gateways' load balancers, people of the bank at the others'."""
    for service in objects(stack, "Service"):
        if service["spec"].get("type") != "LoadBalancer":
            continue
        meta = service["metadata"]
        site, name = meta["labels"][labels.SITE], meta["name"]
        for entry in service["spec"]["ports"]:
            for one, port in behind(stack, site, name, entry["port"]):
                who = CUSTOMER if "gateway" in name else in_networks(stack)
                yield Connection(site, who, one.pod, port, f"{who.ip} asks {one}")


@pytest.mark.parametrize("stack", STACKS)
def test_every_connection_that_the_parts_make_passes(stack: str) -> None:
    found = list(made(stack))
    refused = [f"{one.what}: {said.reason}" for one in found if not (said := verdict(stack, one))]
    assert refused == []
    kinds = {
        word
        for one in found
        for word in ("resolves", "API", "told", "scrapes", "routes", "asks")
        if word in one.what
    }
    assert len(kinds) == 6, "each kind of connection was found"
    assert {one.site for one in found} == {site.name for site in stack_of(stack).sites}


@pytest.mark.parametrize("stack", STACKS)
def test_no_path_of_the_table_is_idle(stack: str) -> None:
    """Without any one path a connection is missed: what nobody makes isn't allowed."""
    found, whole = list(made(stack)), stack_of(stack)
    for path in paths(whole):
        rest = [one for one in paths(whole) if one != path]
        rules = {site.name: manifests(rest, stack, site) for site in whole.sites}
        missed = [
            one.what
            for one in found
            if not judge(rules[one.site], {}, one.source, one.destination, one.port, one.protocol)
        ]
        # People come from where other sites' pods come from, too; they have rows of their own to say so.
        assert missed or path.source is End.NETWORKS, f"{path.source} to {path.destination}: {path.why}"


def manifests(table: Iterable[Path], stack: str, site: config.Site) -> list[Object]:
    """A site's policies of another table than the program's."""
    return [
        {"metadata": {"name": name, "namespace": of_role(site.role)}, "spec": policy.spec}
        for name, policy in policies(table, site, networks(stack_of(stack))).items()
    ]


def pod(site: str, name: str) -> Peer:
    """A pod of the local stack, or somebody else."""
    others = {
        "customer": CUSTOMER,
        "stranger": STRANGER,
        "colleague": in_networks("local"),
        "tenant": Pod("other-team", {"app.kubernetes.io/component": "gateway"}, "203.0.113.252", "tenant"),
        "prober": Pod(of_role("public"), {"app": "prober"}, "203.0.113.251", "prober"),
        "kube-system": DNS,
    }
    if name in others:
        return others[name]
    (found,) = [one.pod for one in workloads("local") if (one.site, one.name) == (site, name)]
    return found


@pytest.mark.parametrize(
    ("site", "source", "destination", "port", "why"),
    [
        ("public", "customer", "chat", 8080, "customers come through a gateway"),
        ("public", "customer", "gateway", 9902, "statistics are not for customers"),
        ("public", "colleague", "gateway", 9902, "nor for the bank's people: Prometheus has them"),
        ("public", "customer", "prometheus", 9090, "nor is Prometheus"),
        ("public", "colleague", "chat", 8080, "colleagues are customers: through a gateway"),
        ("public", "tenant", "chat", 8080, "another team's pod, whatever it calls itself"),
        ("public", "tenant", "prometheus", 9090, "another team's pod at Prometheus"),
        ("public", "prober", "chat", 8080, "a pod of the namespace that no path names"),
        ("public", "prober", "customer", 443, "it can't get out, either"),
        ("public", "chat", "customer", 443, "a model server doesn't speak to the world"),
        ("public", "chat", "colleague", 6443, "nor to the API server"),
        ("public", "chat", "colleague", 9093, "nor to Alertmanager"),
        ("public", "chat", "stranger", 5000, "nor to another MLflow, out of the bank's networks"),
        ("public", "chat", "gateway", 8080, "an answer needs no path back"),
        ("public", "chat", "chat-cn-beijing", 8080, "replicas don't ask each other"),
        ("public", "gateway", "chat-cn-beijing", 8080, "the core doesn't lean on an edge"),
        (
            "public",
            "gateway-cn-beijing",
            "chat-cn-hongkong",
            8080,
            "an edge doesn't lean on another region's",
        ),
        ("public", "gateway", "colleague", 5000, "gateways know no registry"),
        ("public", "gateway", "customer", 443, "gateways call nobody"),
        ("public", "prometheus", "chat", 22, "scrapes only"),
        ("public", "operator", "customer", 443, "the operator doesn't speak to the world"),
        ("public", "operator", "chat-cn-beijing", 8080, "what an edge answers is compared with nothing"),
        ("public", "operator", "gateway", 8080, "the operator is no customer"),
        ("public", "operator", "colleague", 9090, "its Prometheus is its own site's"),
        ("public", "operator", "colleague", 9093, "nor does it raise alerts: Prometheus does"),
        ("public", "gateway", "operator", 8080, "gateways don't ask the operator"),
        ("public", "colleague", "operator", 8080, "nor do people: Prometheus has its figures"),
        ("public", "tenant", "operator", 8080, "nor another team's pod"),
        ("public", "prometheus", "customer", 443, "Prometheus doesn't speak to the world"),
        ("private", "stranger", "mlflow", 5000, "the registry is the bank's"),
        ("private", "tenant", "alertmanager", 9093, "another team's pod at Alertmanager"),
        ("private", "mlflow", "customer", 443, "the registry calls nobody"),
        ("private", "mlflow", "train-chat-intent", 5000, "least of all those who use it"),
        ("private", "train-chat-intent", "customer", 443, "training data doesn't leave"),
        ("private", "train-chat-intent", "prometheus", 9090, "training needs the registry alone"),
        ("private", "alertmanager", "customer", 443, "alerts go nowhere yet"),
        ("private", "alertmanager", "prometheus", 9090, "Alertmanager is asked, and asks nobody"),
        ("private", "prometheus", "kube-system", 10250, "DNS is a port, not a namespace"),
    ],
)
def test_nothing_else_passes(site: str, source: str, destination: str, port: int, why: str) -> None:
    wanted = Connection(site, pod(site, source), pod(site, destination), port, why)
    assert not verdict("local", wanted), f"{source} to {destination}:{port} passes: {why}"


@pytest.mark.parametrize("stack", STACKS)
def test_every_pod_is_isolated_both_ways(stack: str) -> None:
    for one in workloads(stack):
        for port in (1, 443, 8443):
            assert not verdict(stack, Connection(one.site, one.pod, CUSTOMER, port, ""))
            assert not verdict(stack, Connection(one.site, CUSTOMER, one.pod, port, ""))


def test_the_networks_of_existing_clusters_are_the_stack_files() -> None:
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    values = {key.removeprefix("switchboard:"): value for key, value in document["config"].items()}
    assert networks(config.parse(values, "f")) == tuple(
        sorted(["127.21.0.0/16", "127.22.0.0/16", "127.96.0.0/16", "127.97.0.0/16"])
    )
    for site in values["sites"]:
        del site["embedded"]
        site["cluster"] = {"context": site["name"]}
    usual = networks(config.parse(values, "f"))
    assert usual == ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    assert networks(config.parse({**values, "networks": ["10.20.0.0/16"]}, "f")) == ("10.20.0.0/16",)


def test_an_address_that_is_no_network_is_one_clear_line() -> None:
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    values = {key.removeprefix("switchboard:"): value for key, value in document["config"].items()}
    with pytest.raises(SwitchboardError, match=r"switchboard:networks\[0\].*10\.20\.0\.1/16"):
        config.parse({**values, "networks": ["10.20.0.1/16"]}, "f")
