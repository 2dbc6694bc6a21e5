"""Envoy's configuration for a gateway: pure functions from the fleets to the files' contents.

The listeners are in the bootstrap and never change; routes, clusters and endpoints are files of their own, and
endpoints are one file for each model server, so that a pod that comes or goes touches no more than its own list.

How a request survives the death of a replica, in the order in which it helps:
1. A pod that is being deleted leaves the endpoints (`fleets`), and drains what it has.
2. A try that fails is repeated on another replica (`_retries`).
3. A replica that fails its health check or several requests in a row gets none for a while (`_pool`).
"""

from __future__ import annotations

from collections.abc import Iterable

from serving.gateway.fleets import Fleet
from serving.gateway.settings import OPS_PORT, PORT, Settings
from switchboard import envoy
from switchboard.envoy import Config, Endpoint

ADMIN = "_admin"
"""The cluster of Envoy's own admin socket; no label value, so no model server, can have this name."""
ROUTES, OPS_ROUTES = "gateway", "ops"

MAX_REQUEST_BYTES = 64 * 1024
TIMEOUT_S = 10.0
TRY_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 1.0
UPSTREAM_IDLE_S = 3.0
"""Less than a server's keep-alive (5 s where nobody set it), so that it is Envoy that closes an idle connection."""
OVERPROVISIONING_PERCENT = 200
"""An edge goes on with the site's core servers alone until fewer than half of them are healthy."""

_LOCAL_ANSWERS = {
    400: ("bad_request", "The request is not valid HTTP."),
    404: ("not_found", "There is no such service here."),
    408: ("request_timeout", "The request did not arrive in time."),
    413: ("too_large", f"The request is larger than {MAX_REQUEST_BYTES // 1024} KiB."),
    431: ("headers_too_large", "The request's headers are too large."),
    503: ("unavailable", "The service can't answer right now; try again."),
    504: ("timeout", "The service did not answer in time; try again."),
}
"""What the gateway answers itself: by status, the error's code and message."""

_UPSTREAM = (
    r"upstream_rq_(total|active|time|timeout|per_try_timeout|pending_overflow|[1-5]xx)",
    r"upstream_rq_retry(_success|_overflow|_limit_exceeded)?",
    r"upstream_cx_(active|connect_fail)",
    r"membership_(total|healthy)",
    r"outlier_detection\.ejections_(active|enforced_total)",
    r"health_check\.failure",
)
_DOWNSTREAM = (r"downstream_rq_(total|active|time|timeout|[1-5]xx)", r"downstream_cx_(active|total)")
_STATS = (
    {"safe_regex": {"regex": rf"cluster\.[^_].*\.({'|'.join(_UPSTREAM)})"}},
    {"safe_regex": {"regex": rf"http\.{ROUTES}\.({'|'.join(_DOWNSTREAM)})"}},
)
"""What dashboards and alerts ask for: all of Envoy's would be 1,500 lines in every scrape."""
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
            "listeners": [_customers(settings), _ops(settings)],
            "clusters": [_admin_cluster(settings)],
        },
        dynamic={"cds_config": envoy.file_source(str(settings.clusters))},
    )


def pools(fleet: Fleet) -> dict[str, tuple[Endpoint, ...]]:
    """The clusters with endpoints of their own: one, or at an edge two that are joined under the server's name."""
    if fleet.own is None:
        return {fleet.name: fleet.core}
    return {f"{fleet.name}@core": fleet.core, f"{fleet.name}@edge": fleet.own}


def clusters(fleets: Iterable[Fleet], settings: Settings) -> Config:
    return envoy.resources("Cluster", (made for fleet in fleets for made in _clusters(fleet, settings)))


def _clusters(fleet: Fleet, settings: Settings) -> Iterable[Config]:
    """An edge joins two clusters, rather than having one with two priorities: Envoy's hash rings ignore the request
    to repeat a try at another priority, and in the moment in which an edge is cut off that is what it takes."""
    if fleet.own is None:
        yield _pool(fleet.name, settings, max_ejected_percent=50)
        return
    core, own = pools(fleet)
    # A core keeps half of its replicas in any case. An edge may give them all up, since it has its own.
    yield _pool(core, settings, max_ejected_percent=100)
    yield _pool(own, settings, max_ejected_percent=50)
    yield {
        "name": fleet.name,
        "connect_timeout": envoy.seconds(CONNECT_TIMEOUT_S),
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": envoy.extension("envoy.clusters.aggregate", "AggregateCluster", clusters=[core, own]),
        "circuit_breakers": _circuit_breakers(),
        "common_lb_config": _PANIC,
    }


