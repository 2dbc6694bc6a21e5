"""What a pod says about itself: whether it serves, and where. Pure functions of the object.

The rules are those of Kubernetes' endpoints controller, for the parts that resolve endpoints themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from switchboard.kube import Object


def address_of(pod: Object) -> str | None:
    """The pod's IP; None before it has one and after it has ended."""
    status = pod.get("status", {})
    return None if status.get("phase") in ("Succeeded", "Failed") else status.get("podIP")


def serves(pod: Object) -> bool:
    """Ready, not terminating, with an address."""
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp") and address_of(pod) is not None


def start_s(pod: Object) -> float | None:
    """Seconds from its creation until it was ready, to the API's whole ones; None where it isn't, or was begun anew."""
    status = pod.get("status", {})
    if any(one.get("restartCount") for one in status.get("containerStatuses") or ()):
        return None
    for one in status.get("conditions") or ():
        if one["type"] == "Ready" and one["status"] == "True" and one.get("lastTransitionTime"):
            ready = datetime.fromisoformat(one["lastTransitionTime"])
            return (ready - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()
    return None


def labels_of(pod: Object) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def port_named(pod: Object, name: str) -> int | None:
    """The number of the pod's TCP port of that name; None where it has none."""
    for container in _serving_containers(pod):
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == "TCP":
                return int(port["containerPort"])
    return None


def _serving_containers(pod: Object) -> Iterable[Object]:
    yield from pod["spec"]["containers"]
    for container in pod["spec"].get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container
