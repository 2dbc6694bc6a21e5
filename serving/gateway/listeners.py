"""Where a gateway takes requests: its listeners, which are in Envoy's bootstrap and never change.

- `customers`, on the pod's address: each request is counted for its model server, then sent as the route table says.
- `released`, on a socket of the pod's own: requests that have waited in the agent (`activator`). Its route table never
  leads back there, and none is counted twice.
- `ops`, on the pod's address: probes and statistics.
"""

from __future__ import annotations

from typing import Any

from serving.gateway.settings import OPS_PORT, PORT, Settings
from switchboard import envoy
from switchboard.envoy import Config

ROUTES, RELEASED, OPS_ROUTES = "gateway", "released", "ops"
"""The route tables; they are also the prefixes of the listeners' statistics."""

MAX_REQUEST_BYTES = 64 * 1024

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

_COUNT = "envoy.filters.http.local_ratelimit"


def listeners(settings: Settings) -> list[Config]:
    return [_customers(settings), _released(settings), _ops(settings)]


def error(status: int, request_id: str) -> Config:
    """The body of an answer of the gateway's own."""
    code, message = _LOCAL_ANSWERS[status]
    return {"error": {"code": code, "message": message}, "request_id": request_id}


def counted(name: str) -> Config:
    """A route's configuration by which its requests are counted, as `<name>.http_local_rate_limit.enabled`.

    Nothing is limited. But it is the one number in Envoy that is one for each request of a customer's: those of the
    clusters count tries, leave out the ones that got no connection, and know nothing of requests that wait.
    """
    return {
        _COUNT: envoy.typed(
            "LocalRateLimit",
            stat_prefix=name,
            token_bucket={"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1s"},
            filter_enabled=percent(100),
            filter_enforced=percent(0),
        )
    }


def percent(value: int) -> Config:
    """So many of a hundred, by chance."""
    return {"default_value": {"numerator": value, "denominator": "HUNDRED"}}


def _customers(settings: Settings) -> Config:
    manager = _manager(
        ROUTES,
        str(settings.routes),
        [_buffer(), envoy.extension(_COUNT, "LocalRateLimit", stat_prefix="_unused")],
        # Customers are outside: Envoy's own control headers are taken off their requests.
        use_remote_address=True,
        # (No address is inside: this one is never used. Without a range all private and loopback ones would be.)
        internal_address_config={"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        stream_idle_timeout="60s",
    )
    return _listener("customers", envoy.address(settings.pod_ip, PORT), manager)


def _released(settings: Settings) -> Config:
    """What it takes has been through `_customers`: addresses and ids are those of then."""
    manager = _manager(RELEASED, str(settings.released_routes), [_buffer()], skip_xff_append=True)
    listener = _listener("released", envoy.pipe(str(settings.released_socket)), manager)
    return {**listener, "ignore_global_conn_limit": True}


def _ops(settings: Settings) -> Config:
    manager = envoy.typed(
        "HttpConnectionManager",
        stat_prefix=OPS_ROUTES,
        rds=_table(OPS_ROUTES, str(settings.ops_routes)),
        http_filters=[envoy.extension("envoy.filters.http.router", "Router")],
    )
    # Probes must get through when customers have used up all connections.
    return {
        **_listener("ops", envoy.address(settings.pod_ip, OPS_PORT), manager),
        "ignore_global_conn_limit": True,
    }


def _manager(table: str, file: str, filters: list[Config], **more: Any) -> Config:
    return envoy.typed(
        "HttpConnectionManager",
        stat_prefix=table,
        rds=_table(table, file),
        http_filters=[
            *filters,
            envoy.extension("envoy.filters.http.router", "Router", suppress_envoy_headers=True),
        ],
        # A caller's request id is kept (it is how an answer is joined with its log lines), a missing one is made.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        server_name="switchboard",
        normalize_path=True,
        merge_slashes=True,
        request_headers_timeout="10s",
        request_timeout="15s",
        common_http_protocol_options={"idle_timeout": "300s"},
        local_reply_config=_local_replies(),
        access_log=[_failures_log()],
        **more,
    )


def _table(name: str, file: str) -> Config:
    return {"route_config_name": name, "config_source": envoy.file_source(file)}


def _buffer() -> Config:
    """Holds a request until it is there as a whole, so that it can be repeated."""
    return envoy.extension("envoy.filters.http.buffer", "Buffer", max_request_bytes=MAX_REQUEST_BYTES)


def _listener(name: str, address: Config, manager: Config) -> Config:
    filter_ = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": name,
        "address": address,
        "filter_chains": [{"filters": [filter_]}],
        "per_connection_buffer_limit_bytes": 2 * MAX_REQUEST_BYTES,
    }


def _local_replies() -> Config:
    mappers = []
    for status in _LOCAL_ANSWERS:
        mapper: Config = {
            "filter": {"status_code_filter": {"comparison": _equals(status, f"reply_{status}")}},
            "body_format_override": {"json_format": error(status, "%REQ(X-REQUEST-ID)%")},
        }
        if status == 503:
            mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": "1"}}]
        mappers.append(mapper)
    other = {"code": "gateway_error", "message": "%LOCAL_REPLY_BODY%"}
    body = {"json_format": {"error": other, "request_id": "%REQ(X-REQUEST-ID)%"}}
    return {"mappers": mappers, "body_format": body}


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
