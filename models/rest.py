"""MLflow's registry over its REST API, with the standard library alone.

For processes to which importing mlflow would cost seconds and 200 MB (the model servers, `switchboard models list`).
Every call has a deadline and a bound on what it reads; failures are one of three: `Unreachable` (try again),
`NotFound` (the registry answered: there is no such thing), `Refused` (it answered, and trying again won't help;
`Denied` where it is about who asks). Proxies of the environment are not used: a registry is inside the sites. Nor are
redirections followed, which would take the password along.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchboard.errors import SwitchboardError
from switchboard.registry_users import Login, login

MAX_JSON_BYTES = 16 << 20
CALL_TIMEOUT_S = 5.0
_CHUNK = 1 << 18

FILES_TAG = "switchboard.files"
"""Tag of a model version: JSON `{file: {"sha256": …, "size": …}}` of what a server loads."""
DATA_TAG = "switchboard.data_sha256"
CODE_TAG = "switchboard.code_version"
BOOTSTRAP_TAG = "switchboard.bootstrap"

ARTIFACT_FOLDER = "classifier"
"""Where in the logged model the files of `models.classifier.FILES` are."""


class RegistryError(Exception):
    """The base of what can go wrong with the registry."""


class Unreachable(RegistryError):
    """No usable answer: refused, timed out, broken off, a server error."""


class NotFound(RegistryError):
    """The registry has no such model, version or alias."""


class Refused(RegistryError):
    """The registry refused the request (4xx)."""


class Denied(Refused):
    """The registry doesn't know who asks (401), or they may not (403); `next_step` says what to do."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.next_step = next_step


class Forbidden(Denied):
    """The registry knows who asks, and they may not (403)."""


@dataclass(frozen=True)
class FileInfo:
    sha256: str
    size: int


@dataclass(frozen=True)
class Version:
    """A model version as the registry tells it."""

    name: str
    version: str
    run_id: str
    status: str
    created_ms: int
    description: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, FileInfo]:
        """The files that were registered, with their hashes; empty where the version isn't one of Switchboard's."""
        try:
            raw = json.loads(self.tags.get(FILES_TAG, "{}"))
            return {str(name): FileInfo(str(f["sha256"]), int(f["size"])) for name, f in raw.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}