def endpoints(fleet: Fleet) -> dict[str, Config]:
    """Of each cluster that has endpoints, the file's content."""
    return {
        name: envoy.resources(
            "ClusterLoadAssignment",
            [envoy.load_assignment(name, found, overprovisioning_factor=OVERPROVISIONING_PERCENT)],
        )
        for name, found in pools(fleet).items()
    }


def routes(fleets: Iterable[Fleet]) -> Config:
    served = [
        {
            "match": {"path_separated_prefix": f"/v1/{fleet.name}"},
            "route": {
                "cluster": fleet.name,
                "timeout": envoy.seconds(TIMEOUT_S),
                "retry_policy": _retries(fleet),
                "hash_policy": [{"header": {"header_name": "x-session-id"}}],
            },
        }
        for fleet in fleets
    ]
    return _route_table(ROUTES, [*served, _answer({"prefix": "/"}, 404)])


def no_routes_yet() -> Config:
    """Before the agent knows any pod: try again, rather than that there is no such service."""
    return _route_table(ROUTES, [_answer({"prefix": "/"}, 503)])


def ops_routes(*, ready: bool) -> Config:
    """Of the probes' port. Envoy's own readiness counts once the agent has told it where to send requests."""
    readiness = [
        {"match": {"path": path}, "route": {"cluster": ADMIN, "prefix_rewrite": "/ready"}}
        if ready
        else _answer({"path": path}, 503)
        for path in ("/ready", "/readyz")
    ]
    statistics = {"match": {"path": "/stats/prometheus"}, "route": {"cluster": ADMIN}}
    return _route_table(
        OPS_ROUTES, [*readiness, statistics, _answer({"path": "/livez"}, 200), _answer({"prefix": "/"}, 404)]
    )


def _route_table(name: str, table: list[Config]) -> Config:
    hosts = [{"name": name, "domains": ["*"], "routes": table}]
    return envoy.resources("RouteConfiguration", [{"name": name, "virtual_hosts": hosts}])


def _answer(match: Config, status: int) -> Config:
    return {"match": match, "direct_response": {"status": status}}


def _retries(fleet: Fleet) -> Config:
    """Up to three more tries, each on a replica that was not tried yet; at an edge the last two on its own replicas.

    Also after a connection was reset with the request sent, when the replica may have answered it already: a request
    to a model changes nothing, and where a turn must be answered once, the server sees to it by `Idempotency-Key`.
    A 503 is a replica that is full or draining, and asks for another one.
    """
    policy: Config = {
        "retry_on": "connect-failure,refused-stream,reset,gateway-error",
        "num_retries": 3,
        "per_try_timeout": envoy.seconds(TRY_TIMEOUT_S),
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
        "retry_host_predicate": [
            envoy.extension("envoy.retry_host_predicates.previous_hosts", "PreviousHostsPredicate")
        ],
        # On a hash ring the next position may be the same replica's again, so that many looks are needed.
        "host_selection_retry_max_attempts": 32,
    }
    if fleet.own is not None:
        policy["retry_priority"] = envoy.extension(
            "envoy.retry_priorities.previous_priorities", "PreviousPriorities", update_frequency=2
        )
    return policy


_PANIC: Config = {"healthy_panic_threshold": {"value": 1}}
"""With no healthy replica at all, all are tried: health checks that fail everywhere at once are more likely slow than
right, and a request that is sent in vain costs no more than one that isn't."""


def _circuit_breakers() -> Config:
    """When all fail, retries are at most a quarter more load (but always enough for a few requests)."""
    budget = {"budget_percent": {"value": 25}, "min_retry_concurrency": 32}
    limits = {"max_connections": 2048, "max_pending_requests": 2048, "max_requests": 4096}
    return {"thresholds": [{**limits, "retry_budget": budget}]}


