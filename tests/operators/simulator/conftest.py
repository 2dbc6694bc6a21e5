"""A real Prometheus that holds two hours of what gateways and replicas counted of some services, made beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.operators.prometheus import prometheus as running

LENGTH_S = 7200
SCRAPE_S = 2
STEP_AT_S = 3600

ARRIVED = (
    'envoy_http_local_rate_limit_enabled{{envoy_local_http_ratelimit_prefix="{service}",{place},pod="{pod}"}}'
)
AT_EDGE = 'envoy_cluster_upstream_rq_total{{envoy_cluster_name="{service}@edge",{place},pod="{pod}"}}'
ANSWERED = 'switchboard_requests_total{{model_server="{service}",{place},pod="{pod}",code="200"}}'
CORE, EDGE = 'tier="core",region="cn-shenzhen"', 'tier="edge",region="cn-beijing"'

Rate = Callable[[float], float]


@dataclass(frozen=True)
class Recorded:
    """Where it answers, and up to when it knows the traffic."""

    url: str
    end: datetime

    @staticmethod
    def rate(second: float) -> float:
        """What `chat` was asked in that second, requests/s."""
        return 100 + 50 * math.sin(2 * math.pi * second / LENGTH_S)

    @staticmethod
    def step(second: float) -> float:
        """And `stepped`, of which nothing is known for three minutes."""
        return 100 if second < STEP_AT_S else 400


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    end = int(time.time()) // 10 * 10 - 600
    with running(tmp_path_factory.mktemp("prometheus"), _samples(end)) as url:
        yield Recorded(url, datetime.fromtimestamp(end, UTC))


def _samples(end: int) -> str:
    """Two gateways' counters, of which one starts anew halfway; each request of `chat` is tried three times."""
    start = end - LENGTH_S
    lines = [
        *_counter(ARRIVED, "chat", CORE, "gateway-a", lambda at: 0.25 * Recorded.rate(at), start),
        *_counter(ARRIVED, "chat", CORE, "gateway-b", lambda at: 0.75 * Recorded.rate(at), start, anew=True),
        *_counter(AT_EDGE, "chat", EDGE, "edge-1", lambda _: 20.0, start),
        *_counter(ANSWERED, "chat", CORE, "chat-1", lambda at: 1.5 * Recorded.rate(at), start),
        *_counter(ANSWERED, "chat", CORE, "chat-2", lambda at: 1.5 * Recorded.rate(at), start),
        *_counter(ARRIVED, "stepped", CORE, "gateway-a", Recorded.step, start, gap=(1000, 1180)),
        *_counter(ARRIVED, "idle", CORE, "gateway-a", lambda _: 0.0, start),
        *_counter(ANSWERED, "server-of-its-own-name", CORE, "other-1", lambda _: 9.0, start),
    ]
    return "\n".join([*lines, "# EOF", ""])


def _counter(
    name: str,
    service: str,
    place: str,
    pod: str,
    rate: Rate,
    start: int,
    *,
    anew: bool = False,
    gap: tuple[int, int] = (0, 0),
) -> Iterator[str]:
    series, total = name.format(service=service, place=place, pod=pod), 0.0
    for second in range(0, LENGTH_S + 1, SCRAPE_S):
        if anew and second == LENGTH_S // 2:
            total = 0.0
        if not gap[0] <= second < gap[1]:
            yield f"{series} {total} {start + second}"
        total += rate(second) * SCRAPE_S
