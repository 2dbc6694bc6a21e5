"""`switchboard canary start | status | watch | pause | resume | abort | promote`: a release, by hand.

They speak with the API server of a serving site, as kubectl does: by KUBECONFIG and a context. Nothing is decided here:
the operator does that, and what it says is shown. Exit codes of a release that is followed: 0 promoted, 1 rolled back,
2 inconclusive, 3 anything that kept it from being one of these.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operators.releases.access import (
    NAMESPACE,
    SHADOW_S,
    ContextOption,
    NamespaceOption,
    ShadowOption,
    all_of,
    begin,
    get,
    missing,
    whoami,
    with_kube,
)
from switchboard.errors import SwitchboardError
from switchboard.printing import Output, OutputOption

if TYPE_CHECKING:
    from switchboard.api.model_release import Status
    from switchboard.kube import Kube, Object

PERIOD_S = 0.5

app = typer.Typer()

NameArgument = Annotated[
    str | None, typer.Argument(help="The release; the only one that is under way by default.")
]
ReasonOption = Annotated[str, typer.Option(help="Why, for the ledger.")]
FollowOption = Annotated[bool, typer.Option("--watch/--no-watch", help="Stay until it is decided.")]


@app.command(
    epilog="Examples: `switchboard canary start 8` · `switchboard canary start 8 --step 5:120 --step 50:300` · "
    "`switchboard canary start 8 --server chat --reason 'new intents' --no-watch` · "
    "`switchboard canary start 8 --promote --reason 'a new site, without customers yet'`"
)
def start(
    version: Annotated[int, typer.Argument(min=1, help="The registered model's version.")],
    server: Annotated[str, typer.Option(help="The ModelServer that it is released to.")] = "chat",
    step: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WEIGHT[:SECONDS]",
            show_default="chosen by the error budget",
            help="So many percent for so long; repeatable, rising.",
        ),
    ] = None,
    shadow_s: ShadowOption = SHADOW_S,
    within_minutes: Annotated[
        float, typer.Option(min=1, max=10_080, help="Without a verdict by then it is inconclusive.")
    ] = 30,
    keep_warm_s: Annotated[
        int, typer.Option("--keep-warm-seconds", min=0, max=86_400, help="How long the old version stays.")
    ] = 600,
    promoted: Annotated[
        bool,
        typer.Option(
            "--promote",
            help="Give everybody the candidate once it serves, without a verdict: where there are too few requests for "
            "one. Harm that is shown stops even that.",
        ),
    ] = False,
    reason: ReasonOption = "",
    watch: FollowOption = True,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Release a version: shadow, canary, verdict, and everybody gets it or nobody.

    One that could see nothing at the traffic of now is refused; `switchboard canary plan --rps` says so beforehand.
    """
    spec: dict[str, Any] = {
        "server": server,
        "version": version,
        "shadow": {"seconds": shadow_s},
        "withinSeconds": round(within_minutes * 60),
        "keepWarmSeconds": keep_warm_s,
        "reason": reason,
    }
    if step:
        spec["steps"] = [_step(one) for one in step]
    if promoted:
        spec["order"] = "Promote"
    meta = {"generateName": f"{server}-{version}-", "namespace": namespace}

    name = str(with_kube(context, lambda kube: begin(kube, meta, spec))["metadata"]["name"])
    if not watch:
        typer.echo(json.dumps({"name": name}) if output is Output.JSON else f"modelrelease/{name} started")
        return
    _follow(name, context, namespace, output)


@app.command(
    epilog="Examples: `switchboard canary status` · `switchboard canary status chat-8-x7k2p -o json`"
)
def status(
    name: NameArgument = None,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    output: OutputOption = Output.TEXT,
) -> None:
    """The releases that there are, or all that is known of one."""
    from operators.releases import shown

    found = with_kube(context, lambda kube: all_of(kube, namespace))
    if name is not None:
        found = [one for one in found if one["metadata"]["name"] == name]
        if not found:
            raise missing(name, namespace)
    if output is Output.JSON:
        documents = [shown.document(one) for one in found]
        typer.echo(json.dumps(documents[0] if name is not None else documents, indent=1))
    elif name is not None:
        _print(shown.screen(found[0], datetime.now(UTC)))
    elif not found:
        typer.echo(f"no releases in {namespace}; begin one: switchboard canary start VERSION")
    else:
        typer.echo(shown.listed(found, datetime.now(UTC)))


