"""A thin asyncio client of the Kubernetes API on plain dictionaries.

For the long-running parts (node agents, Service proxy, gateway agents), of which many run beside each other: the
generated clients cost 60-90 MB and a second of imports each, this one what aiohttp costs. It speaks the API's own
words: kinds, patch types, field managers, watches; `switchboard.informer` keeps a live copy of a list on top of it.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml

from switchboard.errors import SwitchboardError

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True)
class Kind:
    """A resource type: `Kind("apps/v1", "deployments", "Deployment")`."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path; without a namespace that of all namespaces (for lists of namespaced kinds)."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap")
EVENTS = Kind("v1", "events", "Event")
NAMESPACES = Kind("v1", "namespaces", "Namespace", namespaced=False)
NODES = Kind("v1", "nodes", "Node", namespaced=False)
PERSISTENT_VOLUMES = Kind("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PODS = Kind("v1", "pods", "Pod")
SECRETS = Kind("v1", "secrets", "Secret")
SERVICES = Kind("v1", "services", "Service")
SERVICE_ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment")
DAEMON_SETS = Kind("apps/v1", "daemonsets", "DaemonSet")
REPLICA_SETS = Kind("apps/v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Kind("apps/v1", "statefulsets", "StatefulSet")
JOBS = Kind("batch/v1", "jobs", "Job")
LEASES = Kind("coordination.k8s.io/v1", "leases", "Lease")
CSI_NODES = Kind("storage.k8s.io/v1", "csinodes", "CSINode", namespaced=False)
STORAGE_CLASSES = Kind("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)


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


@dataclass
class Credentials:
    """How to reach one API server, and as whom. Token files are read again for each connection's request."""

    server: str
    ca: str | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"
    _cleanup: list[Path] = field(default_factory=list)

    @classmethod
    def in_cluster(cls, environ: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> Credentials:
        """Those of the pod that this runs in.

        Raises:
            SwitchboardError: this is not a pod with a service account.
        """
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port or not (directory / "token").exists():
            raise SwitchboardError(
                "not in a pod with a service account: no token or no KUBERNETES_SERVICE_HOST"
            )
        return cls(
            server=f"https://{host}:{port}",
            ca=(directory / "ca.crt").read_text(),
            token_file=directory / "token",
            namespace=(directory / "namespace").read_text().strip(),
        )

    @classmethod
    def from_kubeconfig(cls, source: Path | str, context: str | None = None) -> Credentials:
        """Those of a kubeconfig: a path, or the contents themselves.

        Raises:
            SwitchboardError: the file or the context is missing, or it uses what this client can't do (exec plugins).
        """
        if isinstance(source, str) and "\n" in source:
            text, base, name = source, Path.cwd(), "the given kubeconfig"
        else:
            path = Path(source).expanduser()
            name, base = str(path), path.parent
            try:
                text = path.read_text()
            except OSError as error:
                raise SwitchboardError(f"can't read the kubeconfig {path}: {error.strerror}") from None
        try:
            config = yaml.safe_load(text)
            chosen = context or config.get("current-context")
            ctx = {item["name"]: item["context"] for item in config["contexts"]}
            if chosen not in ctx:
                raise SwitchboardError(
                    f"{name} has no context {chosen!r}; it has {', '.join(sorted(ctx)) or 'none'}"
                )
            cluster = {i["name"]: i["cluster"] for i in config["clusters"]}[ctx[chosen]["cluster"]]
            user = {i["name"]: i.get("user") or {} for i in config.get("users") or []}[ctx[chosen]["user"]]
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise SwitchboardError(
                f"{name} is not a usable kubeconfig: {type(error).__name__} {error}"
            ) from None
        if unsupported := {"exec", "auth-provider", "username"} & set(user):
            raise SwitchboardError(
                f"{name}: user {ctx[chosen]['user']} logs in by {unsupported.pop()}, which is not supported here"
            )
        found = cls(server=cluster["server"].rstrip("/"), namespace=ctx[chosen].get("namespace") or "default")
        if data := cluster.get("certificate-authority-data"):
            found.ca = base64.b64decode(data).decode()
        elif file := cluster.get("certificate-authority"):
            found.ca = (base / file).read_text()
        found.token = user.get("token")
        if file := user.get("tokenFile"):
            found.token_file = base / file
        for attribute, key in (("cert_file", "client-certificate"), ("key_file", "client-key")):
            if data := user.get(f"{key}-data"):
                handle = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115 - ssl loads from files only
                with handle:
                    handle.write(base64.b64decode(data))
                setattr(found, attribute, Path(handle.name))
                found._cleanup.append(Path(handle.name))
            elif file := user.get(key):
                setattr(found, attribute, base / file)
        return found

    def ssl_context(self) -> ssl.SSLContext | Literal[False]:
        if not self.server.startswith("https"):
            return False
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        finally:
            for path in self._cleanup:
                path.unlink(missing_ok=True)
            self._cleanup.clear()
        return context

    def bearer(self) -> str | None:
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token


class Kube:
    """A connection to one API server; an async context manager.

        async with Kube(Credentials.from_kubeconfig(path)) as kube:
            pods = await kube.list(PODS, namespace="core")

    Every call raises `ApiError` for the server's refusal and `Unreachable` where there is no answer.
    """

    def __init__(
        self, credentials: Credentials, *, timeout_s: float = 10.0, user_agent: str = "switchboard"
    ) -> None:
        self.credentials = credentials
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Kube:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self.credentials.ssl_context() or False, limit=64, keepalive_timeout=30
            ),
            timeout=self._timeout,
            headers={"User-Agent": self._user_agent},
            json_serialize=lambda value: json.dumps(value, separators=(",", ":")),
        )
        return self

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
            raise Unreachable(f"{self.credentials.server}: {error or type(error).__name__}") from error

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
    ) -> Object:
        """The list object, with its `metadata.resourceVersion`; items carry no kind."""
        return await self.request(
            "GET", kind.path(namespace), params=_selectors(label_selector, field_selector), timeout_s=30
        )

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
        """Delete; None where it doesn't exist (or, with `uid`, is another object by now: `Conflict` is raised)."""
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
            raise Unreachable(f"{self.credentials.server}: {error or type(error).__name__}") from error


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
