"""Runs Locust in processes of its own, watches it, and reads what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from loadtests.agreed import Settings
from loadtests.figures import Figures, SoFar
from switchboard import requests
from switchboard.errors import SwitchboardError
from switchboard.requests import Request

LOOPBACK: Final = "127.0.0.1"
LEVELS: Final = 200
"""Locust's users at the highest rate: it is set in so many steps."""
STEADY_LEVELS: Final = 10
"""Where it stays the same, and all of them ask alike: each user that comes holds up requests that are due."""
STOP_WITHIN_S: Final = 60.0
"""How much longer than its duration a run may take (start of Locust, the last answers, the report)."""
END_S: Final = 45.0
"""From SIGTERM on: what is under way is answered, or given up, before the figures are there."""


class Run:
    """What a run left: its figures, each of its requests, and whether it was ended before its time."""

    def __init__(self, figures: Figures, each: list[Request], *, partial: bool) -> None:
        self.figures, self.requests, self.partial = figures, each, partial


def run(
    url: str,
    settings: Settings,
    *,
    processes: int = 1,
    html: Path | None = None,
    on_progress: Callable[[SoFar], Any] = lambda _: None,
) -> Run:
    """Put customers on `url` as `settings` say, whose `points` say for how long.

    Ctrl-C ends the customers, and what was measured by then is there all the same.

    Raises:
        SwitchboardError: the address is none, or Locust failed.
    """
    if not url.startswith(("http://", "https://")):
        raise SwitchboardError(f"{url!r} is no address; it must begin with http:// or https://")
    length_s, most_rps = settings.points[-1][0], max(rate for _, rate in settings.points)
    steady = (
        len({rate for _, rate in settings.points}) == 1 and not settings.edges and len(settings.users) < 2
    )
    levels = STEADY_LEVELS if steady else LEVELS
    for wanted in (html, settings.seconds, settings.requests):
        if wanted is not None:
            Path(wanted).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="switchboard-loadtest-") as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "locust.log"
        each = Path(settings.requests or Path(folder) / "requests.csv").absolute()
        command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("chat.py"))]
        command += ["--headless", "--only-summary", "--host", url.rstrip("/"), "--exit-code-on-error", "0"]
        if processes > 1:
            # Else all the world may connect to the one that leads, and two runs can't be at once.
            port = str(free_port(LOOPBACK))
            command += ["--processes", str(processes), "--master-host", LOOPBACK, "--master-port", port]
            command += ["--master-bind-host", LOOPBACK, "--master-bind-port", port]
        if html is not None:
            command += ["--html", str(html.absolute())]
        own = replace(settings, per_user=most_rps / levels, result=str(result), requests=str(each))
        root = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": search, **own.variable()}
        partial = interrupted = False
        with log.open("wb") as out:
            # A group of its own: Ctrl-C at a terminal is ours to pass on, once.
            child = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )
            try:
                partial = not _watch(child, result, time.monotonic() + length_s + STOP_WITHIN_S, on_progress)
            except KeyboardInterrupt:
                partial = interrupted = True
            finally:
                _end(child)
        found = _read(result).get("figures")
        if found is None and interrupted and child.returncode == -signal.SIGTERM:  # it was still beginning
            raise SwitchboardError("ended before the first request", "nothing was measured")
        if found is None or (child.returncode != 0 and not partial):
            tail = "\n".join(log.read_text(errors="replace").strip().splitlines()[-10:])
            raise SwitchboardError(f"the load test failed (exit code {child.returncode}):\n{tail}")
        with each.open(newline="") as file:
            return Run(Figures.model_validate(found), requests.read(file), partial=partial)


def free_port(host: str) -> int:
    """One at which nobody listens there."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _watch(
    child: subprocess.Popen[bytes], result: Path, deadline_s: float, on_progress: Callable[[SoFar], Any]
) -> bool:
    """Whether it ended by itself, and in time."""
    while child.poll() is None and time.monotonic() < deadline_s:
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            if (so_far := _read(result).get("so_far")) is not None:
                on_progress(SoFar(*so_far))
    return child.poll() is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _read(result: Path) -> dict[str, Any]:
    """What the recorder has left; nothing where it hasn't begun."""
    try:
        found: dict[str, Any] = json.loads(result.read_text())
    except OSError:
        return {}
    return found
