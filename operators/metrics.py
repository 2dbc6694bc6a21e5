"""What the operator says of itself, as Prometheus scrapes it at `/metrics`.

Of each ModelServer there are three gauges, made from what is in memory when they are asked for: two thousand servers
cost nothing in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from operators.scaling.values import Decision
from operators.servers.registry import Registry
from operators.signals.values import Seen

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0)


TICKS_KEPT = 300


@dataclass(frozen=True, slots=True)
class Tick:
    """How long a tick took, and when (by the monotonic clock) it ended."""

    at: float
    look_s: float
    decide_s: float
    source: str


class _Servers(Collector):
    """Desired and ready replicas, and what a replica can take, of each ModelServer: as the one that leads has them."""

    def __init__(self, servers: Registry, leads: Gauge) -> None:
        self._servers, self._leads = servers, leads

    def collect(self) -> Iterable[GaugeMetricFamily]:
        desired = GaugeMetricFamily(
            "switchboard_operator_desired_replicas", "Replicas that are wanted.", labels=["name"]
        )
        ready = GaugeMetricFamily(
            "switchboard_operator_ready_replicas", "Replicas that serve.", labels=["name"]
        )
        start = GaugeMetricFamily(
            "switchboard_operator_start_seconds",
            "The 95th percentile of a replica's start time, measured (stated, until there are enough).",
            labels=["name"],
        )
        rps = GaugeMetricFamily(
            "switchboard_operator_replica_requests_per_second",
            "What a replica can answer, stated or measured; +Inf while it isn't known.",
            labels=["name"],
        )
        # What one that led remembers is as old as its term, and Prometheus would have it beside the leader's.
        leads = any(sample.value for one in self._leads.collect() for sample in one.samples)
        for server in self._servers.servers.values() if leads else ():
            if server.spec is None or server.target is None:
                continue
            desired.add_metric([server.name], server.target)
            ready.add_metric([server.name], server.status.ready_replicas if server.status is not None else 0)
            capacity = server.capacity()
            start.add_metric([server.name], capacity.start_s)
            rps.add_metric([server.name], capacity.rps)
        return (desired, ready, start, rps)


class Metrics:
    """The operator's counters and gauges, in a registry of their own."""

    def __init__(self, servers: Registry) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.leads = Gauge(
            "switchboard_operator_leader", "1 for the replica that decides.", registry=self.registry
        )
        self.registry.register(_Servers(servers, self.leads))
        self.look_seconds = Histogram(
            "switchboard_operator_look_seconds",
            "Time until the signals of a tick were there.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.decide_seconds = Histogram(
            "switchboard_operator_decide_seconds",
            "Time that the decisions of a tick took, for all ModelServers together.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.data_age = Gauge(
            "switchboard_operator_data_age_seconds",
            "Age of the newest sample at the last tick; NaN where nothing was known.",
            registry=self.registry,
        )
        self.source = Gauge(
            "switchboard_operator_source",
            "1 for who told of the traffic at the last tick.",
            ["source"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "switchboard_operator_decisions",
            "Decisions, by direction and by what asked for the number.",
            ["direction", "reason"],
            registry=self.registry,
        )
        self.problems = Counter(
            "switchboard_operator_signal_problems",
            "Ticks at which Prometheus gave no signals.",
            registry=self.registry,
        )
        self.failed_ticks = Counter(
            "switchboard_operator_failed_ticks", "Ticks that an error ended.", registry=self.registry
        )
        self.writes = Counter(
            "switchboard_operator_writes", "Requests to the API server that write.", registry=self.registry
        )
        self.ticks: deque[Tick] = deque(maxlen=TICKS_KEPT)

    def ticked(self, seen: Seen, look_s: float, decide_s: float) -> None:
        self.ticks.append(Tick(time.monotonic(), look_s, decide_s, seen.source))
        self.look_seconds.observe(look_s)
        self.decide_seconds.observe(decide_s)
        self.data_age.set(seen.age_s if seen.age_s is not None else float("nan"))
        for source in ("prometheus", "gateways", "nobody"):
            self.source.labels(source).set(source == seen.source)

    def stands_by(self) -> None:
        """Nothing is seen by who doesn't lead: what was seen before isn't to be taken for news."""
        self.leads.set(0)
        self.data_age.set(float("nan"))
        self.source.clear()

    def decided(self, decision: Decision) -> None:
        wanted, current = decision.wanted, decision.current
        direction = "up" if wanted > current else "down" if wanted < current else "none"
        self.decisions.labels(direction, decision.because or "unknown").inc()
