"""Which pods serve which model server, as pure functions of the pods.

A core gateway uses core pods. An edge gateway prefers them too, and falls back to the edge pods of its own region.
A pod that is being deleted leaves at once, before it is told to stop: while it drains, nothing new comes to it. So does
one that is marked to go (`labels.DRAINING`), as long as there is another one in its place.

The arms of a service's release (`releases`) are fleets of the core, beside the service's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from serving.gateway.model_servers import CONCURRENCY, Server
from serving.gateway.releases import BASELINE, CANDIDATE, Release, arm_of, fleet_of
from switchboard import labels
from switchboard.envoy import Endpoint
from switchboard.kube import Object
from switchboard.pods import address_of, labels_of, port_named, serves

PORT_NAME = "http"


@dataclass(frozen=True)
class Split:
    """What of a service's requests its release's arms get, in percent. An arm without an endpoint gets nothing."""

    weight: int = 0
    """What the candidate answers."""
    candidate: int = 0
    """How many requests the candidate's endpoints take at once; 0 where it has none."""
    mirrors: tuple[tuple[str, int], ...] = ()
    """To which arms so much is sent as well, the answers thrown away."""


@dataclass(frozen=True)
class Fleet:
    """A model server's endpoints: the core's and, for an edge, its own, which are used when the core's fail."""

    name: str
    core: tuple[Endpoint, ...] = ()
    own: tuple[Endpoint, ...] | None = None
    """None for a core gateway, and for an arm."""
    from_zero: bool = False
    """It may have no endpoint, and gets one when a request comes."""
    concurrency: int = CONCURRENCY
    """How many requests each endpoint takes at once, of those that are used first."""
    hedge_s: float = 0.0
    """What an endpoint hasn't answered by then is put to another one as well; 0: it isn't."""
    most_at_once: int = CONCURRENCY
    """How many requests the endpoint takes that takes the most, used first or not."""
    split: Split = Split()
    """Of a service that has a release under way."""

    @property
    def arm(self) -> tuple[str, str] | None:
        """Whose arm it is, and which; None for a service."""
        return arm_of(self.name)

    @property
    def hedged(self) -> bool:
        """A slow try has another one beside it, where there is another endpoint."""
        return self.hedge_s > 0 and len(self.core) + len(self.own or ()) > 1

    @property
    def empty(self) -> bool:
        return not self.core and not self.own

    @property
    def moved(self) -> bool:
        """All its requests go to the candidate, since it has no endpoint itself."""
        return self.empty and self.split.weight > 0

    @property
    def held(self) -> bool:
        """Its requests wait, for the endpoint that somebody starts for them."""
        return self.from_zero and self.empty and not self.moved

    @property
    def deserted(self) -> bool:
        """It has no endpoint, and what comes goes elsewhere."""
        return self.empty and (self.held or self.moved or self.arm is not None)

    @property
    def slots(self) -> int:
        """How many requests its endpoints take at once."""
        return self.split.candidate if self.moved else self.concurrency * len(self.core or self.own or ())


@dataclass
class _Place:
    """The endpoints of one tier: those that stay, and those that are marked to go."""

    stay: set[Endpoint] = field(default_factory=set)
    go: set[Endpoint] = field(default_factory=set)

    @property
    def used(self) -> tuple[Endpoint, ...]:
        """Where all are to go, they serve on: that is better than nobody."""
        return tuple(sorted(self.stay or self.go))


def fleets(
    pods: Iterable[Object],
    *,
    tier: Literal["core", "edge"],
    region: str,
    known: Iterable[str],
    servers: Iterable[Server] = (),
    releases: Iterable[Release] = (),
) -> tuple[Fleet, ...]:
    """A fleet for each model server that is known, may be used or has a pod in any state, by name.

    One without endpoints stays: its customers get 503 (try again), not 404 (no such thing).
    """
    used: dict[str, list[Server]] = {}
    for server in servers:
        if server.used_by(tier, region):
            used.setdefault(server.fleet, []).append(server)
    found = {name: (_Place(), _Place()) for name in (*known, *used)}
    for pod in pods:
        name = labels_of(pod).get(labels.MODEL_SERVER)
        if not name:
            continue
        core, own = found.setdefault(name, (_Place(), _Place()))
        port, ip = port_named(pod, PORT_NAME), address_of(pod)
        if port is None or ip is None or not serves(pod):
            continue
        if labels_of(pod).get(labels.TIER, "core") == "core":
            place = core
        elif labels_of(pod).get(labels.REGION) == region:
            place = own
        else:
            continue
        (place.go if _draining(pod) else place.stay).add(Endpoint(ip, port))
    for name in tuple(found):
        if (arm := arm_of(name)) is not None:
            found.setdefault(arm[0], (_Place(), _Place()))  # it goes on there when the arm's tries fail
    made = {
        name: _fleet(name, core.used, own.used if tier == "edge" else None, used.get(name, ()))
        for name, (core, own) in sorted(found.items())
    }
    for release in releases:
        if (fleet := made.get(release.service)) is not None and fleet.arm is None:
            made[fleet.name] = replace(fleet, split=_split(release, made))
    return tuple(made.values())


def _split(release: Release, made: Mapping[str, Fleet]) -> Split:
    arms = [made.get(fleet_of(release.service, arm)) for arm in (CANDIDATE, BASELINE)]
    candidate = arms[0].slots if arms[0] is not None else 0
    mirrored = [arm.name for arm in arms if arm is not None and arm.core] if release.mirror else []
    return Split(
        release.weight if candidate else 0, candidate, tuple((name, release.mirror) for name in mirrored)
    )


def _fleet(
    name: str, core: tuple[Endpoint, ...], own: tuple[Endpoint, ...] | None, servers: Sequence[Server]
) -> Fleet:
    first = "edge" if own and not core else "core"
    arm = arm_of(name) is not None
    return Fleet(
        name,
        core,
        None if arm else own,
        any(server.from_zero for server in servers) and not arm,
        min((server.concurrency for server in servers if server.tier == first), default=CONCURRENCY),
        min((server.hedge_s for server in servers if server.hedge_s), default=0.0),
        max((server.concurrency for server in servers), default=CONCURRENCY),
    )


def _draining(pod: Object) -> bool:
    """The mark counts, whatever time it names: who set it wants nothing new to come."""
    return labels.DRAINING in (pod["metadata"].get("annotations") or {})
