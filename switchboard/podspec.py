"""What every pod of Switchboard has in common, as Kubernetes has it: the restricted Pod Security level, its own
address, its limits, where it runs and how long it stays on a node that is lost.

The Pulumi program makes its pods of it and the operator its model servers', so that neither can forget a part. A
program binds `status.podIP`, never all addresses: on the embedded cloud all pods of all sites share the machine's
loopback, and on a cluster it does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from switchboard import labels, quantities

Spec = dict[str, Any]
"""A part of a Kubernetes object."""

Tier = Literal["core", "edge"]

UID = 10001
"""The user that all of Switchboard's containers run as."""

LOST_NODE_S = 30
"""How long a core pod stays bound to a node that is not ready or can't be reached, once it is known to be.

Kubernetes' own 300 s are the whole recovery budget (5 min). With this it is: 50 s until a silent node is given up,
these 30 s, and a new pod's start. A Deployment doesn't wait for the lost pod's end; a StatefulSet's pod is **not**
replaced before its node is back or somebody deletes the node (or taints it `node.kubernetes.io/out-of-service`), since
there must never be two of one name."""

CPU_LIMIT_FACTOR = 4
CPU_LIMIT_LEAST = 2
"""CPU limits bound a container that runs away and are not felt by one that doesn't: four times what it asks for, and
two cores at least, which the bursts of an import or a garbage collection stay below."""

LOGS_MI = 64
"""Disk for a container's logs: kubelets keep five files of 10 Mi."""


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


def usual_cpu_limit(request: str) -> str:
    """The CPU limit of a container that asks for `request`, in whole cores.

    >>> usual_cpu_limit("250m"), usual_cpu_limit("1500m")
    ('2', '6')
    """
    return str(max(CPU_LIMIT_LEAST, math.ceil(quantities.parse(request) * CPU_LIMIT_FACTOR)))


def resources(
    cpu: str, memory: str, memory_limit: str, cpu_limit: str | None = None, *, scratch: str = "0"
) -> Spec:
    """Requests and limits of a container, in Kubernetes' quantities.

    `scratch` is the size of the emptyDir volumes on disk that the container writes; logs have room beside it. What it
    may write on the node's disk is kept for it (request = limit): a node whose disk fills evicts who is above that.
    """
    disk = f"{LOGS_MI + quantities.in_units(scratch, '1Mi')}Mi"
    return {
        "requests": {"cpu": cpu, "memory": memory, "ephemeral-storage": disk},
        "limits": {
            "cpu": cpu_limit or usual_cpu_limit(cpu),
            "memory": memory_limit,
            "ephemeral-storage": disk,
        },
    }


def security(uid: int = UID) -> Spec:
    """A pod's security context at the restricted level."""
    return {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": uid,
        "fsGroup": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Spec:
    """A container's security context at the restricted level, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def environment(values: Mapping[str, Any] | None = None) -> list[Spec]:
    """The pod's address and names as variables, and `values`."""
    own = {
        "POD_IP": "status.podIP",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
    }
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in own.items()]
    return [*fields, *({"name": name, "value": value} for name, value in (values or {}).items())]


def probe(path: str, port: int | str, *, period_s: int = 5, failures: int = 3, timeout_s: int = 2) -> Spec:
    """An HTTP probe of the pod's own address.

    A readiness probe asks whether requests may come now, and is quick to say no; a liveness probe asks whether only a
    restart would help, of another path where the program has one, and is slow to say so: a replica that is merely busy
    must not be killed for it.
    """
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }


def placement(tier: Tier, region: str | None = None) -> Spec:
    """An affinity: core pods anywhere but on edge nodes, edge pods on the edge nodes of their region."""
    if tier == "edge":
        rules = [{"key": labels.TIER, "operator": "In", "values": ["edge"]}]
        if region is not None:
            rules.append({"key": labels.REGION, "operator": "In", "values": [region]})
    else:
        rules = [{"key": labels.TIER, "operator": "NotIn", "values": ["edge"]}]
    required = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def tolerations(tier: Tier = "core") -> list[Spec]:
    """How long a pod stays bound to a node that is lost: LOST_NODE_S in the core, for good on an edge.

    An edge's pods have no other node to go to. Were they given up while their edge is only cut off, they would be ended
    in the moment in which it is reached again: it has gone on serving, and would stop for its own recovery.
    """
    seconds = {} if tier == "edge" else {"tolerationSeconds": LOST_NODE_S}
    return [
        {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", **seconds}
        for state in ("not-ready", "unreachable")
    ]


def spread(match: Mapping[str, str], *, strict: bool) -> list[Spec]:
    """Replicas over zones and over nodes, as evenly as there is room.

    Over nodes strictly where `strict`: not for pods that a volume binds to a node, nor for as many as come and go with
    the traffic, when a node that is full would hold back replicas that others have room for. Over zones never strictly:
    nodes without the label of a zone would get no pod at all. A node that is lost or cordoned doesn't count (`Honor`),
    else its replica couldn't go to another.
    """
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule" if bound else "ScheduleAnyway",
            "nodeTaintsPolicy": "Honor",
            "labelSelector": {"matchLabels": dict(match)},
        }
        for key, bound in ((labels.ZONE, False), (labels.HOSTNAME, strict))
    ]