def tracking_uri(given: str | None = None) -> str:
    """The registry's address: what is given, else `$MLFLOW_TRACKING_URI`.

    Raises:
        SwitchboardError: there is none, or it isn't http(s).
    """
    uri = (given or os.environ.get("MLFLOW_TRACKING_URI") or "").rstrip("/")
    if not uri:
        raise SwitchboardError(
            "the address of MLflow is not known",
            'set MLFLOW_TRACKING_URI, for example by eval "$(switchboard env)"',
        )
    if "@" in urllib.parse.urlsplit(uri).netloc:
        raise SwitchboardError(
            "the address of MLflow holds a user or a password, and addresses end up in logs",
            "take it out of the address, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if urllib.parse.urlsplit(uri).scheme not in ("http", "https"):
        raise SwitchboardError(
            f"the address of MLflow must begin with http:// or https://, not {uri!r}",
            "set MLFLOW_TRACKING_URI",
        )
    return uri


class Registry:
    """A client of one registry; keeps no connection and no state."""

    def __init__(self, uri: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.uri = uri
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirection)

    def healthy(self) -> bool:
        try:
            return self._read(f"{self.uri}/health", 1024, time.monotonic() + self._timeout_s) == b"OK"
        except RegistryError:
            return False

    def user(self) -> str | None:
        """Who this client is, as the server has made sure; None where it asks nobody for a password."""
        try:
            return str(self._get("users/current", {})["user"]["username"])
        except NotFound:
            return None

    def version_of_alias(self, name: str, alias: str) -> Version:
        found = self._get("registered-models/alias", {"name": name, "alias": alias})
        return _version(found["model_version"])

    def version(self, name: str, version: str) -> Version:
        return _version(self._get("model-versions/get", {"name": name, "version": version})["model_version"])

    def models(self) -> list[str]:
        found = self._get("registered-models/search", {"max_results": "1000"})
        return sorted(str(item["name"]) for item in found.get("registered_models", []))

    def aliases(self, name: str) -> dict[str, tuple[str, ...]]:
        """Version → its aliases. (A search for versions doesn't tell them.)"""
        found = self._get("registered-models/get", {"name": name})["registered_model"]
        by_version: dict[str, list[str]] = {}
        for item in found.get("aliases", []):
            by_version.setdefault(str(item["version"]), []).append(str(item["alias"]))
        return {version: tuple(sorted(names)) for version, names in by_version.items()}

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first."""
        query = {"filter": f"name='{name}'", "max_results": "1000"}
        found = self._get("model-versions/search", query).get("model_versions", [])
        return sorted((_version(item) for item in found), key=lambda version: int(version.version))

    def run(self, run_id: str) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics and parameters of a run."""
        data = self._get("runs/get", {"run_id": run_id})["run"].get("data", {})
        metrics = {str(item["key"]): float(item["value"]) for item in data.get("metrics", [])}
        return metrics, {str(item["key"]): str(item["value"]) for item in data.get("params", [])}

    def artifact_root(self, name: str, version: str) -> str:
        """The path of a version's files below the server's artifact proxy.

        Raises:
            Refused: the server doesn't hand artifacts out itself.
        """
        uri = str(
            self._get("model-versions/get-download-uri", {"name": name, "version": version})["artifact_uri"]
        )
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme != "mlflow-artifacts":
            raise Refused(
                f"{name} version {version} is kept at {parts.scheme}://, not behind the server's artifact proxy "
                "(run mlflow server with --serve-artifacts)"
            )
        return parts.path.strip("/")

    def artifact(self, path: str, *, max_bytes: int, deadline: float) -> bytes:
        """One file; `deadline` is of `time.monotonic()`."""
        return self._read(
            f"{self.uri}/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(path)}", max_bytes, deadline
        )

    def _get(self, method: str, query: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self.uri}/api/2.0/mlflow/{method}?{urllib.parse.urlencode(query)}"
        raw = self._read(url, MAX_JSON_BYTES, time.monotonic() + self._timeout_s)
        try:
            found = json.loads(raw)
        except ValueError:
            raise Unreachable(f"{self.uri} doesn't answer as MLflow does") from None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.uri} doesn't answer as MLflow does")
        return found

    def _read(self, url: str, max_bytes: int, deadline: float) -> bytes:
        return self._exchange(urllib.request.Request(url), max_bytes, deadline)  # noqa: S310 - scheme is checked

    def _exchange(self, request: urllib.request.Request, max_bytes: int, deadline: float) -> bytes:
        for name, value in _headers(os.environ).items():
            request.add_header(name, value)
        try:
            remaining_s = max(0.05, min(self._timeout_s, deadline - time.monotonic()))
            with self._opener.open(request, timeout=remaining_s) as response:
                return _body(response, max_bytes, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise _failure(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(
                f"no answer from MLflow at {self.uri}: {reason or type(error).__name__}"
            ) from None


def _body(response: Any, max_bytes: int, deadline: float) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while chunk := response.read1(_CHUNK):
        total += len(chunk)
        if total > max_bytes:
            raise Refused(f"{response.url} is larger than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise Unreachable(f"{response.url} wasn't read within its time")
        chunks.append(chunk)
    announced = response.headers.get("Content-Length")
    if announced is not None and int(announced) != total:
        raise Unreachable(f"{response.url} broke off after {total} of {announced} bytes")
    return b"".join(chunks)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def denied(status: int, uri: str, message: str, who: Login | None) -> Denied:
    """What a 401 or 403 of the registry means for the user that `who` is, and what to do."""
    if status == 403:
        name = who.user if who is not None else "nobody"
        return Forbidden(
            f"MLflow refused ({name}): {message}",
            "who may do what: infra/README.md",
        )
    if who is None:
        return Denied(
            f"MLflow at {uri} asks who you are, and no user is known here",
            'set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, for example by eval "$(switchboard env)"',
        )
    return Denied(
        f"MLflow at {uri} doesn't know the user {who.user}, or not by this password",
        f"`switchboard infra credentials {who.user}` has the right one, if there is such a user",
    )


def _failure(error: urllib.error.HTTPError) -> RegistryError:
    try:
        content = json.loads(error.read(65536))
        code, message = str(content.get("error_code")), str(content.get("message"))
    except (ValueError, AttributeError, OSError, http.client.HTTPException):
        code, message = "", f"HTTP {error.code}"
    if error.code in (401, 403):
        parts = urllib.parse.urlsplit(error.url)
        return denied(error.code, f"{parts.scheme}://{parts.netloc}", message, login(os.environ))
    # MLflow answers some missing things with 400 INVALID_PARAMETER_VALUE (an alias that isn't there).
    if (
        code == "RESOURCE_DOES_NOT_EXIST"
        or error.code == 404
        or ("alias" in message and "not found" in message)
    ):
        return NotFound(message)
    if error.code >= 500 or error.code == 429:
        return Unreachable(f"MLflow answered {error.code}: {message}")
    return Refused(f"MLflow refused: {message}")


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """MLflow's own variables for authentication are honoured."""
    headers = {"Accept": "*/*", "User-Agent": "switchboard"}
    if token := environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    elif (who := login(environ)) is not None:
        pair = f"{who.user}:{who.password}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _version(raw: Mapping[str, Any]) -> Version:
    return Version(
        name=str(raw["name"]),
        version=str(raw["version"]),
        run_id=str(raw.get("run_id", "")),
        status=str(raw.get("status", "READY")),
        created_ms=int(raw.get("creation_timestamp", 0)),
        description=str(raw.get("description", "")),
        aliases=tuple(sorted(raw.get("aliases", []))),
        tags={str(tag["key"]): str(tag["value"]) for tag in raw.get("tags", [])},
    )
