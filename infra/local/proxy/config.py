"""Envoy's configuration for the Service proxy: pure functions from what leads where to the files' contents.

- One cluster for each port of a Service, with its endpoints inside (not by EDS: Envoy takes an inotify instance for
  each file that it watches, and a user has 128). A change of endpoints replaces the cluster; connections through the
  old one go on until they end.
- One listener for each port *that has an endpoint*. So a connection to a Service without any is refused by the
  kernel, as it would be by kube-proxy, rather than accepted and dropped; the open connections of a listener that
  goes away have Envoy's drain time (10 min) to end.
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.local.proxy.forwards import Check, Forward
from switchboard import envoy
from switchboard.envoy import Config

BOOTSTRAP, CLUSTERS, LISTENERS, ADMIN = "bootstrap.json", "clusters.json", "listeners.json", "admin.sock"
"""File names in the proxy's folder, which is Envoy's working directory."""

MAX_CONNECTIONS = 50_000
CONNECT_TIMEOUT_S = 1.0
CHECK_S = 1.0
CONNECT_ATTEMPTS = 3
"""A pod that has just died refuses: the next attempt takes another, and the client sees nothing of it."""


def bootstrap(site: str) -> Config:
    return envoy.bootstrap(
        f"service-proxy-{site}",
        admin_socket=f"./{ADMIN}",
        stats=(),
        max_connections=MAX_CONNECTIONS,
        dynamic={
            "cds_config": envoy.file_source(f"./{CLUSTERS}"),
            "lds_config": envoy.file_source(f"./{LISTENERS}"),
        },
    )


def clusters(forwards: Iterable[Forward]) -> Config:
    return envoy.resources("Cluster", (_cluster(forward) for forward in forwards))


def listeners(forwards: Iterable[Forward]) -> Config:
    return envoy.resources("Listener", (_listener(forward) for forward in forwards if forward.endpoints))


def _cluster(forward: Forward) -> Config:
    return {
        "name": forward.name,
        "type": "STATIC",
        # Random: round robin starts again at the first endpoint with every change, least request needs two looks.
        "lb_policy": "RING_HASH" if forward.by_client else "RANDOM",
        "connect_timeout": envoy.seconds(CONNECT_TIMEOUT_S),
        "load_assignment": _endpoints(forward),
        # Envoy's own limit of 1,024 connections a cluster is for one service behind a gateway, not for a network.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MAX_CONNECTIONS,
                    "max_pending_requests": MAX_CONNECTIONS,
                    "max_requests": MAX_CONNECTIONS,
                }
            ]
        },
        **(_checked(forward.check, refuses=forward.refuses) if forward.check is not None else {}),
    }


def _endpoints(forward: Forward) -> Config:
    found = envoy.load_assignment(forward.name, forward.endpoints)
    if forward.check is not None:
        for one in found["endpoints"][0]["lb_endpoints"]:
            one["endpoint"]["health_check_config"] = {"port_value": forward.check.port}
    return found


def _checked(check: Check, *, refuses: bool) -> Config:
    """Whoever doesn't answer twice in a row gets no connection, and those that it has are reset: their clients, who
    would wait for it, ask anew."""
    return {
        "health_checks": [
            {
                "timeout": envoy.seconds(CHECK_S),
                "interval": envoy.seconds(CHECK_S),
                "no_traffic_interval": envoy.seconds(CHECK_S),
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": check.path, "host": "service-proxy"},
            }
        ],
        "close_connections_on_host_health_failure": True,
        **({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}} if refuses else {}),
    }


def _listener(forward: Forward) -> Config:
    by_client: Config = {"hash_policy": [{"source_ip": {}}]} if forward.by_client else {}
    return {
        "name": forward.name,
        "address": envoy.address(forward.ip, forward.port),
        "filter_chains": [
            {
                "filters": [
                    envoy.extension(
                        "envoy.filters.network.tcp_proxy",
                        "TcpProxy",
                        stat_prefix="service",
                        cluster=forward.name,
                        max_connect_attempts=CONNECT_ATTEMPTS,
                        # None: a watch may be silent for hours, and whose end dies resets it.
                        idle_timeout="0s",
                        **by_client,
                    )
                ]
            }
        ],
        # A service port has one listening socket for all workers, so that a bind to an address in use is an error.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 262_144,
    }
