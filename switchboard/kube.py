"""A thin asyncio client of the Kubernetes API on plain dictionaries.

For the long-running parts (node agents, Service proxy, gateway agents), of which many run beside each other: the
generated clients cost 60-90 MB and a second of imports each, this one what aiohttp costs. It speaks the API's own
words: kinds, patch types, field managers, watches; `switchboard.informer` keeps a live copy of a list on top of it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from switchboard.credentials import SERVICE_ACCOUNT, Credentials
from switchboard.kinds import (
    CONFIG_MAPS,
    CSI_NODES,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    Kind,
)

__all__ = [
    "CONFIG_MAPS",
    "CSI_NODES",
    "DAEMON_SETS",
    "DEPLOYMENTS",
    "EVENTS",
    "JOBS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PERSISTENT_VOLUMES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "REPLICA_SETS",
    "SECRETS",
    "SERVICES",
    "SERVICE_ACCOUNT",
    "SERVICE_ACCOUNTS",
    "STATEFUL_SETS",
    "STORAGE_CLASSES",
    "ApiError",
    "Credentials",
    "Kind",
    "Kube",
    "Object",
    "Unreachable",
    "WatchEvent",
]

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""


_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """The API server's refusal: HTTP `status`, machine-readable `reason` (`NotFound`, `Conflict`, …), `message`."""

    def __init__(self, status: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        return self.status == 409


class Unreachable(Exception):
    """No answer from the API server: refused, timed out, broken off, or a certificate that doesn't fit."""


@dataclass(frozen=True)
class WatchEvent:
    """One event of a watch: `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`."""

    type: str
    object: Object


class Kube:
    """A connection to one API server; an async context manager.

        async with Kube(Credentials.from_kubeconfig(path)) as kube:
            pods = await kube.list(PODS, namespace="core")

    Every call raises `ApiError` for the server's refusal and `Unreachable` where there is no answer.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_s: float = 10.0,
        user_agent: str = "switchboard",
        max_connections: int = 64,
    ) -> None:
        self.credentials = credentials
        self._max_connections = max_connections
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Kube:
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            timeout=self._timeout,
            headers={"User-Agent": self._user_agent},
            json_serialize=lambda value: json.dumps(value, separators=(",", ":")),
        )
        return self

    def _connector(self) -> aiohttp.BaseConnector:
        if (path := self.credentials.socket) is not None:
            return aiohttp.UnixConnector(path=str(path), limit=self._max_connections)
        return aiohttp.TCPConnector(
            ssl=self.credentials.ssl_context() or False,
            limit=self._max_connections,
            keepalive_timeout=30,
            socket_factory=_watched_socket,
        )

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _headers(self, content_type: str | None = None) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        if token := self.credentials.bearer():
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Any:
        """One request; the answer's JSON (text where it isn't JSON)."""
        if self._session is None:
            raise RuntimeError("use `async with Kube(...)`")
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        timeout = self._timeout if timeout_s is None else aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method,
                self.credentials.server + path,
                params=params,
                data=data,
                headers=self._headers(content_type if body is not None else None),
                timeout=timeout,
            ) as response:
                raw = await response.read()
                if response.status >= 400:
                    raise _error(response.status, raw)
                if response.content_type == "application/json":
                    return json.loads(raw)
                return raw.decode(errors="replace")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self.credentials.server}: {str(error) or type(error).__name__}") from error

    async def get(
        self, kind: Kind, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        return await self.request("GET", kind.path(namespace, name, subresource))

    async def get_or_none(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None where it doesn't exist."""
        try:
            return await self.get(kind, name, namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def list_raw(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        token: str | None = None,
    ) -> Object:
        """The list object, with its `metadata.resourceVersion`; items carry no kind.

        With `limit` a page of it; the next is that of `token`, the `metadata.continue` of the one before.
        """
        params = _selectors(label_selector, field_selector)
        if limit is not None:
            params["limit"] = str(limit)
        if token is not None:
            params["continue"] = token
        return await self.request("GET", kind.path(namespace), params=params, timeout_s=30)

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Object]:
        return (
            await self.list_raw(kind, namespace, label_selector=label_selector, field_selector=field_selector)
        )["items"]

    async def create(
        self,
        kind: Kind,
        body: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        """Create; with `subresource` (`binding`, `token`, `eviction`) of the object `name`."""
        return await self.request(
            "POST", kind.path(_namespace(kind, body, namespace), name, subresource), body=body, params=params
        )

    async def replace(self, kind: Kind, body: Object, *, subresource: str | None = None) -> Object:
        meta = body["metadata"]
        return await self.request(
            "PUT", kind.path(meta.get("namespace"), meta["name"], subresource), body=body
        )

    async def patch(
        self,
        kind: Kind,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        patch_type: Literal["merge", "strategic", "json"] = "merge",
        subresource: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        return await self.request(
            "PATCH",
            kind.path(namespace, name, subresource),
            body=body,
            content_type=_PATCH_TYPES[patch_type],
            params=params,
        )

    async def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply of `body` (apiVersion and kind are filled in)."""
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        params = {"fieldManager": field_manager, "force": str(force).lower()}
        if dry_run:
            params["dryRun"] = "All"
        meta = body["metadata"]
        return await self.request(
            "PATCH",
            kind.path(meta.get("namespace"), meta["name"], subresource),
            body=body,
            content_type=_PATCH_TYPES["apply"],
            params=params,
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        propagation: Literal["Foreground", "Background", "Orphan"] | None = None,
        uid: str | None = None,
    ) -> Object | None:
        """Delete; None where it doesn't exist. With `uid`, `Conflict` where it is another object by now."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            return await self.request("DELETE", kind.path(namespace, name), body=options)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_s: int = 300,
        idle_timeout_s: float | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version` until the server ends the watch (after `timeout_s`).

        Raises:
            ApiError: 410 `Expired` where the version is too old: list again.
        """
        if self._session is None:
            raise RuntimeError("use `async with Kube(...)`")
        params = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
            **_selectors(label_selector, field_selector),
        }
        try:
            async with self._session.get(
                self.credentials.server + kind.path(namespace),
                params=params,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=10, sock_read=idle_timeout_s or timeout_s + 30
                ),
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.read())
                buffer = bytearray()
                async for chunk in response.content.iter_any():
                    buffer += chunk
                    while (end := buffer.find(b"\n")) >= 0:
                        line = bytes(buffer[:end])
                        del buffer[: end + 1]
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise ApiError(
                                status.get("code", 500), status.get("reason", ""), status.get("message", "")
                            )
                        yield WatchEvent(event["type"], event["object"])
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self.credentials.server}: {str(error) or type(error).__name__}") from error


_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def _watched_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket whose other end is asked for when it is silent: a watch over a cut line ends within half a minute."""
    made = socket.socket(*info[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # not on every system
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    params = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params


def _namespace(kind: Kind, body: Object, namespace: str | None) -> str | None:
    if not kind.namespaced:
        return None
    return namespace or body.get("metadata", {}).get("namespace") or "default"


def _error(status: int, raw: bytes) -> ApiError:
    try:
        body = json.loads(raw)
        return ApiError(status, body.get("reason", ""), body.get("message", ""), body.get("details"))
    except (ValueError, AttributeError):
        return ApiError(status, "", raw.decode(errors="replace").strip()[:500])
