"""A real Prometheus with samples that were made beforehand, by the text of an OpenMetrics file."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import toolchain

HOST = "127.37.0.2"
READY_S = 120.0


@contextmanager
def prometheus(folder: Path, text: str) -> Iterator[str]:
    """Its address, while it runs; `text` are its samples, each with its time in seconds."""
    program = toolchain.locate(["prometheus"]).path("prometheus")
    _fill(folder, program.with_name("promtool"), text)
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
        yield url
    finally:
        process.terminate()
        process.wait(READY_S)


def _fill(folder: Path, promtool: Path, text: str) -> None:
    path = folder / "openmetrics"
    path.write_text(text)
    fill = [promtool, "tsdb", "create-blocks-from", "openmetrics", path, folder / "data"]
    done = subprocess.run(fill, capture_output=True, text=True, timeout=300)
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
