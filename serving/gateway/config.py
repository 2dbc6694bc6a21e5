"""Envoy's configuration for a gateway: pure functions from the fleets to the files' contents.

The listeners (`listeners`) are in the bootstrap and never change; routes (`routes`), clusters and endpoints are files,
and endpoints are one file for each model server, so that a pod that comes or goes touches no more than its own list.

How a request survives the death of a replica, in the order in which it helps:
1. A pod that is being deleted leaves the endpoints (`fleets`), and drains what it has.
2. A try that fails is repeated on another replica (`routes`).
3. A replica that fails its health check or several requests in a row gets none for a while (`_pool`).
4. A release's candidate has the champion behind it (`_arm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from serving.gateway.fleets import Fleet
from serving.gateway.listeners import ROUTES, listeners
from serving.gateway.model_servers import CONCURRENCY
from serving.gateway.releases import CANDIDATE
from serving.gateway.routes import ADMIN, HOST, activator_of, pool_of, retries
from serving.gateway.settings import Settings
from switchboard import envoy
from switchboard.envoy import Config, Endpoint

CONNECT_TIMEOUT_S = 1.0
UPSTREAM_IDLE_S = 3.0
"""Less than a server's keep-alive (5 s where nobody set it), so that it is Envoy that closes an idle connection."""
OVERPROVISIONING_PERCENT = 200
"""An edge goes on with the site's core servers alone until fewer than half of them are healthy."""

BOUNDS = "bounds"
UNDER_WAY, LEAST_UNDER_WAY = 4, 64
"""Times what its replicas take at once, and a number, that may be under way of a service's requests: one that hangs
keeps what it was sent until a health check has found it out. Beyond that all are full, and whoever waits for them waits
in vain: left alone, one that has stayed of several would have all that these can't take."""

_UPSTREAM = (
    r"upstream_rq_(total|active|active_overflow|time|timeout|per_try_timeout|cancelled|[1-5]xx)",
    r"upstream_rq_pending_(active|overflow|failure_eject)",
    r"upstream_rq_retry(_success|_overflow|_limit_exceeded)?",
    r"upstream_cx_(active|connect_fail|none_healthy)",
    r"membership_(total|healthy)",
    r"outlier_detection\.ejections_(active|enforced_total)",
    r"health_check\.failure",
)
_DOWNSTREAM = (r"downstream_rq_(total|active|time|timeout|[1-5]xx)", r"downstream_cx_(active|total)")
_STATS = (
    {"safe_regex": {"regex": rf"cluster\.[^_].*\.({'|'.join(_UPSTREAM)})"}},
    {"safe_regex": {"regex": rf"http\.{ROUTES}\.({'|'.join(_DOWNSTREAM)})"}},
    {"safe_regex": {"regex": r"[^_].*\.http_local_rate_limit\.enabled"}},
)
"""What dashboards, alerts and the operator ask for: all of Envoy's would be 1,500 lines in every scrape."""
_BUCKETS_MS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 2000, 3000, 10000)
"""With a bound at 300 ms: that is the service level."""


def bootstrap(settings: Settings) -> Config:
    return envoy.bootstrap(
        settings.pod_name,
        admin_socket=str(settings.admin_socket),
        stats=_STATS,
        max_connections=10_000,
        histograms=[{"match": {"suffix": "rq_time"}, "buckets": list(_BUCKETS_MS)}],
        static={
            "listeners": listeners(settings),
            "clusters": [_socket_cluster(ADMIN, str(settings.admin_socket))],
        },
        dynamic={"cds_config": envoy.file_source(str(settings.clusters))},
        runtime=(BOUNDS, str(settings.bounds)),
    )


def pools(fleet: Fleet) -> dict[str, tuple[Endpoint, ...]]:
    """The clusters with endpoints of their own: one, or at an edge two that are joined under the server's name; of an
    arm one that has another name than the arm, since a candidate is joined with its champion."""
    if fleet.arm is not None:
        return {pool_of(fleet.name): fleet.core}
    if fleet.own is None:
        return {fleet.name: fleet.core}
    return {f"{fleet.name}@core": fleet.core, f"{fleet.name}@edge": fleet.own}


