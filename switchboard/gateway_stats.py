"""What a gateway counts, from the text of its `/stats/prometheus`: arrivals, retries, refusals, queues by model server.

For whoever sizes model servers while Prometheus is away. `PATH` asks a gateway for the needed statistics only.

Envoy counts *tries* to reach a replica (`upstream_rq_total` and others), not requests of customers. That alone would
count a request that is held and then served twice, and leave out what found no connection. So the gateway counts each
request once, when it has arrived as a whole, whatever becomes of it (`serving/gateway/README.md` has the semantics).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

Tier = Literal["core", "edge"]
Key = tuple[str, Tier]
"""A service (`chat` of `/v1/chat`), and which of its replicas are meant: the site's or those of the gateway's edge."""

MAX_BYTES = 32 * 2**20

_ARRIVED = "envoy_http_local_rate_limit_enabled"
_RETRIED, _NOBODY = "envoy_cluster_upstream_rq_retry", "envoy_cluster_upstream_cx_none_healthy"
_SENT, _UNCONNECTED = "envoy_cluster_upstream_rq_total", "envoy_cluster_upstream_rq_pending_failure_eject"
_CANCELLED = "envoy_cluster_upstream_rq_cancelled"
_BEYOND = ("envoy_cluster_upstream_rq_pending_overflow", "envoy_cluster_upstream_rq_active_overflow")
"""More than may wait for a connection, more than may be at work."""
_ACTIVE, _PENDING = "envoy_cluster_upstream_rq_active", "envoy_cluster_upstream_rq_pending_active"
_OF_CLUSTERS = (_RETRIED, _NOBODY, _SENT, _UNCONNECTED, _CANCELLED, *_BEYOND, _ACTIVE, _PENDING)
_TRIES = (_SENT, _UNCONNECTED, _CANCELLED, *_BEYOND)

_LINE = re.compile(rb'="([^"\\\n]{1,253})"\} (\d{1,15})\n')
"""Counters and gauges of Envoy's are whole numbers; what isn't one is no reading."""
_NAMES = ["http_local_rate_limit.enabled", *(name.removeprefix("envoy_cluster_") for name in _OF_CLUSTERS)]
PATH = "/stats/prometheus?filter=" + quote(f"[.]({'|'.join(_NAMES)})$")
"""Where a gateway's port for statistics (9902) has what `parse` reads, a tenth of all that there is."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one gateway; the first three count since its Envoy started, the other two are of now.

    - `arrivals`: customers' requests, each once, whatever became of them. For an edge's own replicas: what was sent to
      them since the core had no replica that answers. It has arrived at the core too, and is what the core lacks.
    - `retries`: second, third and fourth tries of requests. At an edge gateway all are counted for the core.
    - `refused`: answered with 503 by the gateway itself, for want of a replica or beyond what may be at work or wait.
    - `in_service`: requests that replicas are at work on, for this gateway.
    - `queued`: requests that wait for a connection or for the first replica; and, until the last one that waited is
      answered, those that are at work of these (no more than the replicas take at once).
    """

    arrivals: float
    retries: float = 0.0
    refused: float = 0.0
    in_service: float = 0.0
    queued: float = 0.0


def parse(text: str | bytes) -> dict[Key, Counters]:
    """The counters of every service that the gateway knows; `edge` where it has replicas of its own.

    Raises:
        ValueError: the text is too long, or a part of it is missing.
    """
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes of statistics, more than {MAX_BYTES}")
    if raw and not raw.endswith(b"\n"):
        raise ValueError("the statistics end within a line: they are cut off")
    arrived = _series(raw, _ARRIVED)
    if not arrived:
        return {}
    found: dict[str, dict[bytes, int]] = {}
    for name in _OF_CLUSTERS:
        series = _series(raw, name)
        if series is None:
            raise ValueError(f"no {name} beside {_ARRIVED}: the text is cut off")
        found[name] = series
    made: dict[Key, Counters] = {}
    for label, total in arrived.items():
        if any(label not in series for series in found.values()):
            continue  # its cluster is on the way, or said nothing of use
        service, core = label.decode(errors="replace"), (label, label + b"@core")
        own, held = label + b"@edge", label + b"@activator"

        def of(name: str, *clusters: bytes) -> int:
            return sum(found[name].get(cluster, 0) for cluster in clusters)

        made[service, "core"] = Counters(
            arrivals=total,
            retries=of(_RETRIED, label),
            refused=of(_NOBODY, label) + sum(of(name, *core, held) for name in _BEYOND),
            in_service=of(_ACTIVE, *core),
            queued=of(_PENDING, *core, held) + of(_ACTIVE, held),
        )
        if own in found[_SENT]:
            made[service, "edge"] = Counters(
                arrivals=sum(of(name, own) for name in _TRIES),
                refused=sum(of(name, own) for name in _BEYOND),
                in_service=of(_ACTIVE, own),
                queued=of(_PENDING, own),
            )
    return made


def _series(raw: bytes, name: str) -> dict[bytes, int] | None:
    """A metric's series by label; None where it isn't there."""
    head = b"\n# TYPE " + name.encode() + b" "
    start = 0 if raw.startswith(head[1:]) else raw.find(head)
    if start < 0:
        return None
    end = raw.find(b"\n#", start + 1)
    lines = _LINE.findall(raw, start, end + 1 if end >= 0 else len(raw))
    return {label: int(value) for label, value in lines}
