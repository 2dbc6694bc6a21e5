"""`switchboard loadtests …`: put customers on a service and say whether it held.

The run's exit code is its verdict: 0 when every threshold held, 1 when one was broken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.figures import Figures, breaches, seconds_of, table, users_for
from loadtests.plan import (
    PER_USER_VARIABLE,
    REQUESTS_VARIABLE,
    RESULT_VARIABLE,
    SECONDS_VARIABLE,
    TIMEOUT_S,
)
from switchboard.errors import SwitchboardError
from switchboard.printing import Output, OutputOption
from switchboard.progress import Progress

GATEWAY_VARIABLE = "SWITCHBOARD_GATEWAY_URL"
STOP_WITHIN_S = 60.0
"""How much longer than its duration a run may take (start of Locust, the last answers, the report)."""

app = typer.Typer(no_args_is_help=True, help="Does it hold: customers on a service, and a verdict.")


@app.callback()
def _group() -> None:
    """A group even with one command."""


@app.command()
def chat(
    url: Annotated[
        str | None,
        typer.Option(help=f"A gateway, or a replica. Else ${GATEWAY_VARIABLE}.", envvar=GATEWAY_VARIABLE),
    ] = None,
    rate: Annotated[float, typer.Option(help="Questions a second, whatever the servers do.")] = 20.0,
    duration: Annotated[str, typer.Option(help="How long: 60s, 5m.")] = "60s",
    max_failed: Annotated[int, typer.Option(help="Requests that may fail.")] = 0,
    p99: Annotated[str, typer.Option(help="The slowest 99th percentile that will do.")] = "300ms",
    html: Annotated[Path | None, typer.Option(help="Write Locust's report here.")] = None,
    seconds: Annotated[
        Path | None, typer.Option(help="Write each second's requests (due, good, failed) here, as CSV.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="Write each request (began, took, failed why, model version) here, as CSV."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask the chat service questions in English and Chinese at a constant rate."""
    if not url:
        raise SwitchboardError(
            "which gateway? neither --url nor $SWITCHBOARD_GATEWAY_URL is given",
            "`switchboard status` shows the addresses",
        )
    if not 0 < rate <= 10_000:
        raise SwitchboardError(f"--rate {rate:g} can't be; it must be above 0 and at most 10000")
    duration_s, p99_s = _seconds("--duration", duration), _seconds("--p99", p99)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as at Ctrl-C: Locust ends with it
    with Progress() as progress, progress.step(f"{rate:g} questions/s for {duration_s:g} s") as step:
        found = run(
            url,
            rate_rps=rate,
            duration_s=duration_s,
            html=html,
            seconds=seconds,
            requests=requests,
            on_progress=lambda so_far: step.detail(f"{so_far.total:,} asked, {so_far.failed:,} failed"),
        )
    broken = breaches(found, max_failed=max_failed, p99_s=p99_s)
    if output is Output.JSON:
        typer.echo(json.dumps({"ok": not broken, "broken": broken, **found.model_dump()}, indent=2))
    else:
        for name, value in table(found):
            typer.echo(f"{name:<26}{value}")
        for problem in broken:
            typer.secho(f"✗ {problem}", fg=typer.colors.RED)
    if broken:
        raise typer.Exit(1)


def run(
    url: str,
    *,
    rate_rps: float,
    duration_s: float,
    html: Path | None = None,
    seconds: Path | None = None,
    requests: Path | None = None,
    on_progress: Callable[[Figures], Any] = lambda _: None,
) -> Figures:
    """Put customers on `url` at `rate_rps` for `duration_s`, in a process of its own; what they measured.

    Raises:
        SwitchboardError: the address is none, or Locust failed.
    """
    if not url.startswith(("http://", "https://")):
        raise SwitchboardError(f"{url!r} is no address; it must begin with http:// or https://")
    users = users_for(rate_rps, TIMEOUT_S)
    with tempfile.TemporaryDirectory(prefix="switchboard-loadtest-") as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "locust.log"
        command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("chat.py"))]
        command += ["--headless", "--only-summary", "--host", url.rstrip("/"), "--exit-code-on-error", "0"]
        # As many new users a second as there are questions: the rate is there from the first second on.
        command += ["--users", str(users), "--spawn-rate", f"{rate_rps:g}", "--run-time", f"{duration_s:g}s"]
        command += ["--stop-timeout", f"{TIMEOUT_S * 2:g}"]
        if html is not None:
            html.parent.mkdir(parents=True, exist_ok=True)
            command += ["--html", str(html)]
        root = str(Path(__file__).resolve().parent.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            RESULT_VARIABLE: str(result),
            PER_USER_VARIABLE: repr(rate_rps / users),
        }
        for variable, file in ((SECONDS_VARIABLE, seconds), (REQUESTS_VARIABLE, requests)):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                environment[variable] = str(file.absolute())
        with log.open("wb") as out:
            child = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
            try:
                _watch(child, result, time.monotonic() + duration_s + STOP_WITHIN_S, on_progress)
            finally:
                _end(child)
        found = _read(result)
        if child.returncode != 0 or found is None or not found[0]:
            tail = "\n".join(log.read_text(errors="replace").strip().splitlines()[-10:])
            raise SwitchboardError(f"the load test failed (exit code {child.returncode}):\n{tail}")
        return found[1]


def _watch(
    child: subprocess.Popen[bytes], result: Path, deadline_s: float, on_progress: Callable[[Figures], Any]
) -> None:
    while child.poll() is None and time.monotonic() < deadline_s:
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            if (found := _read(result)) is not None:
                on_progress(found[1])


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _read(result: Path) -> tuple[bool, Figures] | None:
    try:
        document = json.loads(result.read_text())
    except OSError:
        return None
    return document["done"], Figures.model_validate(document["figures"])


def _seconds(option: str, text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise SwitchboardError(f"{option}: {error}") from None
