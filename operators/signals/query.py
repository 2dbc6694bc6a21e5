"""The one PromQL query of a tick, those that are asked beside it, and what their answers say: pure functions.

A series of the answer has the label `signal`, and those that say whose it is. Gateways count each customer's request
once, when it has arrived, whatever becomes of it, for the core; what is sent to an edge's own replicas, since the core
has none that answers, counts for those too (`switchboard.gateway_stats` reads the same from a gateway's own text, and
`serving/gateway/README.md` has the semantics). What replicas say of themselves are the requests in them, what they
answered, and the processor time that it took.

A rate over a few seconds needs two samples in them; where a scrape fails, the series is simply not in the answer. So a
gap is seen as a gap: by the series that aren't there and by the number of gateways that the sum is of.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from operators.signals.values import CORE, EDGE, Key, Measured, Place, Seen, Traffic

SCRAPE_S = 2
LATEST_S = 3 * SCRAPE_S
"""Two samples are in so much, whichever way the scrapes fall and though one is late."""
CPU_WINDOW_S = 10
AT_EDGE, HELD = "@edge", "@activator"
"""The ends of the names of the gateways' clusters: an edge's own replicas, and requests that wait for a first one."""

_ARRIVED = "envoy_http_local_rate_limit_enabled"
_SERVICE = "envoy_local_http_ratelimit_prefix"
"""The label of `_ARRIVED` that names the service."""
_TRIES = {
    "sent": "envoy_cluster_upstream_rq_total",
    "unconnected": "envoy_cluster_upstream_rq_pending_failure_eject",
    "cancelled": "envoy_cluster_upstream_rq_cancelled",
    "not-queued": "envoy_cluster_upstream_rq_pending_overflow",
    "not-begun": "envoy_cluster_upstream_rq_active_overflow",
}
"""What becomes of a request that is for an edge's own replicas: each is in one of these."""
_WAITING = "envoy_cluster_upstream_rq_pending_active"
_ACTIVE = "envoy_cluster_upstream_rq_active"

_BY_SERVICE = f"by ({_SERVICE})"
_BY_CLUSTER = "by (envoy_cluster_name, tier, region)"
_BY_SERVER = "by (model_server, tier, region)"
_CLUSTERS = '{envoy_cluster_name!~"_.*"}'
_CPU = f'rate(process_cpu_seconds_total{{model_server!=""}}[{CPU_WINDOW_S}s])'
_OF_NONE = Measured(None, None, 0)
_LATEST = 0
"""In place of a window: the last two samples."""


def query(windows_s: Iterable[int], pods: Sequence[str] = ()) -> str:
    """All signals at once; `windows_s` are those of the rates, `pods` those whose own requests are asked for."""
    parts = {
        "waiting": f"sum {_BY_CLUSTER} ({_WAITING}{_CLUSTERS})",
        "held": f'sum {_BY_CLUSTER} ({_ACTIVE}{{envoy_cluster_name=~".+{HELD}"}})',
        "age": f"time() - max(timestamp({_ARRIVED}))",
        "gateways": f"count by (tier, region) (count by (tier, region, pod) (rate({_ARRIVED}[{LATEST_S}s])))",
        **_arrivals("irate", LATEST_S, _LATEST),
    }
    for window in sorted(set(windows_s)):
        range_s = max(window, LATEST_S)  # in less there may be no two samples, and so no rate
        parts |= _arrivals("rate", range_s, window)
        mean = f"avg_over_time(switchboard_requests_in_flight[{range_s}s])"
        parts[f"in-service {window}"] = f"sum {_BY_SERVER} ({mean})"
    if pods:
        # Of Kubernetes: no sign in names means anything to a regular expression but ".", which means itself, too.
        names = "|".join(sorted(pods))
        parts["in-flight"] = f'switchboard_requests_in_flight{{pod=~"{names}"}}'
    return joined(parts)


def measures() -> str:
    """What replicas answer and take. It costs as much as all that a tick asks for, and says nothing new before
    CPU_WINDOW_S have passed: no tick waits for it."""
    answered = f'rate(switchboard_requests_total{{code=~"2.."}}[{CPU_WINDOW_S}s])'
    return joined(
        {
            "answered": f"sum {_BY_SERVER} ({answered})",
            "cpu": f"sum {_BY_SERVER} ({_CPU})",
            "measured": f"count {_BY_SERVER} ({_CPU})",
        }
    )


