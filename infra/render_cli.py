"""`switchboard render` and `switchboard infra check`: what a stack would apply, and what checkers say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from infra.stack_option import StackOption, all_checked
from switchboard.paths import DEFAULT_STACK

RENDER_EXAMPLES = (
    "Examples: `switchboard render --stack staging --out rendered/staging` · "
    "`switchboard render --out /tmp/local -o json | jq .unknown` · "
    "`kubectl --context bank-staging-public diff --server-side -k rendered/staging/public`"
)
CHECK_EXAMPLES = (
    "Examples: `switchboard infra check` · "
    "`switchboard infra check --stack production -o json | jq '.[].exceptions'`"
)

OutputOption = Annotated[
    Literal["text", "json"], typer.Option("--output", "-o", help="`json` for other programs.")
]


def render(
    out: Annotated[Path, typer.Option("--out", help="The folder to write: empty, or an earlier render's.")],
    stack: StackOption = DEFAULT_STACK,
    force: Annotated[
        bool, typer.Option("--force", help="Write there whatever it holds; what isn't ours is not removed.")
    ] = False,
    output: OutputOption = "text",
) -> None:
    """Write what a stack would apply as YAML files, a folder a site, secrets left out. Needs no cluster."""
    from infra import config
    from infra.declared import declare
    from infra.render import render as rendered_from
    from infra.render import write

    rendered = rendered_from(stack, declare(config.load(stack), name=stack))
    write(rendered, out, force=force)
    if output == "json":
        typer.echo(json.dumps({**rendered.summary(), "out": str(out)}, indent=2))
        return
    sites = sorted({path.partition("/")[0] for path in rendered.files})
    typer.echo(f"{len(rendered.files)} files of stack {stack} in {out}: {', '.join(sites)}")
    for title, places in (
        ("left out, a secret", rendered.left_out),
        ("known after up, an address", rendered.unknown),
    ):
        for place in places:
            typer.echo(f"  {title}: {place.file} {place.field}")


def check(
    stack: Annotated[
        list[str] | None,
        typer.Option("--stack", help="A stack; several may be given. All without.", callback=all_checked),
    ] = None,
    output: OutputOption = "text",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the checkers, where they aren't there.")
    ] = False,
) -> None:
    """Let independent checkers and our policies judge all that stacks declare. Exit code 1 where one finds a fault."""
    from infra.checkers import check as judged
    from infra.checkers import ensure, stacks
    from infra.checkers.report import table
    from switchboard.progress import Progress

    with Progress() as progress:
        tools = ensure(progress)
    if prepare:
        return
    reports = judged(stack or stacks(), tools)
    if output == "json":
        typer.echo(json.dumps([report.model_dump() for report in reports], indent=2))
    else:
        typer.echo("\n\n".join(map(table, reports)))
    if any(report.high for report in reports):
        raise typer.Exit(1)
