"""A replica's life: it waits for a registry, lives without one, and leaves without a customer noticing."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from switchboard.paths import ROOT
from tests.fixtures_mlflow import Cuttable
from tests.serving.chat.replicas import HEADERS, PORT, exchange, replica
from tests.serving.conftest import Champion

BODY = b'{"text": "I lost my card yesterday"}'


def test_it_waits_for_the_registry_and_then_lives_without_it(champion: Champion, tmp_path: Path) -> None:
    registry = Cuttable(champion.registry)
    registry.down()
    env = champion.env | {"MLFLOW_TRACKING_URI": registry.url}
    try:
        with replica(tmp_path, **env, SERVICE_TIER="edge") as waiting:
            waiting.wait_alive()
            ready = waiting.call("/readyz")
            assert ready.status == 503
            assert b"no model yet" in ready.body or b"being loaded" in ready.body
            reply = waiting.ask("hello")
            assert (reply.status, reply.error, reply.headers["retry-after"]) == (503, "not_ready", "1")
            registry.up()
            waiting.wait_ready()
            assert waiting.ask("hello").json()["tier"] == "edge"
        registry.down()
        with replica(tmp_path, **env) as alone:
            alone.wait_ready()
            assert alone.ask("hello").json()["model_version"] == champion.version
            assert alone.metric(f'switchboard_model_info{{model="{champion.name}",source="disk"') == 1
    finally:
        registry.close()


def test_told_to_stop_while_it_waits_for_a_model_it_stops(champion: Champion, tmp_path: Path) -> None:
    with replica(tmp_path, **champion.env | {"MLFLOW_TRACKING_URI": "http://127.38.0.2:9"}) as waiting:
        waiting.wait_alive()
        waiting.process.terminate()
        assert waiting.process.wait(120) == 0


def test_it_drains_without_losing_a_request(champion: Champion, tmp_path: Path) -> None:
    """Clients with kept connections ask without pause, until the replica says by itself that it leaves."""
    with replica(tmp_path, **champion.env, DRAIN_DELAY_S="4") as leaving:
        leaving.wait_ready()
        gone = threading.Event()
        statuses: list[int] = []
        closes: list[bool] = []
        problems: list[str] = []

        def customer() -> None:
            connection = http.client.HTTPConnection(leaving.host, PORT, timeout=30)
            try:
                while not gone.is_set():
                    reply = exchange(connection, "/v1/chat", "POST", BODY, HEADERS)
                    statuses.append(reply.status)
                    closes.append(reply.headers.get("connection") == "close")
            except (OSError, http.client.HTTPException) as error:
                problems.append(repr(error))

        customers = [threading.Thread(target=customer) for _ in range(4)]
        for thread in customers:
            thread.start()
        leaving.wait(lambda: len(statuses) >= 40, "answers")
        slow = socket.create_connection((leaving.host, PORT), timeout=30)
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        slow.sendall(
            f"POST /v1/chat HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(BODY)}\r\n\r\n".encode()
        )
        assert not any(closes)
        leaving.process.send_signal(signal.SIGTERM)
        # As a gateway does: its health check sees the replica leave, and it sends nothing more.
        leaving.wait(lambda: leaving.call("/readyz").status == 503, "not ready")
        asked = len(statuses)
        leaving.wait(lambda: len(statuses) >= asked + 8, "answers while it drains")
        gone.set()
        for thread in customers:
            thread.join()
        assert any(closes)
        # A request that was under way when the replica stopped listening is answered too.
        _wait_refused(leaving.host)
        slow.sendall(BODY)
        response = http.client.HTTPResponse(slow)
        response.begin()
        assert (response.status, response.getheader("connection")) == (200, "close")
        slow.close()
        assert problems == []
        assert set(statuses) == {200}
        assert leaving.process.wait(120) == 0


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"PORT": "http"}, "PORT"),
        ({"POD_IP": "0.0.0.0"}, "POD_IP"),
        ({"MAX_CONCURRENCY": "0"}, "MAX_CONCURRENCY"),
        ({"SERVICE_TIER": "middle"}, "SERVICE_TIER"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, env: dict[str, str], named: str) -> None:
    with replica(tmp_path, **env) as wrong:
        assert wrong.process.wait(300) == 2
        assert f"error: {named} is" in wrong.log
        assert "Traceback" not in wrong.log


def test_a_port_in_use_ends_it(tmp_path: Path) -> None:
    with socket.create_server(("127.38.0.3", 0)) as taken:
        port = str(taken.getsockname()[1])
        with replica(tmp_path, POD_IP="127.38.0.3", PORT=port) as second:
            assert second.process.wait(300) not in (0, None)
            assert "address already in use" in second.log


def test_it_imports_nothing_heavy() -> None:
    """Each of these would cost every replica tens of megabytes and a good part of its start."""
    heavy = ("mlflow", "sklearn", "scipy", "pandas", "pyarrow", "fastapi", "grpc")
    program = f"import sys, serving.chat.service; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert found.stdout.strip() == "[]"


def _wait_refused(host: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, PORT), timeout=5).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("the replica still listens")
