"""What the gateway needs to know of a ModelServer, as pure functions of the object: who may have no replica at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.gateway.releases import BASELINE, CANDIDATE, fleet_of
from switchboard.kube import Object

CONCURRENCY = 32
"""Of a replica, where its ModelServer doesn't say (`switchboard.api.model_server.Capacity`)."""


@dataclass(frozen=True, order=True)
class Server:
    """A ModelServer: whose replicas it has, where they run, how much each takes at once.

    `fleet`: the service that it answers, or an arm of that service's release. `from_zero`: it may have no replica, and
    the operator starts one when a request comes. `hedge_s`: what it hasn't answered by then is put to another one as
    well; 0: it isn't.
    """

    fleet: str
    tier: str = "core"
    region: str = ""
    concurrency: int = CONCURRENCY
    from_zero: bool = False
    hedge_s: float = 0.0

    def used_by(self, tier: str, region: str) -> bool:
        """Whether a gateway of that tier and region sends requests to its replicas."""
        return self.tier == "core" or (tier == "edge" and self.region == region)


def parse(obj: Object) -> Server | None:
    """None where the object says nothing of use: the API server checks it, but that is another program's word.

    One that is paused, or decided on and not acted for, is started by nobody: to wait for it would be in vain.
    """
    spec = _mapping(obj.get("spec"))
    scaling, placement = _mapping(spec.get("scaling")), _mapping(spec.get("placement"))
    service = spec.get("service") or _mapping(obj.get("metadata")).get("name")
    capacity = _mapping(spec.get("capacity"))
    concurrency, hedge_ms = capacity.get("concurrency", CONCURRENCY), capacity.get("hedgeMilliseconds")
    least, arm = scaling.get("minReplicas", 1), spec.get("arm")
    if not isinstance(service, str) or not isinstance(concurrency, int) or not isinstance(least, int):
        return None
    if arm not in (None, CANDIDATE, BASELINE):
        return None
    starts = scaling.get("mode", "active") == "active" and not _mapping(scaling.get("pause")).get("up", False)
    return Server(
        service if arm is None else fleet_of(service, arm),
        str(placement.get("tier", "core")),
        str(placement.get("region") or ""),
        max(1, concurrency),
        least == 0 and starts,
        hedge_ms / 1000 if isinstance(hedge_ms, int) and hedge_ms > 0 else 0.0,
    )


def servers(objects: Iterable[Object]) -> tuple[Server, ...]:
    return tuple(sorted(found for one in objects if (found := parse(one)) is not None))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