def shape(fleet: Fleet) -> tuple[object, ...]:
    """All that a fleet's clusters depend on."""
    return fleet.name, fleet.own is None, fleet.from_zero, _most_at_once(fleet), bool(fleet.hedge_s)


def clusters(fleets: Iterable[Fleet], settings: Settings) -> Config:
    return envoy.resources("Cluster", (made for fleet in fleets for made in _clusters(fleet, settings)))


def _clusters(fleet: Fleet, settings: Settings) -> Iterable[Config]:
    """An edge joins two clusters, rather than having one with two priorities: Envoy's hash rings ignore the request
    to repeat a try at another priority, and in the moment in which an edge is cut off that is what it takes."""
    if fleet.arm is not None:
        yield from _arm(fleet, *fleet.arm, settings)
        return
    if fleet.from_zero:
        yield _activator(fleet, settings)
    if fleet.own is None:
        yield _pool(fleet.name, fleet, settings, max_ejected_percent=50)
        return
    core, own = pools(fleet)
    # A core keeps half of its replicas in any case. An edge may give them all up, since it has its own.
    yield _pool(core, fleet, settings, max_ejected_percent=100)
    yield _pool(own, fleet, settings, max_ejected_percent=50)
    yield _joined(fleet.name, [core, own], circuit_breakers=_circuit_breakers(_retries(fleet)))


def _arm(fleet: Fleet, service: str, arm: str, settings: Settings) -> Iterable[Config]:
    """Behind a candidate is its champion, so that one that crashes costs customers nothing: the second try is there,
    and for all of them, however many they are. That is no more than the champion has without a release."""
    (pool,) = pools(fleet)
    yield _pool(pool, fleet, settings, max_ejected_percent=100)
    if arm != CANDIDATE:
        return
    champion = pools(Fleet(service, own=() if settings.tier == "edge" else None))
    budget = {"budget_percent": {"value": 100}, "min_retry_concurrency": _MOST_REQUESTS}
    yield _joined(
        fleet.name,
        [pool, *champion],
        circuit_breakers=_circuit_breakers(budget),
        # The route's own policy is the champion's.
        typed_extension_protocol_options=_http(retry_policy=retries(update_frequency=1)),
    )


def _joined(name: str, joined: Sequence[str], **more: Any) -> Config:
    """One cluster of several, in the order in which they are used."""
    return {
        "name": name,
        "connect_timeout": envoy.seconds(CONNECT_TIMEOUT_S),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": envoy.extension(
            "envoy.clusters.aggregate", "AggregateCluster", clusters=list(joined)
        ),
        "common_lb_config": _BALANCE,
        **more,
    }


def bounds(fleets: Iterable[Fleet]) -> Config:
    """How many requests of each service may be under way; beyond that Envoy says 503 itself, which costs no replica
    anything. As values of its runtime: with a cluster's own bound the cluster would be made anew.

    An edge isn't bounded: there the core is tried first, and a refusal here would keep the edge's own from being tried.
    """
    most = {
        f"circuit_breakers.{name}.default.max_requests": max(
            LEAST_UNDER_WAY, UNDER_WAY * fleet.most_at_once * len(found)
        )
        for fleet in fleets
        if fleet.own is None
        for name, found in pools(fleet).items()
        if found
    }
    return envoy.resources("Runtime", [{"name": BOUNDS, "layer": most}])


def endpoints(fleet: Fleet) -> dict[str, Config]:
    """Of each cluster that has endpoints, the file's content."""
    return {
        name: envoy.resources(
            "ClusterLoadAssignment",
            [envoy.load_assignment(name, found, overprovisioning_factor=OVERPROVISIONING_PERCENT)],
        )
        for name, found in pools(fleet).items()
    }


