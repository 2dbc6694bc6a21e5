"""What both arms did, as Prometheus has it: one range query, and blocks of what came between two of its steps.

Cumulative numbers are asked for, and subtracted here: so a counter that begins anew, a pod that isn't there at one end,
a scrape that failed, are seen as what they are. All of it is in Prometheus: who takes over a release asks for it again,
from the first minute on.

Whether a customer's request failed is counted by gateways: a try that failed at an arm, whether another replica made it
good or not, since a replica that is gone counts nothing. (`upstream_rq_retry` and the 5xx of an arm's cluster, which
together are each of them once: `serving/gateway/README.md`.) Which replica it was isn't in these numbers; how replicas
differ with nothing wrong is in their own. Of mirrored requests the replicas' counts are taken.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.canary.values import BOUND_S, NO_POD, WINDOW_S, Block, Count, Unit
from operators.signals.query import joined

BLOCK_S = 10
LATE_S = 4.0
"""A block is looked at so long after its end: scrapes are 2 s apart, and one may be late."""
GROWN_BYTES = 3 * 1024 * 1024
"""More of it within WINDOW_S is growth: at that pace a replica is at its limit within the hour or two."""

_BY_POD, _BY_CLUSTER = "by (model_server, pod)", "by (envoy_cluster_name, pod)"


def query(fleets: Iterable[str], *, shadow: bool = False) -> str:
    """Everything that is compared of these fleets, each series with the label `signal`.

    `shadow`: of the requests that were mirrored to them, where their own are meant otherwise.
    """
    names = "|".join(sorted(fleets))
    pods = f'model_server=~"{names}",tier="core"'
    asked = f'{pods},traffic="{"shadow" if shadow else "customer"}"'
    requests, seconds = "switchboard_requests_total", "switchboard_request_seconds"
    parts = {
        "requests": f"sum {_BY_POD} ({requests}{{{asked}}})",
        "failed": f'sum {_BY_POD} ({requests}{{{asked},code=~"5.."}})',
        "handoff": f'sum {_BY_POD} ({requests}{{{asked},intent="handover"}})',
        "fallback": f"sum {_BY_POD} (switchboard_fallbacks_total{{{asked}}})",
        "slow": f'sum {_BY_POD} ({seconds}_count{{{asked},code=~"2.."}}) - '
        f'sum {_BY_POD} ({seconds}_bucket{{{asked},code=~"2..",le="{BOUND_S}"}})',
        "started": f"max {_BY_POD} (process_start_time_seconds{{{pods}}})",
        "memory": f"max {_BY_POD} (process_resident_memory_bytes{{{pods}}})",
        **({} if shadow else _customers(names)),
    }
    return joined(parts)


def _customers(names: str) -> dict[str, str]:
    clusters = f'envoy_cluster_name=~"{names}"'
    prefix = "envoy_local_http_ratelimit_prefix"
    return {
        "arrived": f'sum by ({prefix}, pod) (envoy_http_local_rate_limit_enabled{{{prefix}=~"{names}"}})',
        "repeated": f"sum {_BY_CLUSTER} (envoy_cluster_upstream_rq_retry{{{clusters}}})",
        "refused": f'sum {_BY_CLUSTER} (envoy_cluster_upstream_rq_xx{{{clusters},envoy_response_code_class="5"}})',
    }


_OF_GATEWAYS = ("arrived", "repeated", "refused")


@dataclass(frozen=True, slots=True)
class Look:
    """The cumulative numbers at one time, of each signal: by fleet and replica, and by fleet and gateway."""

    at: float
    pods: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    gateways: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)


def read(answer: Iterable[Mapping[str, Any]]) -> list[Look]:
    """The looks of an answer (`data.result` of a range query), oldest first; what is no number is left out."""
    pods, gateways = _table(), _table()
    for series in answer:
        labels = series.get("metric") or {}
        signal, pod = labels.get("signal"), labels.get("pod", "")
        of_gateways = signal in _OF_GATEWAYS
        name = labels.get("envoy_cluster_name") or labels.get("envoy_local_http_ratelimit_prefix") or ""
        fleet = name.partition("@")[0] if of_gateways else labels.get("model_server", "")
        if signal is not None:
            for at, value in _values(series):
                (gateways if of_gateways else pods)[at][fleet, pod][signal] = value
    return [Look(at, pods.get(at, {}), gateways.get(at, {})) for at in sorted({*pods, *gateways})]


def _table() -> dict[float, dict[tuple[str, str], dict[str, float]]]:
    return defaultdict(lambda: defaultdict(dict))


def _values(series: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    for pair in series.get("values") or ():
        try:
            at, value = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, IndexError):
            continue
        if math.isfinite(value):
            yield at, value


_SIGNALS = {
    "failed": "requests",
    "slow": "slow",
    "fallback": "fallback",
    "handoff": "requests",
    "restarts": "started",
    "grew": "memory",
}
"""By metric, what replicas have to say for it to be known."""


def unseen(looks: Iterable[Look], fleet: str) -> tuple[str, ...]:
    """The metrics of which there is no data of any of a fleet's replicas, or of no gateway that asks them."""
    said = {
        signal
        for look in looks
        for known in (look.pods, look.gateways)
        for (owner, _), signals in known.items()
        if owner == fleet
        for signal in signals
    }
    return tuple(
        name
        for name, signal in _SIGNALS.items()
        if signal not in said or (name == "failed" and "arrived" not in said)
    )


