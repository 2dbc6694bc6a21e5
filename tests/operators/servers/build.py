"""Small values to build cases of: a ModelServer in memory, pods, a Deployment, what was seen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from operators.facts import Deployment, Pod, Trouble
from operators.scaling import policy
from operators.servers.server import Server, Step, step
from operators.signals.values import Key, Place, Seen, Traffic
from switchboard.api.model_server import Spec
from switchboard.kube import Object

NOW = 1_767_600_000.0
"""2026-01-05 08:00 UTC, a Monday."""
AT = datetime.fromtimestamp(NOW, UTC)
AN_HOUR = 3600.0
WINDOW_S = 6


def spec(name: str = "chat", *, edge: str | None = None, **values: Any) -> Spec:
    """In the API's words; `scaling`, `capacity` and `resources` are added to."""
    scaling = {"maxReplicas": 20, "stabilizationSeconds": 0, "utilization": 1, **values.pop("scaling", {})}
    capacity = {"requestsPerSecond": 100_000, "concurrency": 10, **values.pop("capacity", {})}
    placement = {"tier": "core"} if edge is None else {"tier": "edge", "region": edge}
    body = {
        "model": {"name": "chat-intent", "alias": "champion"},
        "image": "switchboard.dev/switchboard:0.1.0",
        "dataClass": "internal",
        "placement": placement,
        "capacity": {key: value for key, value in capacity.items() if value is not None},
        "scaling": scaling,
        **values,
    }
    return Spec.model_validate(body)


def obj(name: str = "chat", **meta: Any) -> Object:
    """What is kept of a ModelServer object."""
    own = {"name": name, "namespace": "core", "uid": f"uid-{name}", "generation": 3, **meta}
    return {"metadata": {"creationTimestamp": "2026-01-05T07:00:00Z", **own}}


def server(name: str = "chat", **values: Any) -> Server:
    """One whose history is known."""
    made = Server(name, obj(name), spec(**values))
    made.view_from = NOW - AN_HOUR
    return made


def pod(
    name: str,
    *,
    ready: bool = True,
    draining: bool = False,
    age: float = AN_HOUR,
    zone: str = "a",
    start: float = 5.0,
    restarts: int = 0,
    trouble: Trouble | None = None,
) -> Pod:
    """One that serves since long; `age` in seconds before NOW."""
    created = NOW - age
    return Pod(
        name=name,
        uid=f"uid-{name}",
        zone=zone,
        created=created,
        ready=ready,
        ready_at=created + start if ready else None,
        restarts=restarts,
        draining=draining,
        trouble=trouble,
    )


def pods(count: int, *, first: int = 0, **values: Any) -> list[Pod]:
    return [pod(f"pod-{first + number}", **values) for number in range(count)]


def deployment(
    replicas: int, *, total: int | None = None, updated: int | None = None, **values: Any
) -> Deployment:
    """One that is settled at so many replicas, but for what is said."""
    there = replicas if total is None else total
    own = {
        "uid": "uid-d",
        "version": 10,
        "generation": 4,
        "observed_generation": 4,
        "replicas": replicas,
        "total": there,
        "updated": there if updated is None else updated,
        "ready": there,
        "applied": "x",
        "scaled_by_us": True,
    }
    return Deployment(**{**own, **values})


UNMEASURED = {"capacity": {"requestsPerSecond": None, "concurrency": 4}}
"""Of a spec: it isn't stated how many requests/s a replica takes."""
IDLE = {f"pod-{number}": 0.0 for number in range(20)}
"""Requests in replicas: in none."""
ROLLING = {"total": 7, "updated": 2}
"""Of a Deployment of six: a rollout under way."""


def traffic(rate: float | None, **values: Any) -> Traffic:
    return Traffic(rate=rate, latest_rate=rate, **values)


def asks(replicas: float | None) -> Traffic:
    """What asks for so many replicas of `spec`, by the requests in them; None for nothing known."""
    if replicas is None:
        return Traffic()
    rate = float(replicas > 0)
    return Traffic(rate=rate, latest_rate=rate, in_service=10 * replicas, measured=math.ceil(replicas))


def seen(found: Traffic, key: Key | None = None, *, source: Any = "prometheus", **values: Any) -> Seen:
    return Seen(NOW, source, {(key or Key("chat"), WINDOW_S): found}, {Place(): 1}, age_s=0.0, **values)


def decided(
    one: Server,
    found: Traffic,
    there: Deployment,
    replicas: list[Pod],
    in_flight: Mapping[str, float] | None = None,
    *,
    now: float = NOW,
    whole: bool = True,
    drained_s: float = 0.0,
) -> Step:
    """A tick of an operator that has known the traffic for an hour, and for `drained_s` which replicas are to go."""
    if one.state is None:
        one.state = dataclasses.replace(policy.begin(now), since=now - AN_HOUR, known_at=now - 2)
    if drained_s:
        one.drains = {each.uid: drained_s for each in replicas if each.draining}
    return step(one, found, there, replicas, in_flight or {}, now, whole=whole)


def acts(made: Step) -> dict[str, Any]:
    """What is to be done, without what isn't."""
    found = {
        "replicas": made.replicas,
        "drain": set(made.drain),
        "restore": set(made.restore),
        "remove": set(made.remove),
    }
    return {key: value for key, value in found.items() if value}