def _arrivals(function: str, range_s: int, window: int, services: str = "") -> dict[str, str]:
    """Of all services, or of those that a regular expression names."""
    named = f'{{{_SERVICE}=~"{services}"}}' if services else ""
    own = f'{{envoy_cluster_name=~"({services or ".+"}){AT_EDGE}"}}'
    return {f"arrived {window}": f"sum {_BY_SERVICE} ({function}({_ARRIVED}{named}[{range_s}s]))"} | {
        f"{name} {window}": f"sum {_BY_CLUSTER} ({function}({metric}{own}[{range_s}s]))"
        for name, metric in _TRIES.items()
    }


def joined(parts: Mapping[str, str]) -> str:
    """One query for several, each series with the label `signal` that says which it is of."""
    return " or ".join(f'label_replace({part}, "signal", "{name}", "", "")' for name, part in parts.items())


def read(
    answer: Iterable[dict[str, Any]],
    windows_s: Iterable[int],
    at: float,
    measured: Mapping[Key, Measured] | None = None,
) -> Seen:
    """What an answer of Prometheus (`data.result` of an instant query) says; values that are no number are left out.

    `measured`: what has been measured since the last look, if anything has.
    """
    found: dict[Key, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    gateways: dict[Place, int] = {}
    in_flight: dict[str, float] = {}
    age: float | None = None
    for series in answer:
        labels, value = series.get("metric") or {}, _value(series)
        signal = labels.get("signal")
        if value is None or signal is None:
            continue
        if signal == "age":
            age = value
        elif signal == "gateways":
            place = _place(labels.get("tier", CORE), labels)
            gateways[place] = gateways.get(place, 0) + int(value)
        elif signal == "in-flight":
            in_flight[labels.get("pod", "")] = value
        elif (key := _key(labels)) is not None:
            found[key][signal] += value
    windows = tuple(windows_s)
    for key in measured or ():
        found[key]  # nothing else may be known of it
    traffic = {
        (key, window): Traffic(
            rate=_arrivals_of(signals, window),
            latest_rate=_arrivals_of(signals, _LATEST),
            in_service=signals.get(f"in-service {window}"),
            queued=_queued(signals),
            **({} if measured is None else measured.get(key, _OF_NONE)._asdict()),
        )
        for key, signals in found.items()
        for window in windows
    }
    return Seen(at, "prometheus", traffic, gateways, in_flight, age)


def read_measures(answer: Iterable[dict[str, Any]]) -> dict[Key, Measured]:
    """What an answer to `measures()` says of each placement."""
    found: dict[Key, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for series in answer:
        labels, value = series.get("metric") or {}, _value(series)
        if value is not None and (key := _key(labels)) is not None:
            found[key][labels.get("signal", "")] += value
    return {
        key: Measured(signals.get("cpu"), signals.get("answered"), int(signals.get("measured", 0)))
        for key, signals in found.items()
    }


def _arrivals_of(signals: Mapping[str, float], window: int) -> float | None:
    known = [signals[name] for name in (f"{one} {window}" for one in ("arrived", *_TRIES)) if name in signals]
    return sum(known) if known else None


def _queued(signals: Mapping[str, float]) -> float | None:
    if "waiting" not in signals and "held" not in signals:
        return None
    return signals.get("waiting", 0.0) + signals.get("held", 0.0)


def history(services: Iterable[str], step_s: int) -> str:
    """The arrivals of services, as a range query asks for them."""
    return joined(_arrivals("rate", step_s, step_s, "|".join(sorted(set(services)))))


def read_history(
    answer: Iterable[dict[str, Any]], start: float, length: int, step_s: int
) -> dict[Key, list[float]]:
    """The arrivals of each placement from `start` on; NaN where nothing is known."""
    found: dict[Key, list[float]] = {}
    for series in answer:
        if (key := _key(series.get("metric") or {})) is None:
            continue
        rates = found.setdefault(key, [math.nan] * length)
        for at, text in series.get("values") or ():
            place, value = round((float(at) - start) / step_s), float(text)
            if 0 <= place < length and math.isfinite(value):
                rates[place] = max(0.0, value) + (0.0 if math.isnan(rates[place]) else rates[place])
    return found


def _key(labels: Mapping[str, str]) -> Key | None:
    """Whose requests a series is of: those that an edge holds may be for the core, which it asks first."""
    if (service := labels.get(_SERVICE)) is not None:
        return Key(service)
    if (cluster := labels.get("envoy_cluster_name")) is not None:
        return Key(cluster.partition("@")[0], *_place(EDGE if cluster.endswith(AT_EDGE) else CORE, labels))
    if (service := labels.get("model_server")) is not None:
        return Key(service, *_place(labels.get("tier", CORE), labels))
    return None


def _place(tier: str, labels: Mapping[str, str]) -> Place:
    return Place(tier, labels.get("region") if tier == EDGE else None)


def _value(series: dict[str, Any]) -> float | None:
    try:
        value = float(series["value"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None
