"""How commands show what they found: for people or for programs, in columns as kubectl's."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]


def columns(first: str, *numbers: str) -> Table:
    """An empty table: what it is about, and numbers."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    shown.add_column(first)
    for name in numbers:
        shown.add_column(name, justify="right")
    return shown


def show(table: Table) -> None:
    from rich.console import Console

    Console(file=sys.stdout).print(table)
