"""Recorded traffic: a rate over time from Prometheus, as a scenario.

The query gives one series, in requests/s. What Prometheus doesn't know of the time asked for is filled by a straight
line, and refused where that is more than a tenth.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from operators.simulator.scenarios import LONGEST_S, Scenario
from operators.simulator.traffic import GAMMA_SHAPE
from switchboard.errors import SwitchboardError

TIMEOUT_S = 30.0
MOST_POINTS = 10_000
"""Prometheus refuses more than 11,000 points of a series."""
_UNKNOWN = 0.1


def query_of(server: str) -> str:
    """What a model server was asked, in requests/s."""
    return f'sum(rate(switchboard_requests_total{{model_server="{server}"}}[1m]))'


def from_prometheus(url: str, query: str, *, end: datetime, length: timedelta) -> Scenario:
    """The traffic of the `length` before `end`.

    Raises:
        SwitchboardError: Prometheus isn't reachable or refuses the query, or there is no such traffic.
    """
    seconds = round(length.total_seconds())
    if not 60 <= seconds <= LONGEST_S:
        raise SwitchboardError(f"{length} of traffic can't be replayed: from a minute to 14 days")
    step_s = max(5, -(-seconds // MOST_POINTS))
    rows = _ask(url, query, end - timedelta(seconds=seconds), end, step_s)
    start = (end - timedelta(seconds=seconds)).timestamp()
    times = np.asarray([float(at) - start for at, _ in rows])
    values = np.asarray([float(value) for _, value in rows])
    sound = np.isfinite(values) & (values >= 0)
    times, values = times[sound], values[sound]
    if len(times) < (1 - _UNKNOWN) * seconds / step_s:
        raise SwitchboardError(
            f"Prometheus at {url} knows {len(times) * step_s} of {seconds} s of {query}",
            "ask for a time in which it ran: --last, --end",
        )
    rates = np.interp(np.arange(seconds, dtype=float), times, values)
    when = f"{end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return Scenario("recorded", f"{length} up to {when}", lambda _: rates, gamma_shape=GAMMA_SHAPE)


def _ask(url: str, query: str, start: datetime, end: datetime, step_s: int) -> list[Any]:
    import requests
    from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
    from urllib3.util import Retry

    client = PrometheusConnect(url=url, retry=Retry(total=0), timeout=round(TIMEOUT_S))
    try:
        found = client.custom_query_range(query, start_time=start, end_time=end, step=str(step_s))
    except (requests.RequestException, PrometheusApiClientException) as error:
        reason = str(error).splitlines()[0][:200]
        raise SwitchboardError(
            f"Prometheus at {url}: {reason}", "see whether it is the right address"
        ) from None
    if len(found) != 1:
        raise SwitchboardError(
            f"Prometheus at {url}: {query} gives {len(found)} series, not one",
            "name the model server, or sum them",
        )
    return list(found[0]["values"])