class Blocks:
    """Makes blocks of looks that follow each other, for a candidate's fleet and the one that it is compared with.

    `warm`: since when each pod counts; one that isn't in it has just begun, or is gone. `shadow`: what is mirrored to
    them is compared, of which gateways count nothing; of customers' requests, replicas know too little: one that is
    gone has counted no failure, so without the gateways' numbers nothing is known.
    """

    def __init__(self, candidate: str, champion: str, *, shadow: bool = False) -> None:
        self._fleets = (candidate, champion)
        self._shadow = shadow
        self._before: Look | None = None
        self._window: Look | None = None

    def add(self, look: Look, warm: Mapping[str, float]) -> Block | None:
        """The block that ends with `look`; None for the first, and after a gap."""
        before, self._before = self._before, look
        if before is None or look.at - before.at > 1.5 * BLOCK_S:
            self._window = look
            return None
        window = self._window if self._window is not None else before
        whole = look.at - window.at >= WINDOW_S
        arms: list[dict[str, dict[str, Count]]] = []
        for fleet in self._fleets:
            found: dict[str, dict[str, Count]] = defaultdict(dict)
            for (owner, pod), now in look.pods.items():
                if owner == fleet and warm.get(pod, math.inf) <= before.at:
                    _count(found, pod, before.pods.get((fleet, pod), {}), now, look.at - before.at)
                    if whole and warm[pod] <= window.at:
                        _grew(found, pod, window.pods.get((fleet, pod), {}), now)
            arms.append(dict(found))
        own = {"failed": dict(arms[1].get("failed", {}))}
        if not self._shadow:
            for fleet, found in zip(self._fleets, arms, strict=True):
                _failed(found, fleet, before, look)
        if whole:
            self._window = look
        return Block(before.at, look.at, arms[0], arms[1], own)


def _failed(found: dict[str, dict[str, Count]], fleet: str, before: Look, look: Look) -> None:
    """By what gateways know, in place of the replicas' own counts."""
    more: dict[str, float] = defaultdict(float)
    for (owner, gateway), now in look.gateways.items():
        then = before.gateways.get((fleet, gateway))
        if owner == fleet and then is not None:
            for signal in _OF_GATEWAYS:
                more[signal] += _increase(then.get(signal, 0.0), now.get(signal))
    pods = found.pop("failed", {})
    if more["arrived"] > 0:
        # An arm without a living replica has failed, too, so its requests are those that arrived.
        failed = min(more["repeated"] + more["refused"], more["arrived"])
        answered = sum(one.of for one in pods.values())
        share = {pod: one.of / answered for pod, one in pods.items()} if answered > 0 else {NO_POD: 1.0}
        found["failed"] = {pod: Count(failed * part, more["arrived"] * part) for pod, part in share.items()}


def _count(
    found: dict[str, dict[str, Count]],
    pod: str,
    before: Mapping[str, float],
    now: Mapping[str, float],
    seconds: float,
) -> None:
    if "requests" in now and "requests" in before:
        requests = _increase(before["requests"], now["requests"])
        for name in ("failed", "slow", "handoff", "fallback"):
            # A label that never came is none; a number that isn't there at all is nothing known.
            if _SIGNALS[name] in now and _SIGNALS[name] in before:
                events = _increase(before.get(name, 0.0), now.get(name, 0.0))
                found[name][pod] = Count(min(events, requests), requests)
    if "started" in now and "started" in before:
        again = float(now["started"] - before["started"] > 1.0)
        found["restarts"][pod] = Count(again, Unit.POD_HOURS.of(seconds))


def _grew(
    found: dict[str, dict[str, Count]], pod: str, before: Mapping[str, float], now: Mapping[str, float]
) -> None:
    """Some seconds of a process: whether it has much more memory than at their beginning."""
    if "memory" in now and "memory" in before and now.get("started") == before.get("started"):
        found["grew"][pod] = Count(float(now["memory"] - before["memory"] > GROWN_BYTES), 1.0)


def _increase(before: float | None, now: float | None) -> float:
    """Of a counter, which may have begun anew."""
    if now is None:
        return 0.0
    return now - before if before is not None and now >= before else now
