"""Which pods serve which model server, as pure functions of the pods.

A core gateway uses core pods. An edge gateway prefers them too, and falls back to the edge pods of its own region.
A pod that is being deleted leaves at once, before it is told to stop: while it drains, nothing new comes to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from switchboard import labels
from switchboard.envoy import Endpoint
from switchboard.kube import Object
from switchboard.pods import address_of, labels_of, port_named, serves

PORT_NAME = "http"


@dataclass(frozen=True)
class Fleet:
    """A model server's endpoints: the core's and, for an edge, its own, which are used when the core's fail."""

    name: str
    core: tuple[Endpoint, ...] = ()
    own: tuple[Endpoint, ...] | None = None
    """None for a core gateway."""


def fleets(
    pods: Iterable[Object], *, tier: Literal["core", "edge"], region: str, known: Iterable[str]
) -> tuple[Fleet, ...]:
    """A fleet for each model server that is known or has a pod in any state, by name.

    One without endpoints stays: its customers get 503 (try again), not 404 (no such thing).
    """
    found: dict[str, tuple[set[Endpoint], set[Endpoint]]] = {name: (set(), set()) for name in known}
    for pod in pods:
        server = labels_of(pod).get(labels.MODEL_SERVER)
        if not server:
            continue
        core, own = found.setdefault(server, (set(), set()))
        port, ip = port_named(pod, PORT_NAME), address_of(pod)
        if port is None or ip is None or not serves(pod):
            continue
        if labels_of(pod).get(labels.TIER, "core") == "core":
            core.add(Endpoint(ip, port))
        elif labels_of(pod).get(labels.REGION) == region:
            own.add(Endpoint(ip, port))
    return tuple(
        Fleet(name, tuple(sorted(core)), tuple(sorted(own)) if tier == "edge" else None)
        for name, (core, own) in sorted(found.items())
    )
