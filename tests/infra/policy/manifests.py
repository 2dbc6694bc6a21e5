"""Manifests that the policies' tests judge, and the stack's sites."""

from __future__ import annotations

import copy
from typing import Any

from infra.policy.rules import violations
from infra.policy.subject import Site, Subject
from switchboard import labels

SITES = {
    "private": Site("private", "cn-shanghai"),
    "public": Site("public", "cn-shenzhen"),
    "embedded": Site("public", "cn-shenzhen", embedded=True),
}
DIGEST = "registry.bank.example/chat@sha256:" + 64 * "0"
MISSING = object()


def deployment(**changes: Any) -> dict[str, Any]:
    """A Deployment that no rule refuses, with `changes` by dotted path (`MISSING` removes; `c.` is the container)."""
    about = {labels.DATA_CLASS: "internal", labels.SITE_ROLE: "public", labels.REGION: "cn-shenzhen"}
    lost = [
        {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "tolerationSeconds": 30} for why in LOST
    ]
    container = {
        "name": "app",
        "image": DIGEST,
        "securityContext": {"allowPrivilegeEscalation": False},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }
    spec = {"securityContext": {"runAsNonRoot": True}, "containers": [container], "tolerations": lost}
    found: dict[str, Any] = {
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "serving", "labels": dict(about), "annotations": {}},
        "spec": {"template": {"metadata": {"labels": dict(about), "annotations": {}}, "spec": spec}},
    }
    places = {"c": container, "pod": spec, "m": found["metadata"], "t": found["spec"]["template"]["metadata"]}
    for path, value in changes.items():
        first, *rest = path.split("__")
        at = places[first]
        for key in rest[:-1]:
            at = at.setdefault(key, {})
        if value is MISSING:
            at.pop(rest[-1], None)
        else:
            at[rest[-1]] = value
    return found


LOST = ("not-ready", "unreachable")


def both(data: Any, regions: str | None = None, region: Any = "cn-shenzhen") -> dict[str, Any]:
    """A Deployment that holds `data`, and so do its pods."""
    found = deployment()
    for part in (found["metadata"], found["spec"]["template"]["metadata"]):
        part["labels"] = {labels.SITE_ROLE: "public", labels.DATA_CLASS: data}
        if region is not None:
            part["labels"][labels.REGION] = region
        part["annotations"] = {labels.DATA_REGIONS: regions} if regions is not None else {}
    return found


def held(manifest: dict[str, Any], *regions: Any, alternatives: int = 1) -> dict[str, Any]:
    """The workload, its pods bound to nodes of these regions (by one term of node affinity or several)."""
    found = copy.deepcopy(manifest)
    terms = [
        {"matchExpressions": [{"key": labels.REGION, "operator": "In", "values": list(regions)}]}
        for _ in range(alternatives)
    ]
    found["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    }
    return found


def spread(manifest: dict[str, Any], replicas: int = 2, **rule: Any) -> dict[str, Any]:
    """The workload with so many replicas, spread over nodes; `rule` changes the rule by which they are."""
    found = copy.deepcopy(manifest)
    template = found["spec"]["template"]
    about = template["metadata"]["labels"]
    about["app"] = "chat"
    spreading = {"topologyKey": labels.HOSTNAME, "labelSelector": {"matchLabels": {"app": "chat"}}, **rule}
    found["spec"]["replicas"] = replicas
    template["spec"]["topologySpreadConstraints"] = [spreading]
    return found


def claims(*regions: str, data: str | None = "customer") -> dict[str, Any]:
    """A StatefulSet of internal data, with a claim of `data` (None: it doesn't say)."""
    about = {
        "name": "words",
        "labels": {labels.DATA_CLASS: data} if data is not None else {},
        "annotations": {labels.DATA_REGIONS: ",".join(regions)} if regions else {},
    }
    found = spread(deployment()) | {"kind": "StatefulSet"}
    found["spec"]["volumeClaimTemplates"] = [{"metadata": about}]
    return found


def server(site: str = "public", **changes: Any) -> dict[str, Any]:
    """A ModelServer that no rule refuses, with `changes` by dotted path of its spec (`m__` of its metadata; `MISSING`
    removes)."""
    about = {
        labels.DATA_CLASS: "customer",
        labels.SITE: site,
        labels.SITE_ROLE: "public",
        labels.REGION: "cn-shenzhen",
    }
    found: dict[str, Any] = {
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "chat", "namespace": "serving", "labels": about, "annotations": {}},
        "spec": {
            "model": {"name": "chat-intent", "alias": "champion"},
            "image": DIGEST,
            "dataRegions": ["cn-shenzhen", "cn-beijing"],
            "scaling": {"minReplicas": 2, "maxReplicas": 6},
        },
    }
    for path, value in changes.items():
        first, *rest = path.split("__")
        at = found["metadata"] if first == "m" else found["spec"]
        way = rest if first == "m" else [first, *rest]
        for key in way[:-1]:
            at = at.setdefault(key, {})
        if value is MISSING:
            at.pop(way[-1], None)
        else:
            at[way[-1]] = value
    return found


def edge_server(region: str = "cn-beijing", **changes: Any) -> dict[str, Any]:
    """A ModelServer of one replica on the edge of a region."""
    found = server(
        placement={"tier": "edge", "region": region}, scaling={"minReplicas": 1, "maxReplicas": 1}, **changes
    )
    found["metadata"]["labels"][labels.REGION] = region
    return found


def simple(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "labels": more.pop("labels", {})}, **more}


def broken(manifest: dict[str, Any], site: str | None = "public") -> dict[str, list[str]]:
    """Rule → reasons."""
    found: dict[str, list[str]] = {}
    for violation in violations([Subject(manifest, site, SITES)]):
        found.setdefault(violation.rule, []).append(violation.reason)
    return found
