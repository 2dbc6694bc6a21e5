"""Today's traffic of a service, for a plan: what a site's Prometheus says of it now. The query, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from operators.canary.plan import Traffic
from operators.canary.values import BOUND_S, METRICS
from operators.signals.query import joined
from switchboard.errors import SwitchboardError

WINDOW_S = 600
SHARE = 10
"""A candidate begins with one of so many of the champion's replicas."""


def query(service: str, window_s: int = WINDOW_S) -> str:
    """Of a service's core, each series with the label `signal`: requests/s, shares of them, its replicas.

    Where slow tries have others beside them (`capacity.hedgeMilliseconds`), those are among the `repeated`: a plan is
    made for more failures than there are.
    """
    replicas = f'model_server="{service}",tier="core"'
    asked = f'{replicas},traffic="customer"'
    arrived = f'envoy_http_local_rate_limit_enabled{{envoy_local_http_ratelimit_prefix="{service}"}}'
    tries = f'envoy_cluster_name="{service}"'
    answered = f"sum(rate(switchboard_requests_total{{{asked}}}[{window_s}s]))"
    timed = 'sum(rate(switchboard_request_seconds_{}{{{},code=~"2.."{}}}[{}s]))'
    in_time = timed.format("bucket", asked, f',le="{BOUND_S}"', window_s)
    all_ = timed.format("count", asked, "", window_s)
    parts = {
        "rps": f"sum(rate({arrived}[{window_s}s]))",
        "repeated": f"sum(rate(envoy_cluster_upstream_rq_retry{{{tries}}}[{window_s}s]))",
        "refused": "sum(rate(envoy_cluster_upstream_rq_xx"
        f'{{{tries},envoy_response_code_class="5"}}[{window_s}s]))',
        "slow": f"1 - {in_time} / {all_}",
        "handoff": f'sum(rate(switchboard_requests_total{{{asked},intent="handover"}}[{window_s}s])) / {answered}',
        "fallback": f"sum(rate(switchboard_fallbacks_total{{{asked}}}[{window_s}s])) / {answered}",
        "restarts": f"sum(changes(process_start_time_seconds{{{replicas}}}[{window_s}s])) * {3600 / window_s:g}"
        f" / count(process_start_time_seconds{{{replicas}}})",
        "replicas": f"count(process_start_time_seconds{{{replicas}}})",
    }
    return joined(parts)


def read(service: str, answer: Iterable[Mapping[str, Any]], usual: Mapping[str, float]) -> Traffic:
    """The traffic in an answer (`data.result` of an instant query); for a rate that isn't known, the `usual` one.

    Raises:
        SwitchboardError: no request of the service was counted.
    """
    found: dict[str, float] = {}
    for series in answer:
        try:
            value = float(series["value"][1])
        except (KeyError, IndexError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[(series.get("metric") or {}).get("signal", "")] = max(0.0, value)
    rps = found.get("rps", 0.0)
    if rps <= 0:
        raise SwitchboardError(
            f"no requests of {service} in the last {WINDOW_S // 60} min: a release would come to nothing",
            "name what it will be with --rps, or wait for customers",
        )
    rates = {metric.name: usual[metric.name] for metric in METRICS}
    rates |= {name: found[name] for name in rates if name in found}
    if "repeated" in found or "refused" in found:
        rates["failed"] = min(1.0, (found.get("repeated", 0.0) + found.get("refused", 0.0)) / rps)
    replicas = max(1, round(found.get("replicas", 1)))
    return Traffic(rps, rates, replicas, max(1, replicas // SHARE))


def ask(url: str, service: str, usual: Mapping[str, float], timeout_s: float = 10.0) -> Traffic:
    """Today's traffic by the Prometheus at `url`.

    Raises:
        SwitchboardError: it doesn't answer, or knows of no request.
    """
    from prometheus_api_client import PrometheusConnect
    from urllib3.util.retry import Retry

    from operators.signals.prometheus import first_line

    try:
        client = PrometheusConnect(url=url, retry=Retry(total=0), timeout=round(timeout_s))
        answer = client.custom_query(query(service))
    except Exception as error:  # its client's, requests' or urllib3's
        raise SwitchboardError(
            f"Prometheus at {url}: {first_line(error)}", "`switchboard status` shows its address"
        ) from None
    return read(service, answer, usual)
