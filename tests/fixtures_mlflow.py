"""Real MLflow servers for tests: SQLite and local artifacts in a temporary folder, one worker, loopback only.

Import `mlflow_process` and `mlflow_server` into a folder's `conftest.py`. It is one server for the whole session, so
tests use model names of their own and never stop it; who needs a registry that fails puts `Cuttable` in front of it.
`guarded` is one that asks who you are, as the stacks' do; the first lets everybody do everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchboard.registry_users import SERVICES, Role

HOST = f"127.37.{os.getpid() % 250 + 2}.1"
"""Each process has its own: a port that one has found free is nobody's until its server has it."""
READY_S = 300.0


@dataclass(frozen=True)
class MlflowProcess:
    """The running server: where it answers and where it keeps artifacts (for tests that damage them)."""

    url: str
    artifacts: Path
    pid: int


@dataclass(frozen=True)
class Guarded:
    """A running server with `models.access`, and the passwords of its users."""

    url: str
    log: Path
    passwords: Mapping[str, str]

    def login(self, user: str) -> dict[str, str]:
        """The variables of a client of that user."""
        return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": self.passwords[user]}


@pytest.fixture(scope="session")
def mlflow_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowProcess]:
    directory = tmp_path_factory.mktemp("mlflow")
    with serve(directory) as (url, pid):
        yield MlflowProcess(url, directory / "artifacts", pid)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The session's server that asks who you are; beside the services' users `li`, `wu` and `chen`."""
    directory = tmp_path_factory.mktemp("guarded")
    roles = {**SERVICES, "li": Role.TRAINER, "wu": Role.READER, "chen": Role.RELEASE}
    passwords = {name: secrets.token_urlsafe(16) for name in roles}
    accounts = [{"name": name, "role": role, "password": passwords[name]} for name, role in roles.items()]
    (directory / "accounts.json").write_text(json.dumps(accounts))
    env = {
        "MLFLOW_ACCOUNTS_FILE": str(directory / "accounts.json"),
        "MLFLOW_ACCOUNTS_DATABASE_URI": f"sqlite:///{directory}/accounts.db",
    }
    with serve(directory, "--app-name", "switchboard", env=env) as (url, _):
        yield Guarded(url, directory / "server.log", passwords)


@contextlib.contextmanager
def serve(directory: Path, *more: str, env: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """A server that keeps its data in `directory`, its address and its process's id; `more` are arguments."""
    port = _free_port()
    log_path = directory / "server.log"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", str(directory / "artifacts"), "--serve-artifacts"),
        *("--allowed-hosts", f"{HOST}:*,localhost:*,127.*"),
        *more,
    ]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
            env={**_env(), **(env or {})},
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait_ready(url, process, log_path)
        yield url, process.pid
    finally:
        # The session of its own holds the server's worker too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def mlflow_server(mlflow_process: MlflowProcess) -> str:
    """The URL of the session's MLflow server."""
    return mlflow_process.url


def _env() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return env | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _free_port() -> int:
    """Not MLflow's usual one: two test runs, or two workers of one, may be on a machine."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_ready(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"{url}/health", timeout=20) as response,
        ):
            if response.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"mlflow server didn't become ready; its log:\n{log_path.read_text()[-4000:]}")


class Cuttable:
    """A TCP forwarder in front of a server that can be cut (`down`), slowed to silence (`hang`) and healed (`up`)."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._state = "up"
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://{HOST}:{self.port}"
        self.accepted = 0
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Connections are refused, and those that there are break."""
        with self._lock:
            self._state = "down"
        # Closing alone would leave the thread in `accept`, and with it the port, until one more connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """New connections are accepted and never answered."""
        self._state = "hang"

    def up(self) -> None:
        if self._state == "down":
            self._listener = socket.create_server((HOST, self.port), backlog=64)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._state = "up"

    def close(self) -> None:
        self.down()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            with self._lock:
                state = self._state
                self._connections.add(client)
            if state == "up":
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()
            elif state == "down":  # it came just before
                client.close()

    def _forward(self, client: socket.socket) -> None:
        try:
            upstream = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._connections.add(upstream)
        back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
        back.start()
        _pump(client, upstream)
        back.join()
        for connection in (client, upstream):
            self._connections.discard(connection)
            connection.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