def _pool(name: str, settings: Settings, *, max_ejected_percent: int) -> Config:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": envoy.file_source(str(settings.endpoints(name)))},
        "connect_timeout": envoy.seconds(CONNECT_TIMEOUT_S),
        # A session stays with its replica as long as that is there; without a session any replica will do.
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 512},
        "common_lb_config": _PANIC,
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
            "consecutive_local_origin_failure": 3,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            # A replica that says to be ready and fails requests stays out for its time.
            "successful_active_health_check_uneject_host": False,
        },
        "circuit_breakers": _circuit_breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.typed(
                "HttpProtocolOptions",
                common_http_protocol_options={"idle_timeout": envoy.seconds(UPSTREAM_IDLE_S)},
                explicit_http_config={"http_protocol_options": {}},
            )
        },
    }


def _health_check() -> Config:
    """Each second; two timeouts in a row make unhealthy, but one answer that isn't 200 does at once."""
    return {
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/readyz", "host": "gateway"},
    }


def _admin_cluster(settings: Settings) -> Config:
    socket = {"endpoint": {"address": envoy.pipe(str(settings.admin_socket))}}
    return {
        "name": ADMIN,
        "type": "STATIC",
        "load_assignment": {"cluster_name": ADMIN, "endpoints": [{"lb_endpoints": [socket]}]},
    }


def _customers(settings: Settings) -> Config:
    manager = envoy.typed(
        "HttpConnectionManager",
        stat_prefix=ROUTES,
        rds={"route_config_name": ROUTES, "config_source": envoy.file_source(str(settings.routes))},
        http_filters=[
            # Holds the request until it is there as a whole, so that it can be repeated.
            envoy.extension("envoy.filters.http.buffer", "Buffer", max_request_bytes=MAX_REQUEST_BYTES),
            envoy.extension("envoy.filters.http.router", "Router", suppress_envoy_headers=True),
        ],
        # Customers are outside: Envoy's own control headers are taken off their requests.
        use_remote_address=True,
        # (No address is inside: this one is never used. Without a range all private and loopback ones would be.)
        internal_address_config={"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        # A caller's request id is kept (it is how an answer is joined with its log lines), a missing one is made.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        server_name="switchboard",
        normalize_path=True,
        merge_slashes=True,
        request_headers_timeout="10s",
        request_timeout="15s",
        stream_idle_timeout="60s",
        common_http_protocol_options={"idle_timeout": "300s"},
        local_reply_config=_local_replies(),
        access_log=[_failures_log()],
    )
    return _listener("customers", settings.pod_ip, PORT, manager)


def _ops(settings: Settings) -> Config:
    manager = envoy.typed(
        "HttpConnectionManager",
        stat_prefix=OPS_ROUTES,
        rds={"route_config_name": OPS_ROUTES, "config_source": envoy.file_source(str(settings.ops_routes))},
        http_filters=[envoy.extension("envoy.filters.http.router", "Router")],
    )
    # Probes must get through when customers have used up all connections.
    return {**_listener("ops", settings.pod_ip, OPS_PORT, manager), "ignore_global_conn_limit": True}


def _listener(name: str, ip: str, port: int, manager: Config) -> Config:
    filter_ = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": name,
        "address": envoy.address(ip, port),
        "filter_chains": [{"filters": [filter_]}],
        "per_connection_buffer_limit_bytes": 2 * MAX_REQUEST_BYTES,
    }


def _local_replies() -> Config:
    def body(code: str, message: str) -> Config:
        error = {"code": code, "message": message}
        return {"json_format": {"error": error, "request_id": "%REQ(X-REQUEST-ID)%"}}

    mappers = []
    for status, (code, message) in _LOCAL_ANSWERS.items():
        mapper: Config = {
            "filter": {"status_code_filter": {"comparison": _equals(status, f"reply_{status}")}},
            "body_format_override": body(code, message),
        }
        if status == 503:
            mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
        mappers.append(mapper)
    return {"mappers": mappers, "body_format": body("gateway_error", "%LOCAL_REPLY_BODY%")}


def _equals(status: int, key: str) -> Config:
    return {"op": "EQ", "value": {"default_value": status, "runtime_key": key}}


def _failures_log() -> Config:
    """One line of JSON for each request that failed; no path beyond the route, no body, no address."""
    fields = {
        "time": "%START_TIME%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "upstream": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "duration_ms": "%DURATION%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    return {
        **envoy.extension(
            "envoy.access_loggers.stdout", "StdoutAccessLog", log_format={"json_format": fields}
        ),
        "filter": {
            "status_code_filter": {
                "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "log_from"}}
            }
        },
    }
