"""Envoy's configuration, as far as Switchboard uses it: its words, its files, its admin socket.

For the two that steer an Envoy, the Service proxy of an embedded site and the gateway's agent. Both write Envoy's
dynamic resources to files that Envoy watches. Two rules of Envoy's make that safe: it reads a file only when one is
renamed onto it, in the same folder, so it never sees half of one; and a resource that did not change is left alone,
so an update touches no listener and no connection but those that it is about.

A resource file carries a version computed from its content. Envoy shows the version it has taken (`Admin.stats`),
so whoever wrote a file can wait until it is in force.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

Config = dict[str, Any]
"""A message of Envoy's v3 API, as JSON."""

_TYPES = {
    "Cluster": "envoy.config.cluster.v3.Cluster",
    "Listener": "envoy.config.listener.v3.Listener",
    "RouteConfiguration": "envoy.config.route.v3.RouteConfiguration",
    "ClusterLoadAssignment": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "TcpProxy": "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "HttpConnectionManager": (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    ),
    "AggregateCluster": "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
    "Router": "envoy.extensions.filters.http.router.v3.Router",
    "LocalRateLimit": "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "Buffer": "envoy.extensions.filters.http.buffer.v3.Buffer",
    "HttpProtocolOptions": "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "PreviousHostsPredicate": "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "Runtime": "envoy.service.runtime.v3.Runtime",
    "PreviousPriorities": "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "StdoutAccessLog": "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "DownstreamConnectionsConfig": (
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    ),
}


def typed(type_name: str, **fields: Any) -> Config:
    """A message that names its type: `typed("TcpProxy", stat_prefix="x")`."""
    return {"@type": f"type.googleapis.com/{_TYPES[type_name]}", **fields}


def extension(name: str, type_name: str, **fields: Any) -> Config:
    """A named extension (a filter, a predicate, a logger) with its typed configuration."""
    return {"name": name, "typed_config": typed(type_name, **fields)}


def address(ip: str, port: int) -> Config:
    return {"socket_address": {"address": ip, "port_value": port}}


def pipe(path: str) -> Config:
    """A Unix socket of the user's own; at most 107 bytes, or relative to Envoy's working directory."""
    return {"pipe": {"path": path, "mode": 0o600}}


def seconds(value_s: float) -> str:
    """A duration as Envoy writes it."""
    return f"{value_s:g}s"


def file_source(path: str) -> Config:
    """Resources from a file that Envoy watches. It must be there when the source is first used."""
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}


@dataclass(frozen=True, order=True)
class Endpoint:
    """One address that serves."""

    ip: str
    port: int


def load_assignment(cluster: str, endpoints: Iterable[Endpoint], **policy: Any) -> Config:
    """A cluster's endpoints."""
    found = [{"endpoint": {"address": address(one.ip, one.port)}} for one in endpoints]
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": found}],
        **({"policy": policy} if policy else {}),
    }


def describe(assignments: Config) -> str:
    """The addresses in a file of endpoints, for people."""
    found = [
        one["endpoint"]["address"]["socket_address"]
        for assignment in assignments["resources"]
        for locality in assignment["endpoints"]
        for one in locality["lb_endpoints"]
    ]
    return " ".join(f"{one['address']}:{one['port_value']}" for one in found) or "none"


def resources(type_name: str, items: Iterable[Config]) -> Config:
    """A file of resources of one type, with its content's version."""
    body = [{**typed(type_name), **item} for item in items]
    return {"version_info": digest(body), "resources": body}


def digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def bootstrap(
    node: str,
    *,
    admin_socket: str,
    stats: Sequence[Mapping[str, Any]],
    max_connections: int,
    static: Config | None = None,
    dynamic: Config | None = None,
    histograms: Sequence[Config] = (),
    runtime: tuple[str, str] | None = None,
) -> Config:
    """What Envoy is started with. Only statistics that `stats` (string matchers) match are kept. `runtime`: a name and
    a file of `Runtime`, for values that change without a cluster or a listener being made anew.

    The admin face is a Unix socket, closed to all but its own user: it can stop Envoy, and prints all configuration.
    """
    return {
        "node": {"id": node, "cluster": "switchboard"},
        "admin": {"address": pipe(admin_socket)},
        "static_resources": static or {},
        "dynamic_resources": dynamic or {},
        **({"layered_runtime": {"layers": [_layer(*runtime)]}} if runtime is not None else {}),
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": [*OWN_STATS, *stats]}},
            "histogram_bucket_settings": list(histograms),
        },
        "overload_manager": {
            "resource_monitors": [
                extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "DownstreamConnectionsConfig",
                    max_active_downstream_connections=max_connections,
                )
            ]
        },
    }


