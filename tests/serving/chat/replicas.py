"""Real chat replicas for tests: processes on loopback addresses of their own, and a client that shows everything."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchboard.paths import ROOT
from tests.conftest import reserve

PORT = 8080
START_S = 300.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self.body
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code of a JSON error, whose shape is checked."""
        document = self.json()
        assert set(document) == {"error", "request_id"}
        assert set(document["error"]) == {"code", "message"}
        assert document["request_id"] == self.headers["x-request-id"]
        return str(document["error"]["code"])


@dataclass
class ReplicaProcess:
    host: str
    process: subprocess.Popen[bytes]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{PORT}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def call(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection(self.host, PORT, timeout=60)
        try:
            return exchange(connection, path, method, body, headers)
        finally:
            connection.close()

    def ask(self, text: Any, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        body = json.dumps({"text": text, **fields}).encode()
        return self.call("/v1/chat", "POST", body, {**HEADERS, **(headers or {})})

    def metric(self, line_start: str) -> float:
        """The value of the one sample whose line begins so; 0 where there is none yet."""
        lines = self.call("/metrics").body.decode().splitlines()
        found = [line for line in lines if line.startswith(line_start)]
        assert len(found) <= 1, found
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the replica ended while waiting: {what}\n{self.log}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"not in {timeout_s} s: {what}\n{self.log}")

    def wait_ready(self) -> None:
        self.wait(lambda: self.call("/readyz").status == 200, "ready")

    def wait_alive(self) -> None:
        self.wait(lambda: self.call("/livez").status == 200, "alive")


HEADERS = {"Content-Type": "application/json", "X-Session-Id": "test-session"}


def exchange(
    connection: http.client.HTTPConnection,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Reply(
        response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    )


@contextlib.contextmanager
def replica(directory: Path, **env: str) -> Iterator[ReplicaProcess]:
    """A replica with `directory` as its volume, on a free address; not waited for, killed at the end."""
    host = _free_host()
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "BENTOML_"))
    } | {
        "POD_IP": host,
        "POD_NAME": "chat-0",
        "MODEL_CACHE_DIR": str(directory / "models"),
        "BENTOML_HOME": str(directory / "bentoml"),
        "DRAIN_DELAY_S": "0.5",
        **env,
    }
    (directory / "models").mkdir(parents=True, exist_ok=True)
    log_path = directory / f"replica-{host}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.chat"], env=environ, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield ReplicaProcess(host, process, log_path, environ)
    finally:
        process.kill()
        process.wait()


def _free_host() -> str:
    """An address that no other process has, nor takes while this one lives: a bound socket beside it says so.

    Not from `random`, which every worker of a test run has seeded alike.
    """
    for number in range(os.getpid() * 64, os.getpid() * 64 + 240 * 250):
        host = f"127.38.{number // 250 % 240 + 10}.{number % 250 + 1}"
        if reserve(host):
            return host
    raise RuntimeError("no free address")
