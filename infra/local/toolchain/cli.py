"""`switchboard infra toolchain`: which tools the embedded cloud has, where from; a way to make them early."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.local.toolchain import lookup
from infra.local.toolchain.build import ensure
from infra.local.toolchain.recipes import TOOLS
from infra.local.toolchain.versions import show
from switchboard.progress import Progress

app = typer.Typer(
    help="The programs of the embedded cloud: where they are, in which versions.", no_args_is_help=True
)


class Format(StrEnum):
    """How the list is printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]


@app.command("list")
def list_tools(output: Output = Format.TABLE) -> None:
    """Show every tool with its version, its source and its path; builds nothing."""
    rows = [_row(name) for name in TOOLS]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("tool", "version", "source", "path", box=None)
    for row in rows:
        table.add_row(row["tool"], row["version"], row["source"], row["path"] or row["note"])
    Console(width=max(Console().width, 200)).print(
        table
    )  # a path is to be copied whole: let the terminal wrap it


@app.command()
def build(names: Annotated[list[str] | None, typer.Argument(help="tools; all without")] = None) -> None:
    """Make the tools that are missing (`make up` does it by itself)."""
    if unknown := [name for name in names or () if name not in TOOLS]:
        raise typer.BadParameter(f"no such tool: {', '.join(unknown)} (there are {', '.join(TOOLS)})")
    with Progress() as progress:
        ensure(progress, names or None)


def _row(name: str) -> dict[str, str]:
    found = lookup.find(name)
    unfit = "; ".join(lookup.why_unfit(name))
    note = f"{unfit}, which doesn't fit ({TOOLS[name].fits})" if unfit else ""
    if found is None:
        return {"tool": name, "version": str(TOOLS[name].fits), "source": "missing", "path": "", "note": note}
    version = found.version or show(lookup.ask_version(found.path, TOOLS[name].version_arguments))
    return {"tool": name, "version": version, "source": found.source, "path": str(found.path), "note": note}