def _layer(name: str, path: str) -> Config:
    return {"name": name, "rtds_layer": {"name": name, "rtds_config": file_source(path)}}


OWN_STATS: tuple[Mapping[str, Any], ...] = (
    {"suffix": "version_text"},
    {"suffix": "update_rejected"},
    {"prefix": "listener_manager.total_listeners"},
    {"exact": "cluster_manager.warming_clusters"},
    {"exact": "server.live"},
    {"exact": "server.memory_allocated"},
    {"exact": "server.uptime"},
)
"""What `Admin` itself asks for, and what says whether Envoy is well."""

CDS_VERSION = "cluster_manager.cds.version_text"
LDS_VERSION = "listener_manager.lds.version_text"
LDS_REJECTED = "listener_manager.lds.update_rejected"
WARMING = "cluster_manager.warming_clusters"

ARGUMENTS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
"""One worker (two cost memory and gain nothing below some 10,000 requests/s) and no hot restart: it would take a
shared-memory segment by number, on which the many Envoys of one machine would collide."""


def write(path: Path, document: Config, *, again: bool = False) -> bool:
    """Put `document` in place by rename, so that Envoy takes it; False where the file says so already.

    With `again` it is put in place in any case: Envoy then tries once more what it could not do (bind an address).
    """
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    if not again:
        try:
            if path.read_bytes() == data:
                return False
        except FileNotFoundError:
            pass
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave an empty file that Envoy can't start from
    temporary.replace(path)
    return True


class Admin:
    """Envoy's admin face on its Unix socket; an async context manager.

    Every call raises `OSError` or `TimeoutError` where Envoy doesn't answer.
    """

    def __init__(self, socket: Path, *, timeout_s: float = 2.0) -> None:
        self._socket = socket
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._directory = -1

    async def __aenter__(self) -> Admin:
        # Through the folder's descriptor, since a socket's path is limited to 107 bytes and a state folder's isn't.
        self._directory = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._directory}/{self._socket.name}"
        return self

    async def __aexit__(self, *_: object) -> None:
        os.close(self._directory)

    async def request(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Status and text of the answer."""
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(self._path, force_close=True), timeout=self._timeout
                ) as session,
                session.request(method, f"http://envoy{path}") as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientError as error:
            raise OSError(f"Envoy's admin socket: {error}") from error

    async def live(self) -> bool:
        """Whether Envoy has all its first configuration and serves."""
        try:
            return (await self.request("/ready"))[0] == 200
        except (OSError, TimeoutError):
            return False

    async def stats(self, *names: str) -> dict[str, str]:
        """Counters, gauges and texts by name; those of these names only, where there are any."""
        wanted = "|".join(re.escape(name) for name in names)
        # Some thousand clusters have megabytes of statistics. A long question would be refused.
        only = f"&filter={quote(f'^({wanted})$')}" if names and len(wanted) < 2000 else ""
        _, text = await self.request(f"/stats?type=All{only}")
        pairs = (line.split(": ", 1) for line in text.splitlines())
        return {pair[0]: pair[1].strip('"') for pair in pairs if len(pair) == 2}

    async def taken(self, expected: Mapping[str, str], *, timeout_s: float) -> bool:
        """Wait until the statistics have these values (versions, mostly); False where they don't in time."""
        deadline = time.monotonic() + timeout_s
        pause_s = 0.002
        while True:
            try:
                stats = await self.stats(*expected)
            except (OSError, TimeoutError):
                stats = {}
            if all(stats.get(name) == value for name, value in expected.items()):
                return True
            if time.monotonic() + pause_s > deadline:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(0.1, pause_s * 2)

    async def failed_listeners(self) -> dict[str, str]:
        """Listeners that Envoy could not make, and why."""
        _, text = await self.request("/config_dump?resource=dynamic_listeners")
        states = [
            one["error_state"] for one in json.loads(text or "{}").get("configs", ()) if "error_state" in one
        ]
        return {state["failed_configuration"]["name"]: state.get("details", "") for state in states}
