"""A synthetic exporter: the counters of gateways and replicas for made-up traffic, as a site's Prometheus has them.

One process stands for all gateways and replicas, so its samples carry the labels that the scrape would give them
(`honor_labels`). Replicas share what arrives; what is beyond their capacity waits in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

CPU_BASE = 0.01


@dataclass
class Service:
    """The traffic of a service: `rate` requests/s arrive, each of which takes a replica `cost_s` of processor time."""

    name: str
    rate: float = 0.0
    cost_s: float = 0.01
    tier: str = "core"
    region: str = "cn-shenzhen"
    lingering: float = 0.0
    """Requests that a replica is still at work on when it is sent none any more."""
    fails: float | None = None
    """The share of its requests that its replicas answer with 500. Where it is said, so is all that a release's judge
    asks for; else less, since thousands of pods have to be told of."""
    arrived: float = 0.0
    refused: float = 0.0
    failed: float = 0.0
    at: float = field(default_factory=time.monotonic)

    def advance(self, now: float, *, served: bool) -> None:
        """Count what has arrived since; where nobody serves, it was refused."""
        amount = self.rate * max(0.0, now - self.at)
        self.at = now
        self.failed += amount * (self.fails or 0.0)
        if served:
            self.arrived += amount
        else:
            self.refused += amount


@dataclass
class Replica:
    """What a replica has counted."""

    service: str
    answered: float = 0.0
    failed: float = 0.0
    cpu_s: float = 0.0


class Exporter:
    """Serves `/metrics`; `replicas` says which pods are ready, by pod of which service, `draining` which of them are
    sent nothing."""

    def __init__(
        self,
        services: Iterable[Service],
        replicas: Callable[[], Mapping[str, str]],
        *,
        draining: Callable[[], Collection[str]] = frozenset,
        gateways: int = 1,
        per_pod: bool = True,
    ) -> None:
        self.services = {one.name: one for one in services}
        self._replicas, self._draining = replicas, draining
        self.gateways = gateways
        self._per_pod = per_pod
        self._known: dict[str, Replica] = {}
        self._at = time.monotonic()
        self.silent = False
        """Answer with an error, as a target that can't be scraped."""

    async def start(self, host: str, port: int) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _metrics(self, _: web.Request) -> web.Response:
        if self.silent:
            return web.Response(status=503)
        lines, stamp = self.text(time.monotonic()).splitlines(), round(time.time() * 1000)
        # What is counted has the time at which it was: else a scrape that is late on a busy machine is a burst.
        return web.Response(text="".join(f"{line} {stamp}\n" for line in lines), content_type="text/plain")

    def advance(self, now: float) -> dict[str, int]:
        """Count what has arrived by `now`; how many replicas of each service get requests."""
        return self._advance(now, self._replicas(), self._draining())

    def _advance(self, now: float, ready: Mapping[str, str], left_out: Collection[str]) -> dict[str, int]:
        count: dict[str, int] = {}
        for pod, service in ready.items():
            if pod not in left_out:
                count[service] = count.get(service, 0) + 1
        for one in self.services.values():
            one.advance(now, served=bool(count.get(one.name)))
        return count

    def text(self, now: float) -> str:
        """All samples at `now`."""
        ready, left_out = self._replicas(), self._draining()
        count = self._advance(now, ready, left_out)
        past, self._at = now - self._at, now
        for pod in [pod for pod in self._known if pod not in ready]:
            del self._known[pod]
        lines: list[str] = []
        for number in range(self.gateways):
            for one in self.services.values():
                name = f"{one.name}@edge" if one.tier == "edge" else one.name
                place = f'tier="{one.tier}",region="{one.region}",pod="gateway-{number}"'
                service, own = (
                    f'envoy_local_http_ratelimit_prefix="{one.name}",{place}',
                    f'envoy_cluster_name="{name}",{place}',
                )
                share = (one.arrived + one.refused) / self.gateways
                lines += (
                    f"envoy_http_local_rate_limit_enabled{{{service}}} {share:.3f}",
                    f"envoy_cluster_upstream_rq_total{{{own}}} {one.arrived / self.gateways:.3f}",
                    f"envoy_cluster_upstream_cx_none_healthy{{{own}}} {one.refused / self.gateways:.3f}",
                    f"envoy_cluster_upstream_rq_pending_active{{{own}}} 0",
                )
                if one.fails is not None:
                    bad = f'{own},envoy_response_code_class="5"'
                    lines.append(f"envoy_cluster_upstream_rq_xx{{{bad}}} {one.failed / self.gateways:.3f}")
        for pod, service in ready.items():
            if (known := self.services.get(service)) is None:
                continue
            replica = self._known.setdefault(pod, Replica(service))
            rate = 0.0 if pod in left_out else known.rate / count[service]
            replica.answered += rate * past
            replica.cpu_s += (CPU_BASE + rate * known.cost_s) * past
            own = f'model_server="{service}",tier="{known.tier}",region="{known.region}",pod="{pod}"'
            if self._per_pod:
                at_work = known.lingering if pod in left_out else rate * known.cost_s
                lines += (
                    f"switchboard_requests_in_flight{{{own}}} {at_work:.3f}",
                    f'switchboard_requests_total{{{own},code="200",traffic="customer"}} {replica.answered:.3f}',
                    f"process_cpu_seconds_total{{{own}}} {replica.cpu_s:.4f}",
                )
            if known.fails is not None:
                replica.failed += rate * known.fails * past
                lines += _for_a_judge(own, replica)
        return "\n".join([*lines, ""])


