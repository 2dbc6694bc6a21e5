"""`switchboard loadtests …`: put customers on a service and say whether it held.

A run's exit code is its verdict: 0 what is claimed is proven, 1 it is refuted (of `chat`: a threshold was broken), 2 it
isn't proven, 3 nothing is said.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from loadtests import cli_run
from loadtests.agreed import Settings
from loadtests.bounds import CONFIDENCE, requests_for
from loadtests.figures import breaches, seconds_of, table
from loadtests.running import run
from switchboard.errors import SwitchboardError
from switchboard.gateways import GATEWAY_VARIABLE, named
from switchboard.groups import AnswerGroup
from switchboard.printing import Output, OutputOption
from switchboard.progress import Progress

app = typer.Typer(
    cls=AnswerGroup, no_args_is_help=True, help="Does it hold: customers on a service, and a verdict."
)
app.add_typer(cli_run.app)


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
    url = named(url)
    if not 0 < rate <= 10_000:
        raise SwitchboardError(f"--rate {rate:g} can't be; it must be above 0 and at most 10000")
    duration_s, p99_s = _seconds("--duration", duration), _seconds("--p99", p99)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as at Ctrl-C: Locust ends with it
    with Progress() as progress, progress.step(f"{rate:g} questions/s for {duration_s:g} s") as step:
        found = run(
            url,
            Settings(
                points=((0.0, rate), (duration_s, rate)),
                seed=random.randrange(2**31),  # noqa: S311
                again=False,  # what a customer does about a failure is no part of what is measured here
                seconds=str(seconds.absolute()) if seconds is not None else None,
                requests=str(requests.absolute()) if requests is not None else None,
            ),
            html=html,
            on_progress=lambda so_far: step.detail(f"{so_far.total:,} asked, {so_far.failed:,} failed"),
        ).figures
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


@app.command(
    epilog="Examples: `switchboard loadtests plan` · `switchboard loadtests plan --failures 2 --rate 100` · "
    "`switchboard loadtests plan --availability 0.999 -o json`"
)
def plan(
    availability: Annotated[
        float, typer.Option(help="The share of requests that is to be answered.")
    ] = 0.9999,
    confidence: Annotated[float, typer.Option(help="How sure one is to be: of 1, below 1.")] = CONFIDENCE,
    failures: Annotated[int, typer.Option(min=0, help="How many requests may fail in the run.")] = 0,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests/s, for its length in minutes.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """How many requests, and how long, a claim of availability takes to be proven."""
    if rate is not None and not math.isfinite(rate):
        raise SwitchboardError(f"--rate {rate:g} can't be; it must be a number of requests/s")
    try:
        requests = requests_for(availability, failures, confidence)
    except ValueError as error:
        raise SwitchboardError(str(error)) from None
    minutes = None if rate is None else requests / rate / 60
    if output is Output.JSON:
        found = {"availability": availability, "confidence": confidence, "failures": failures}
        typer.echo(json.dumps({**found, "rate": rate, "requests": requests, "minutes": minutes}, indent=2))
        return
    typer.echo(
        f"{requests:,} requests with at most {failures} failed prove an availability of {availability * 100:.14g} % "
        f"at {confidence * 100:.14g} % confidence"
    )
    if minutes is not None:
        typer.echo(f"at {rate:g} requests/s that takes {minutes:.1f} min")


def _seconds(option: str, text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise SwitchboardError(f"{option}: {error}") from None
