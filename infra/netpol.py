"""Which connections NetworkPolicies allow, decided as a cluster's network plugin would, without a cluster.

A pure function of the objects. The rules are those of the `networking.k8s.io/v1` API:

- A pod is isolated in a direction as soon as one policy of its namespace that has this direction selects it; then only
  what some such policy's rule allows passes. Policies add up, none takes away. A connection needs both its ends'
  permission; answers to it need none.
- A rule without peers (or ports) means all of them. An empty selector selects everything, a missing one nothing by
  itself; a `podSelector` alone is of the policy's own namespace, and beside a `namespaceSelector` both must hold.
- A named port is the destination pod's. An `ipBlock` is met by any address in it, but not by those in its `except`.
- A pod always reaches itself. (Its own node reaches it, too, which is how probes pass; nodes aren't judged here.)

Where network plugins differ - whether an `ipBlock` is met by pods of the same cluster - this follows the upstream
conformance tests: it is. Give pods no address to judge without that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Object = Mapping[str, Any]
"""A Kubernetes object as YAML or JSON has it."""


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it; `ports` are its containers' named ports."""

    namespace: str
    labels: Mapping[str, str]
    ip: str | None = None
    name: str = ""
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By protocol and name: `{("TCP", "http"): 8080}`."""

    @classmethod
    def of(cls, manifest: Object, *, ip: str | None = None) -> Pod:
        """The pod of a manifest, or one of those that a workload's template makes (a CronJob's: its Job's)."""
        meta, spec = manifest["metadata"], manifest["spec"]
        spec = (spec.get("jobTemplate") or {}).get("spec") or spec
        if "template" in spec:
            template = spec["template"]
            meta, spec = {**meta, "labels": (template.get("metadata") or {}).get("labels")}, template["spec"]
        named = {
            (port.get("protocol", "TCP"), port["name"]): int(port["containerPort"])
            for container in (*(spec.get("initContainers") or ()), *spec["containers"])
            for port in container.get("ports") or ()
            if "name" in port
        }
        return cls(meta.get("namespace") or "default", meta.get("labels") or {}, ip, meta["name"], named)


@dataclass(frozen=True)
class Outside:
    """An address that is no pod of the cluster."""

    ip: str


Peer = Pod | Outside


@dataclass(frozen=True)
class Verdict:
    """Whether a connection passes, and why, in words."""

    allowed: bool
    reason: str

    def __bool__(self) -> bool:
        return self.allowed


def judge(
    policies: Iterable[Object],
    namespaces: Mapping[str, Mapping[str, str]],
    source: Peer,
    destination: Peer,
    port: int,
    protocol: str = "TCP",
) -> Verdict:
    """Whether `source` may open a connection to `destination`'s `port`.

    `policies` are the NetworkPolicies of one cluster and `namespaces` its namespaces' labels (each namespace has the
    label `kubernetes.io/metadata.name` in any case, as the API server sees to). At most one end is outside.
    """
    # Two replicas are alike in all but their addresses.
    if source is destination or (source == destination and source.ip is not None):
        return Verdict(True, "a pod reaches itself")
    every = tuple(policies)
    for subject, other, direction in (
        (source, destination, "egress"),
        (destination, source, "ingress"),
    ):
        if isinstance(subject, Outside):
            continue
        mine = [policy for policy in every if _isolates(policy, subject, direction)]
        wanted = _Wanted(other, destination, port, protocol, namespaces)
        if mine and not any(_lets_pass(policy, direction, wanted) for policy in mine):
            names = ", ".join(sorted(policy["metadata"]["name"] for policy in mine))
            return Verdict(False, f"no rule for this {direction} in {subject.namespace}'s {names}")
    return Verdict(True, "allowed at both ends")


@dataclass(frozen=True)
class _Wanted:
    peer: Peer
    destination: Peer
    port: int
    protocol: str
    namespaces: Mapping[str, Mapping[str, str]]


def _isolates(policy: Object, pod: Pod, direction: Literal["ingress", "egress"] | str) -> bool:
    if (policy["metadata"].get("namespace") or "default") != pod.namespace:
        return False
    spec = policy["spec"]
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return direction.capitalize() in types and selects(spec.get("podSelector") or {}, pod.labels)


def _lets_pass(policy: Object, direction: str, wanted: _Wanted) -> bool:
    peers = "from" if direction == "ingress" else "to"
    home = policy["metadata"].get("namespace") or "default"
    return any(
        _any(rule.get(peers), lambda peer: _is_peer(peer, home, wanted))
        and _any(rule.get("ports"), lambda port: _is_port(port, wanted))
        for rule in policy["spec"].get(direction) or ()
    )


def _any(entries: Any, fits: Any) -> bool:
    return not entries or any(fits(entry) for entry in entries)


def _is_peer(entry: Object, home: str, wanted: _Wanted) -> bool:
    if "ipBlock" in entry:
        return _in_block(entry["ipBlock"], wanted.peer.ip)
    if isinstance(wanted.peer, Outside):
        return False
    pods, spaces = entry.get("podSelector"), entry.get("namespaceSelector")
    if spaces is None:
        if wanted.peer.namespace != home:
            return False
    else:
        name = wanted.peer.namespace
        known = {**wanted.namespaces.get(name, {}), "kubernetes.io/metadata.name": name}
        if not selects(spaces, known):
            return False
    return pods is None or selects(pods, wanted.peer.labels)


def _in_block(block: Object, ip: str | None) -> bool:
    if ip is None:
        return False
    address = ipaddress.ip_address(ip)

    def within(cidr: str) -> bool:
        return address in ipaddress.ip_network(cidr, strict=False)

    return within(block["cidr"]) and not any(within(cidr) for cidr in block.get("except") or ())


def _is_port(entry: Object, wanted: _Wanted) -> bool:
    if entry.get("protocol", "TCP") != wanted.protocol:
        return False
    first = entry.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        pod = wanted.destination
        return isinstance(pod, Pod) and pod.ports.get((wanted.protocol, first)) == wanted.port
    return bool(first <= wanted.port <= entry.get("endPort", first))


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions`) selects an object with these labels.

    Raises:
        ValueError: an operator that label selectors don't have.
    """
    exact = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in exact.items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    match operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"{operator!r} is no operator of label selectors")