def _for_a_judge(own: str, replica: Replica) -> Iterable[str]:
    """Beside the requests that it answers: those that fail, how long they take, and the process."""
    answered = f'{own},code="200",traffic="customer"'
    yield f'switchboard_requests_total{{{own},code="500",traffic="customer"}} {replica.failed:.3f}'
    yield f"switchboard_request_seconds_count{{{answered}}} {replica.answered:.3f}"
    yield f'switchboard_request_seconds_bucket{{{answered},le="0.3"}} {replica.answered:.3f}'
    yield f'switchboard_fallbacks_total{{{own},traffic="customer"}} 0'
    yield f"process_start_time_seconds{{{own}}} 1000"
    yield f"process_resident_memory_bytes{{{own}}} 100000000"


_OF_CLUSTERS = (
    *("upstream_rq_retry", "upstream_cx_none_healthy", "upstream_rq_total", "upstream_rq_cancelled"),
    *("upstream_rq_pending_failure_eject", "upstream_rq_pending_overflow", "upstream_rq_active_overflow"),
    *("upstream_rq_active", "upstream_rq_pending_active"),
)


def statistics(exporter: Exporter, now: float) -> str:
    """What one of the gateways counts, as its own port for statistics says it (`switchboard.gateway_stats`)."""
    exporter.advance(now)
    totals = {
        one.name: round((one.arrived + one.refused) / exporter.gateways) for one in exporter.services.values()
    }
    lines = ["# TYPE envoy_http_local_rate_limit_enabled counter"]
    lines += (
        f'envoy_http_local_rate_limit_enabled{{envoy_local_http_ratelimit_prefix="{name}"}} {total}'
        for name, total in totals.items()
    )
    for metric in _OF_CLUSTERS:
        lines.append(f"# TYPE envoy_cluster_{metric} counter")
        lines += (
            f'envoy_cluster_{metric}{{envoy_cluster_name="{name}"}} '
            f"{total if metric == 'upstream_rq_total' else 0}"
            for name, total in totals.items()
        )
    return "\n".join([*lines, ""])


def scrape_config(targets: Iterable[str]) -> str:
    """A Prometheus configuration that scrapes the exporters at those addresses every 2 s, as a site's does its pods."""
    listed = ", ".join(f"'{one}'" for one in targets)
    return f"""global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 10s}}
scrape_configs:
- job_name: pods
  honor_labels: true
  track_timestamps_staleness: true
  static_configs: [{{targets: [{listed}]}}]
"""