@app.command(epilog="Examples: `switchboard canary watch` · `switchboard canary watch chat-8-x7k2p`")
def watch(
    name: NameArgument = None,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look on until it is decided; the exit code says how."""
    _follow(_named(name, context, namespace), context, namespace, output)


@app.command(epilog="Examples: `switchboard canary pause` · `switchboard canary pause chat-8-x7k2p`")
def pause(
    name: NameArgument = None, context: ContextOption = None, namespace: NamespaceOption = NAMESPACE
) -> None:
    """Keep the weight as it is; harm that is shown takes the traffic back all the same."""
    _order(name, context, namespace, {"paused": True}, "paused")


@app.command(epilog="Examples: `switchboard canary resume`")
def resume(
    name: NameArgument = None, context: ContextOption = None, namespace: NamespaceOption = NAMESPACE
) -> None:
    """Go on where it was paused."""
    _order(name, context, namespace, {"paused": False}, "goes on")


@app.command(epilog="Examples: `switchboard canary abort --reason 'complaints about transfers'`")
def abort(
    name: NameArgument = None,
    reason: ReasonOption = "",
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
) -> None:
    """Take the traffic back; after a promotion too, as long as the old version is warm."""
    _order(name, context, namespace, {"order": "Abort", **_why(reason)}, "takes the traffic back")


@app.command(epilog="Examples: `switchboard canary approve chat-8-x7k2p`")
def approve(
    name: NameArgument = None, context: ContextOption = None, namespace: NamespaceOption = NAMESPACE
) -> None:
    """Approve of a release that somebody else asked for, where the stack wants a second person."""
    which = _named(name, context, namespace)

    async def work(kube: Kube) -> str:
        from switchboard import labels
        from switchboard.kinds import MODEL_RELEASES

        me = await whoami(kube)
        notes = {"metadata": {"annotations": {labels.APPROVED_BY: me}}}
        await kube.patch(MODEL_RELEASES, which, notes, namespace)
        return me

    typer.echo(f"modelrelease/{which} approved by {with_kube(context, work)}")


@app.command(epilog="Examples: `switchboard canary promote --reason 'agreed with risk'`")
def promote(
    name: NameArgument = None,
    reason: ReasonOption = "",
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
) -> None:
    """Give everybody the candidate, without waiting for the verdict. Harm that is shown stops even that."""
    _order(name, context, namespace, {"order": "Promote", **_why(reason)}, "is promoted")


def _why(reason: str) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def _step(said: str) -> dict[str, int]:
    weight, _, hold = said.partition(":")
    try:
        found = {"weight": int(weight.rstrip("%"))} | ({"holdSeconds": int(hold)} if hold else {})
    except ValueError:
        found = {}
    if not 1 <= found.get("weight", 0) <= 100 or not 10 <= found.get("holdSeconds", 60) <= 86_400:
        raise typer.BadParameter(
            f"{said!r}: say it as 10:60, 1 to 100 percent for 10 to 86,400 s", param_hint="--step"
        )
    return found


def _order(name: str | None, context: str | None, namespace: str, changes: dict[str, Any], said: str) -> None:
    which = _named(name, context, namespace)

    async def work(kube: Kube) -> Object:
        from switchboard.kinds import MODEL_RELEASES

        return await kube.patch(MODEL_RELEASES, which, {"spec": changes}, namespace)

    with_kube(context, work)
    typer.echo(f"modelrelease/{which} {said}")


def _named(name: str | None, context: str | None, namespace: str) -> str:
    """The name that was given, or that of the only release under way."""
    if name is not None:
        return name
    from operators.releases import known

    found = [
        str(one["metadata"]["name"])
        for one in with_kube(context, lambda kube: all_of(kube, namespace))
        if not known.over(one)
    ]
    if len(found) != 1:
        said = f"{len(found)} are under way: {', '.join(found)}" if found else "none is under way"
        raise SwitchboardError(f"which release? {said}", "`switchboard canary status` shows all")
    return found[0]


def _follow(name: str, context: str | None, namespace: str, output: Output) -> None:
    """Show the release until it is decided, and end as it did."""
    from operators.releases import shown

    async def work(kube: Kube) -> Object:
        last: Object | None = None
        async with _display(output) as tell:
            while True:
                found = await get(kube, name, namespace)
                if found != last:
                    tell(found)
                    last = found
                if shown.decided(shown.parse(found)[1]):
                    return found
                await asyncio.sleep(PERIOD_S)

    ended = with_kube(context, work)
    if output is Output.JSON:
        typer.echo(json.dumps(shown.document(ended), indent=1))
    code = shown.exit_code(shown.parse(ended)[1])
    if code:
        raise typer.Exit(code)


@asynccontextmanager
async def _display(output: Output) -> AsyncIterator[Callable[[Object], None]]:
    """Shows a release each time that it has changed: in place on a terminal, else a line for each turn."""
    from rich.console import Console

    from operators.releases import shown

    console = Console(file=sys.stderr if output is Output.JSON else sys.stdout)
    if console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            yield lambda release: live.update(shown.screen(release, datetime.now(UTC)), refresh=True)
        return
    told = 0

    def tell(release: Object) -> None:
        nonlocal told
        status: Status = shown.parse(release)[1]
        for turn in status.turns[told:]:
            console.print(
                f"{turn.at:%H:%M:%S}  {turn.phase}  {turn.weight} %  {turn.sentence}", soft_wrap=True
            )
        told = len(status.turns)

    yield tell


def _print(what: Any) -> None:
    from rich.console import Console

    Console(file=sys.stdout).print(what)
