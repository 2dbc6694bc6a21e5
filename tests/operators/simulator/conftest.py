"""A real Prometheus that holds two hours of a chat server's traffic, made beforehand."""

from __future__ import annotations

import math
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.local import toolchain

HOST = "127.37.0.2"
READY_S = 60.0
LENGTH_S = 7200
STEP_S = 5


@dataclass(frozen=True)
class Recorded:
    """Where it answers, and up to when it knows the traffic."""

    url: str
    end: datetime

    @staticmethod
    def rate(second: float) -> float:
        """What was asked in that second, requests/s."""
        return 100 + 50 * math.sin(2 * math.pi * second / LENGTH_S)


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("prometheus")
    program = toolchain.locate(["prometheus"]).path("prometheus")
    end = int(time.time()) - 600
    _fill(folder, program.with_name("promtool"), end)
    (folder / "prometheus.yml").write_text("global: {}\n")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://{HOST}:{port}"
    try:
        _until_ready(url, process, folder / "log")
        yield Recorded(url, datetime.fromtimestamp(end, UTC))
    finally:
        process.terminate()
        process.wait(30)


def _fill(folder: Path, promtool: Path, end: int) -> None:
    """Two replicas' counters, of which one starts anew halfway."""
    lines = ["# TYPE switchboard_requests counter"]
    for pod, share in (("a", 0.25), ("b", 0.75)):
        total = 0.0
        for second in range(0, LENGTH_S + 1, STEP_S):
            if pod == "b" and second == LENGTH_S // 2:
                total = 0.0
            labels = f'model_server="chat",pod="{pod}"'
            lines.append(f"switchboard_requests_total{{{labels}}} {total} {end - LENGTH_S + second}")
            total += share * Recorded.rate(second) * STEP_S
    text = folder / "openmetrics"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    fill = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"]
    done = subprocess.run(fill, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as response:
                if response.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise RuntimeError(f"Prometheus didn't become ready; its log:\n{log.read_text()[-4000:]}")