_BALANCE: Config = {
    # With no healthy replica at all, all are tried: health checks that fail everywhere at once are more likely slow
    # than right, and a request that is sent in vain costs no more than one that isn't.
    "healthy_panic_threshold": {"value": 1},
    # Envoy's own is 1 s: for so long a replica that has passed its first check would not be known to have.
    "update_merge_window": "0s",
}


_MOST_REQUESTS = 4096


def _retries(fleet: Fleet) -> Config:
    """When all fail, retries are at most a quarter more load, but always enough for what a lost replica had. With more
    an overload feeds itself: what is late is tried again, and makes the next one late."""
    return {"budget_percent": {"value": 25}, "min_retry_concurrency": _most_at_once(fleet)}


def _most_at_once(fleet: Fleet) -> int:
    """Of an arm the usual number: it lingers when nothing is known of its replicas, and is to stay as it was."""
    return CONCURRENCY if fleet.arm is not None else fleet.most_at_once


def _circuit_breakers(retry_budget: Config) -> Config:
    limits = {"max_connections": 2048, "max_pending_requests": 2048, "max_requests": _MOST_REQUESTS}
    return {"thresholds": [{**limits, "retry_budget": retry_budget}]}


def _http(**more: Any) -> Config:
    options = envoy.typed(
        "HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": envoy.seconds(UPSTREAM_IDLE_S)},
        explicit_http_config={"http_protocol_options": {}},
        **more,
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _pool(name: str, fleet: Fleet, settings: Settings, *, max_ejected_percent: int) -> Config:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": envoy.file_source(str(settings.endpoints(name)))},
        "connect_timeout": envoy.seconds(CONNECT_TIMEOUT_S),
        # A session stays with its replica as long as that is there; without a session any replica will do.
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 512},
        "common_lb_config": _BALANCE,
        # Without this a pod that left the endpoints would stay in use until it fails its health check.
        "ignore_health_on_host_removal": True,
        "health_checks": [_health_check()],
        "outlier_detection": {
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "30s",
            "max_ejection_percent": max_ejected_percent,
            # An answer of 503 is also how a full replica sheds, and to take that one away fills the others. So it
            # takes many in a row, while a replica that can't be reached at all is left after a few.
            "consecutive_5xx": 10,
            "consecutive_gateway_failure": 10,
            "enforcing_consecutive_gateway_failure": 100,
            "split_external_local_origin_errors": True,
            # A try that has another beside it counts as one that wasn't answered. Whoever is slow isn't out of reach.
            "consecutive_local_origin_failure": max(10, _most_at_once(fleet)) if fleet.hedge_s else 3,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            # A replica that says to be ready and fails requests stays out for its time.
            "successful_active_health_check_uneject_host": False,
        },
        "circuit_breakers": _circuit_breakers(_retries(fleet)),
        "typed_extension_protocol_options": _http(),
    }


def _health_check() -> Config:
    """Each second; two timeouts in a row make unhealthy, but one answer that isn't 200 does at once."""
    return {
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/readyz", "host": HOST},
    }


def _socket_cluster(name: str, socket: str, **more: Any) -> Config:
    endpoint = {"endpoint": {"address": envoy.pipe(socket)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }


def _activator(fleet: Fleet, settings: Settings) -> Config:
    """So many requests and no more: those beyond are refused here, which costs next to nothing, and not by the agent.

    A connection carries one request. There may be more of them, or a request would wait for a connection.
    """
    most = settings.hold_requests
    limits = {"max_connections": 2 * most, "max_pending_requests": most, "max_requests": most}
    budget = {"budget_percent": {"value": 100}, "min_retry_concurrency": most}
    return _socket_cluster(
        activator_of(fleet.name),
        str(settings.activator_socket),
        connect_timeout=envoy.seconds(CONNECT_TIMEOUT_S),
        circuit_breakers={"thresholds": [{**limits, "retry_budget": budget}]},
    )
