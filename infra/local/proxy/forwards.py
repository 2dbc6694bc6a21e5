"""Which address leads where: a Service's ports and the ready pods behind each, as pure functions of the objects.

Endpoints are resolved from the Service's selector and the pods themselves, because EndpointSlices refuse loopback
addresses. The rules are those of the endpoints controller: a pod counts when it is ready, isn't terminating and has
an address (`publishNotReadyAddresses` waives the first two); a named target port is looked up in each pod.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from switchboard import labels
from switchboard.envoy import Endpoint
from switchboard.kube import Object
from switchboard.pods import address_of, labels_of, port_named, serves


@dataclass(frozen=True)
class Check:
    """An HTTP request that a pod answers while it lives."""

    path: str
    port: int


@dataclass(frozen=True)
class Forward:
    """One port of one Service: connections to `ip:port` go to `endpoints`."""

    name: str
    ip: str
    port: int
    endpoints: tuple[Endpoint, ...]
    by_client: bool = False
    """The same client address goes to the same endpoint (`sessionAffinity: ClientIP`)."""
    check: Check | None = None
    """How a load balancer asks endpoints whether they live; None: nobody asks."""
    refuses: bool = False
    """Where none lives, its clients are refused; else they are sent to any (the check may be wrong)."""


def forwards(services: Iterable[Object], pods: Iterable[Object], api_server: Endpoint) -> tuple[Forward, ...]:
    """All TCP ports of all Services with an IPv4 ClusterIP, in the order of their names."""
    by_namespace: dict[str, list[Object]] = defaultdict(list)
    for pod in pods:
        by_namespace[pod["metadata"]["namespace"]].append(pod)
    found = []
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        if (ip := cluster_ip(service)) is None:
            continue
        refuses = labels.REFUSES in (meta.get("annotations") or {})
        of_api = (meta["namespace"], meta["name"]) == ("default", "kubernetes")
        behind = (
            []
            if of_api
            else [
                pod
                for pod in by_namespace[meta["namespace"]]
                if selects(spec.get("selector"), pod)
                and (serves(pod) or (spec.get("publishNotReadyAddresses") and address_of(pod)))
            ]
        )
        for port in spec.get("ports", ()):
            if port.get("protocol", "TCP") != "TCP":
                continue
            endpoints = {api_server} if of_api else set(_endpoints(port, behind))
            found.append(
                Forward(
                    name=f"{meta['namespace']}/{meta['name']}:{port['port']}",
                    ip=ip,
                    port=port["port"],
                    endpoints=tuple(sorted(endpoints)),
                    by_client=spec.get("sessionAffinity") == "ClientIP",
                    check=_check(spec, port, behind) if len(endpoints) > 1 or refuses else None,
                    refuses=refuses,
                )
            )
    return tuple(sorted(found, key=lambda forward: forward.name))


def _endpoints(port: Object, pods: Iterable[Object]) -> Iterable[Endpoint]:
    for pod in pods:
        number = target_port(port, pod)
        ip = address_of(pod)
        if number is not None and ip is not None:
            yield Endpoint(ip, number)


def _check(spec: Object, port: Object, pods: Iterable[Object]) -> Check | None:
    """By the liveness probe of the container that has the port, if all pods have the same.

    A cloud's load balancer asks what it sends connections to, since a machine that is lost is ready for the API server
    until its lease has run out, for most of a minute. Readiness isn't asked for: the pods' own says it, at once.
    """
    if spec.get("type") != "LoadBalancer":
        return None
    found = {_probe(pod, target_port(port, pod)) for pod in pods}
    return found.pop() if len(found) == 1 else None


def _probe(pod: Object, number: int | None) -> Check | None:
    for container in pod["spec"].get("containers", ()):
        ports = container.get("ports") or ()
        if not any(one.get("containerPort") == number for one in ports):
            continue
        get = (container.get("livenessProbe") or {}).get("httpGet") or {}
        where = get.get("port")
        if isinstance(where, str):
            where = port_named(pod, where)
        if where is not None and get.get("scheme", "HTTP") == "HTTP":
            return Check(get.get("path") or "/", where)
    return None


def cluster_ip(service: Object) -> str | None:
    """The Service's IPv4 address; None for headless and external ones, and while it has none yet."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return None
    candidates = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return next((ip for ip in candidates if ip and ip != "None" and ":" not in ip), None)


def selects(selector: Mapping[str, str] | None, pod: Object) -> bool:
    """A Service without a selector selects nothing."""
    labels = labels_of(pod)
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def target_port(port: Object, pod: Object) -> int | None:
    """The pod's port that a Service's port leads to; None where the pod has none of that name."""
    target: int | str = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target or port["port"]
    return port_named(pod, target)


def ignored_ports(services: Iterable[Object]) -> tuple[str, ...]:
    """Ports that this proxy doesn't serve (UDP, SCTP), as `namespace/name:port/protocol`."""
    return tuple(
        f"{one['metadata']['namespace']}/{one['metadata']['name']}:{port['port']}/{port['protocol']}"
        for one in services
        if cluster_ip(one) is not None
        for port in one["spec"].get("ports", ())
        if port.get("protocol", "TCP") != "TCP"
    )


def load_balancer_status(service: Object) -> Object | None:
    """The status that the Service should get from its load-balancer controller; None where it is right already.

    A Service of type LoadBalancer is reached at its ClusterIP. One with a class of its own is somebody else's.
    """
    spec = service["spec"]
    ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
    wanted: list[Object] = []
    if spec.get("type") == "LoadBalancer":
        if spec.get("loadBalancerClass") or service["metadata"].get("deletionTimestamp"):
            return None
        if (ip := cluster_ip(service)) is None:
            return None
        wanted = [{"ip": ip, "ipMode": "VIP"}]
        if [(one.get("ip"), one.get("ipMode")) for one in ingress] == [(ip, "VIP")]:
            return None
    elif not ingress:
        return None
    return {"status": {"loadBalancer": {"ingress": wanted}}}
