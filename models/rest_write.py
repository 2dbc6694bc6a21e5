"""What is written to MLflow over its REST API, and what a run tells, with the standard library alone.

For the operator and for commands that must not import mlflow (seconds, 200 MB): aliases, tags, runs, parameters and
artifacts. Failures are `models/rest.py`'s three. A call that got no answer may have been done all the same; all of
these may be made again.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from models.rest import MAX_JSON_BYTES, NotFound, Refused, Registry, Unreachable

_API: Final = "api/2.0/mlflow"
_ARTIFACTS: Final = "api/2.0/mlflow-artifacts/artifacts"
_PAGE: Final = 1000


@dataclass(frozen=True)
class Run:
    """A run as MLflow tells it."""

    run_id: str
    status: str
    start_ms: int
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def artifact_path(self, path: str) -> str:
        """Where an artifact is, below the server's artifact proxy.

        Raises:
            Refused: the server doesn't hand artifacts out itself.
        """
        parts = urllib.parse.urlsplit(self.artifact_uri)
        if parts.scheme != "mlflow-artifacts":
            raise Refused(f"the artifacts of run {self.run_id} are not behind the server's artifact proxy")
        return f"{parts.path.strip('/')}/{path}"


class Changed(Refused):
    """A parameter is there already, with another value: parameters are written once."""


class RegistryWriter(Registry):
    """A client that writes, too."""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._send("POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})

    def delete_alias(self, name: str, alias: str) -> None:
        """One that isn't there is fine."""
        try:
            self._send("DELETE", "registered-models/alias", {"name": name, "alias": alias})
        except NotFound:
            # The model itself may be what is missing; that is not fine.
            self.aliases(name)

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._send(
            "POST",
            "model-versions/set-tag",
            {"name": name, "version": version, "key": key, "value": value},
        )

    def model_tags(self, name: str) -> dict[str, str]:
        """The tags of a registered model."""
        found = self._get("registered-models/get", {"name": name})["registered_model"]
        return {str(tag["key"]): str(tag["value"]) for tag in found.get("tags", [])}

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._send("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})

    def experiment(self, name: str) -> str | None:
        """The id of an experiment; None where there is none of that name, or it was deleted."""
        try:
            found = self._get("experiments/get-by-name", {"experiment_name": name})["experiment"]
        except NotFound:
            return None
        return str(found["experiment_id"]) if found.get("lifecycle_stage") == "active" else None

    def make_experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is made where there is none.

        Raises:
            Refused: there is one that was deleted.
        """
        if (known := self.experiment(name)) is not None:
            return known
        try:
            return str(self._send("POST", "experiments/create", {"name": name})["experiment_id"])
        except Refused:
            if (known := self.experiment(name)) is not None:
                return known  # somebody else was faster
            raise

    def make_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        """A run that stays open; its tags are there from the beginning."""
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_ms,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        return str(self._send("POST", "runs/create", body)["run"]["info"]["run_id"])

    def end_run(self, run_id: str, status: str, end_ms: int) -> None:
        """`FINISHED`, `FAILED` or `KILLED`."""
        self._send("POST", "runs/update", {"run_id": run_id, "status": status, "end_time": end_ms})

    def log_param(self, run_id: str, key: str, value: str) -> None:
        """Written once: the same value again is fine.

        Raises:
            Changed: there is another value. Of several who write at once, one is not refused.
        """
        try:
            self._send("POST", "runs/log-parameter", {"run_id": run_id, "key": key, "value": value})
        except Refused as error:
            if "Changing param values" in str(error):
                raise Changed(f"parameter {key} of run {run_id} has another value already") from None
            raise

    def run_record(self, run_id: str) -> Run:
        return _run(self._get("runs/get", {"run_id": run_id})["run"])

    def runs(self, experiment_id: str, filter_string: str = "") -> list[Run]:
        """All runs of an experiment that aren't deleted, oldest first."""
        found: list[Run] = []
        token = ""
        while True:
            body: dict[str, Any] = {
                "experiment_ids": [experiment_id],
                "filter": filter_string,
                "max_results": _PAGE,
                "order_by": ["attributes.start_time ASC"],
            }
            answer = self._send("POST", "runs/search", body | ({"page_token": token} if token else {}))
            found += [_run(raw) for raw in answer.get("runs", [])]
            token = str(answer.get("next_page_token") or "")
            if not token:
                return found

    def log_artifact(self, run: Run, path: str, content: bytes) -> None:
        """Write one file of a run; what was there is replaced."""
        url = f"{self.uri}/{_ARTIFACTS}/{urllib.parse.quote(run.artifact_path(path))}"
        self._request("PUT", url, content, "application/octet-stream")

    def run_artifact(self, run: Run, path: str, *, max_bytes: int, timeout_s: float = 30.0) -> bytes:
        """One file of a run."""
        deadline = time.monotonic() + timeout_s
        return self.artifact(run.artifact_path(path), max_bytes=max_bytes, deadline=deadline)

    def _send(self, verb: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        raw = self._request(
            verb, f"{self.uri}/{_API}/{method}", json.dumps(body).encode(), "application/json"
        )
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.uri} doesn't answer as MLflow does")
        return found

    def _request(self, verb: str, url: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(url, data=body, headers={"Content-Type": kind}, method=verb)  # noqa: S310
        return self._exchange(request, MAX_JSON_BYTES, time.monotonic() + self._timeout_s)


def _run(raw: Mapping[str, Any]) -> Run:
    info, data = raw["info"], raw.get("data", {})
    return Run(
        run_id=str(info["run_id"]),
        status=str(info.get("status", "")),
        start_ms=int(info.get("start_time", 0)),
        artifact_uri=str(info.get("artifact_uri", "")),
        params={str(item["key"]): str(item["value"]) for item in data.get("params", [])},
        metrics={str(item["key"]): float(item["value"]) for item in data.get("metrics", [])},
        tags={str(item["key"]): str(item["value"]) for item in data.get("tags", [])},
    )
