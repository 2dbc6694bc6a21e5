"""What every pod of Switchboard has in common: the restricted Pod Security level, its own address, its limits, where
it runs and how long it stays on a node that is lost.

Components make their pods and containers here only, so that none of it can be forgotten. A program binds
`status.podIP`, never all addresses: on the embedded cloud all pods of all sites share the machine's loopback, and on
a cluster it does no harm.

There are no PriorityClasses: they are the whole cluster's, which its owners share out, and what a site of
Switchboard's could let go for its gateways and model servers is one Prometheus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.core.v1 import (
    AffinityArgs,
    CapabilitiesArgs,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    HTTPGetActionArgs,
    NodeAffinityArgs,
    NodeSelectorArgs,
    NodeSelectorRequirementArgs,
    NodeSelectorTermArgs,
    ObjectFieldSelectorArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecurityContextArgs,
    TolerationArgs,
    TopologySpreadConstraintArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from switchboard import labels, quantities

UID = 10001
"""The user that all of Switchboard's containers run as."""

LOST_NODE_S = 30
"""How long a core pod stays bound to a node that is not ready or can't be reached, once it is known to be.

Kubernetes' own 300 s are the whole recovery budget (5 min). With this it is: 50 s until a silent node is given up,
these 30 s, and a new pod's start (≤ 120 s by its startup probe). A Deployment doesn't wait for the lost pod's end, but
a StatefulSet's pod is **not** replaced before its node is back or somebody deletes the node (or taints it
`node.kubernetes.io/out-of-service`), since there must never be two of one name. So a lost node costs a model server a
replica until then; the others and the gateways carry on, and `recovery-budget` refuses one that has no others."""

CPU_LIMIT_FACTOR = 4
CPU_LIMIT_LEAST = 2
"""CPU limits bound a container that runs away and are not felt by one that doesn't: four times what it asks for, and
two cores at least, which the bursts of an import or a garbage collection stay below."""

LOGS_MI = 64
"""Disk for a container's logs: kubelets keep five files of 10 Mi."""

Tier = Literal["core", "edge"]


def pod(
    account: pulumi.Input[str],
    containers: Sequence[ContainerArgs],
    *,
    volumes: Sequence[VolumeArgs] = (),
    tier: Tier = "core",
    region: str | None = None,
    token: bool = False,
    grace_s: int = 30,
    **more: Any,
) -> PodSpecArgs:
    """A pod of the service account `account`; `token`: it speaks to the API server. `more` is as in PodSpecArgs."""
    return PodSpecArgs(
        service_account_name=account,
        automount_service_account_token=token,
        # Names of Services come by DNS; a variable for each Service of the namespace would change with its neighbours.
        enable_service_links=False,
        security_context=security(),
        affinity=placement(tier, region),
        tolerations=tolerations(tier),
        termination_grace_period_seconds=grace_s,
        containers=list(containers),
        volumes=list(volumes),
        **more,
    )


def container(
    name: str,
    image: pulumi.Input[str],
    *,
    resources: ResourceRequirementsArgs,
    env: Mapping[str, pulumi.Input[str]] | None = None,
    mounts: Sequence[VolumeMountArgs] = (),
    **more: Any,
) -> ContainerArgs:
    """A container at the restricted level; `env` beside the pod's address and names. `more` is as in ContainerArgs."""
    return ContainerArgs(
        name=name,
        image=image,
        # A digest means one content for ever, so there is nothing to ask a registry again; and a pod must start again
        # on its node while the registry, or the site's way to it, is down.
        image_pull_policy="IfNotPresent",
        env=environment(env),
        resources=resources,
        security_context=container_security(),
        volume_mounts=list(mounts),
        **more,
    )


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
    """An HTTP probe of the pod's own address.

    A readiness probe asks whether requests may come now, and is quick to say no; a liveness probe asks whether only a
    restart would help, of another path where the program has one, and is slow to say so: a replica that is merely busy
    must not be killed for it.
    """
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=port),
        period_seconds=period_s,
        failure_threshold=failures,
        timeout_seconds=timeout_s,
    )


def resources(
    cpu: str, memory: str, memory_limit: str, cpu_limit: str | None = None, *, scratch: str = "0"
) -> ResourceRequirementsArgs:
    """Requests and limits of a container, in Kubernetes' quantities.

    `scratch` is the size of the emptyDir volumes on disk that the container writes; logs have room beside it. What it
    may write on the node's disk is kept for it (request = limit): a node whose disk fills evicts who is above that.
    """
    disk = f"{LOGS_MI + quantities.in_units(scratch, '1Mi')}Mi"
    return ResourceRequirementsArgs(
        requests={"cpu": cpu, "memory": memory, "ephemeral-storage": disk},
        limits={"cpu": cpu_limit or usual_cpu_limit(cpu), "memory": memory_limit, "ephemeral-storage": disk},
    )


def usual_cpu_limit(request: str) -> str:
    """The CPU limit of a container that asks for `request`, in whole cores.

    >>> usual_cpu_limit("250m"), usual_cpu_limit("1500m")
    ('2', '6')
    """
    return str(max(CPU_LIMIT_LEAST, math.ceil(quantities.parse(request) * CPU_LIMIT_FACTOR)))


def scratch(name: str, size: str) -> VolumeArgs:
    """A volume of the node's disk that lives as long as its pod."""
    return VolumeArgs(name=name, empty_dir=EmptyDirVolumeSourceArgs(size_limit=size))


def config_volume(name: str, config_map: pulumi.Input[str]) -> VolumeArgs:
    """A volume that shows a ConfigMap."""
    return VolumeArgs(name=name, config_map=ConfigMapVolumeSourceArgs(name=config_map))


def placement(tier: Tier, region: str | None = None) -> AffinityArgs:
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


def tolerations(tier: Tier = "core") -> list[TolerationArgs]:
    """How long a pod stays bound to a node that is lost: LOST_NODE_S in the core, for good on an edge.

    An edge's pods have no other node to go to. Were they given up while their edge is only cut off, they would be ended
    in the moment in which it is reached again: it has gone on serving, and would stop for its own recovery.
    """
    seconds = None if tier == "edge" else LOST_NODE_S
    return [
        TolerationArgs(
            key=f"node.kubernetes.io/{state}",
            operator="Exists",
            effect="NoExecute",
            toleration_seconds=seconds,
        )
        for state in ("not-ready", "unreachable")
    ]


def spread(match: Mapping[str, str], *, bound: bool) -> Sequence[TopologySpreadConstraintArgs]:
    """Replicas over zones and over nodes, as evenly as there is room.

    Over nodes strictly, unless the pods are `bound` to a node by a volume: then a rule that can't be kept (the volume
    is where another replica is by now) would leave a replica nowhere to run. Over zones never strictly: nodes without
    the label of a zone would get no pod at all, and a zone that is full would hold back replicas that others have
    room for. A node that is lost or cordoned doesn't count (`Honor`), else its replica couldn't go to another.
    """
    return [
        TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable="DoNotSchedule" if strict else "ScheduleAnyway",
            node_taints_policy="Honor",
            label_selector=LabelSelectorArgs(match_labels=dict(match)),
        )
        for key, strict in ((labels.ZONE, False), (labels.HOSTNAME, not bound))
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
