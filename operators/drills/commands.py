"""`switchboard canary drill`: is what is bad found, and do customers notice?"""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.cli_shared import UriOption
from operators.releases.access import NAMESPACE, ContextOption, NamespaceOption, with_kube
from switchboard import text
from switchboard.gateways import GATEWAY_VARIABLE, named
from switchboard.printing import Output, OutputOption
from switchboard.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.drills.figures import Outcome


app = typer.Typer()


@app.command(
    epilog="Examples: `switchboard canary drill` · `switchboard canary drill slow leaks-memory --rate 20` · "
    "`switchboard canary drill --list` · `switchboard canary drill -o json > drills.json`"
)
def drill(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CANDIDATE]...", help="All by default, the good one last.", show_default=False
        ),
    ] = None,
    server: Annotated[str, typer.Option(help="The ModelServer that they are released to.")] = "chat",
    rate: Annotated[
        float, typer.Option(min=1, max=10_000, help="Questions a second from customers meanwhile.")
    ] = 50.0,
    within_minutes: Annotated[
        float, typer.Option(min=1, max=1440, help="For each: without a verdict by then it is inconclusive.")
    ] = 15,
    url: Annotated[
        str | None, typer.Option(help=f"The gateway. Else ${GATEWAY_VARIABLE}.", envvar=GATEWAY_VARIABLE)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Of candidates; the known-bad ones by default.", show_default=False)
    ] = None,
    tracking_uri: UriOption = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what there is, and release nothing.")] = False,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Release candidates that are bad on purpose, one after the other, and score what becomes of them.

    Exit code 0: every bad one was rolled back and the good one promoted, at the price that is allowed. 1: not so.
    """
    from operators.drills import candidates, making, run

    wanted = candidates.chosen(names or [], folder or candidates.FOLDER)
    if list_:
        if output is Output.JSON:
            typer.echo(json.dumps([one.model_dump(mode="json", by_alias=True) for one in wanted], indent=1))
        else:
            rows = [("CANDIDATE", "IS TO BE", "WHAT IS WRONG WITH IT")]
            typer.echo(text.columns([*rows, *((one.name, one.ends, one.what) for one in wanted)]))
        return
    from models.rest import tracking_uri as address_of

    url = named(url)
    # As at Ctrl-C: neither the release nor the customers are left behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    registry = address_of(tracking_uri)
    setting = run.Setting(server, namespace, url, rate, round(within_minutes * 60))
    model = with_kube(context, lambda kube: run.model_of(kube, setting))
    found: list[Outcome] = []
    try:
        with Progress() as progress:
            for one in wanted:
                with progress.step(f"{one.name}: {one.what}") as step:
                    step.detail("the version is made")
                    version = making.version_of(one, model=model, tracking_uri=registry)
                    found.append(with_kube(context, partial(run.drill, setting, one, version, step.detail)))
                progress.note(f"{found[-1].ended}: {found[-1].sentence}")
                for broken in found[-1].broken:
                    progress.note(f"✗ {broken}")
    finally:  # what was seen in half an hour isn't lost by what comes then
        if output is Output.JSON:
            typer.echo(
                json.dumps([one.model_dump(mode="json") for one in found], indent=1, ensure_ascii=False)
            )
        else:
            typer.echo(table(found))
    if any(outcome.broken for outcome in found):
        raise typer.Exit(1)


def table(found: Sequence[Outcome]) -> str:
    """A line for each, as kubectl has it: never cut, however narrow the terminal is."""
    heads = ("CANDIDATE", "BECAME", "IN", "AFTER", "REQUESTS", "FAILED", "ITS ANSWERS", "ASKED AFTER", "P99")
    rows = [
        (
            f"{'✗' if one.broken else '✓'} {one.candidate}",
            one.ended,
            f"{one.found_in} {one.weight} %" if one.found_in else "",
            f"{one.seconds:,.0f} s" if one.seconds is not None else "",
            f"{one.requests:,}",
            f"{one.failed:,}",
            f"{one.candidates_answers:,}",
            f"{one.late_s:g} s" if one.late_s is not None else "-",
            f"{one.p99_ms:,.0f} ms" if one.p99_ms is not None else "",
        )
        for one in found
    ]
    return text.columns([heads, *rows])
