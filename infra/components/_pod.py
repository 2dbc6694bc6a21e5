"""What every pod of Switchboard has in common: the restricted Pod Security level, its own address, its probes.

A program binds `status.podIP`, never all addresses: on the embedded cloud all pods of all sites share the machine's
loopback, and on a cluster it does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import (
    AffinityArgs,
    CapabilitiesArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    HTTPGetActionArgs,
    NodeAffinityArgs,
    NodeSelectorArgs,
    NodeSelectorRequirementArgs,
    NodeSelectorTermArgs,
    ObjectFieldSelectorArgs,
    PodSecurityContextArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    TopologySpreadConstraintArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from switchboard import labels

UID = 10001
"""The user that all of Switchboard's containers run as."""


def security(uid: int = UID) -> PodSecurityContextArgs:
    """A pod's security context at the restricted level."""
    return PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=uid,
        run_as_group=uid,
        fs_group=uid,
        seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> SecurityContextArgs:
    """A container's security context at the restricted level, with a read-only root."""
    return SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=CapabilitiesArgs(drop=["ALL"]),
    )


def field(name: str, path: str) -> EnvVarArgs:
    """An environment variable from the pod's own fields."""
    return EnvVarArgs(
        name=name, value_from=EnvVarSourceArgs(field_ref=ObjectFieldSelectorArgs(field_path=path))
    )


def environment(values: Mapping[str, pulumi.Input[str]] | None = None) -> list[EnvVarArgs]:
    """The pod's address and names, and `values`."""
    own = [
        field("POD_IP", "status.podIP"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("NODE_NAME", "spec.nodeName"),
    ]
    return own + [EnvVarArgs(name=name, value=value) for name, value in (values or {}).items()]


def probe(
    path: str, port: int | str, *, period_s: int = 5, failures: int = 3, timeout_s: int = 2
) -> ProbeArgs:
    """An HTTP probe of the pod's own address."""
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=port),
        period_seconds=period_s,
        failure_threshold=failures,
        timeout_seconds=timeout_s,
    )


def resources(
    cpu: str, memory: str, memory_limit: str, cpu_limit: str | None = None
) -> ResourceRequirementsArgs:
    """Requests, and limits: memory always; CPU only where it is asked for, since a CPU limit adds latency."""
    limits = {"memory": memory_limit}
    if cpu_limit is not None:
        limits["cpu"] = cpu_limit
    return ResourceRequirementsArgs(requests={"cpu": cpu, "memory": memory}, limits=limits)


def placement(tier: str, region: str | None = None) -> AffinityArgs:
    """Core pods anywhere but on edge nodes, edge pods on the edge nodes of their region."""
    if tier == "edge":
        rules = [NodeSelectorRequirementArgs(key=labels.TIER, operator="In", values=["edge"])]
        if region is not None:
            rules.append(NodeSelectorRequirementArgs(key=labels.REGION, operator="In", values=[region]))
    else:
        rules = [NodeSelectorRequirementArgs(key=labels.TIER, operator="NotIn", values=["edge"])]
    return AffinityArgs(
        node_affinity=NodeAffinityArgs(
            required_during_scheduling_ignored_during_execution=NodeSelectorArgs(
                node_selector_terms=[NodeSelectorTermArgs(match_expressions=rules)]
            )
        )
    )


def spread(match: Mapping[str, str]) -> Sequence[TopologySpreadConstraintArgs]:
    """Replicas over zones and over nodes, as evenly as there is room."""
    return [
        TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=LabelSelectorArgs(match_labels=dict(match)),
        )
        for key in (labels.ZONE, labels.HOSTNAME)
    ]


def names(app: str, component: str) -> dict[str, str]:
    """The recommended labels of an application's objects."""
    return {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "switchboard",
    }


def scraped(port: int, path: str = "/metrics") -> dict[str, str]:
    """Annotations by which Prometheus finds a pod."""
    return {labels.SCRAPE: "true", labels.SCRAPE_PORT: str(port), labels.SCRAPE_PATH: path}


def first_address(status: Any) -> str:
    """The address of a LoadBalancer Service, from its status."""
    ingress = ((status or {}).get("load_balancer") or {}).get("ingress") or []
    for entry in ingress:
        if address := entry.get("ip") or entry.get("hostname"):
            return address
    if pulumi.runtime.is_dry_run():
        return "address-known-after-up"
    raise ValueError("the Service has no load-balancer address")
