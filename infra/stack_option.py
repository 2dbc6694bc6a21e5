"""The option `--stack` of the commands: its completion, and the form of a stack's name."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""Pulumi's rule for stacks' names, without dots: names are parts of files' names."""


def stacks() -> list[str]:
    """The stacks of the checkout."""
    return sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))


def checked(name: str) -> str:
    """The name of a stack, there or not.

    Raises:
        SwitchboardError: it can't be one.
    """
    if not _NAME.fullmatch(name):
        raise SwitchboardError(
            f"{name!r} is no stack's name: letters, digits, - and _ are",
            f"stacks here: {', '.join(stacks())}",
        )
    return name


def all_checked(names: list[str] | None) -> list[str] | None:
    """As `checked`, of several.

    Raises:
        SwitchboardError: one can't be a stack's.
    """
    return names and [checked(name) for name in names]


def known(stack: str) -> None:
    """See that there is such a stack: its file, or what is left of it.

    Raises:
        SwitchboardError: there is neither; nothing is written for a name that was mistyped.
    """
    from infra import config
    from switchboard.paths import state_dir

    if not state_dir(stack).exists() and not config.stack_file(stack).exists():
        config.load(stack)


StackOption = Annotated[
    str,
    typer.Option(
        "--stack",
        envvar="SWITCHBOARD_STACK",
        help="The stack, as in Pulumi.<stack>.yaml.",
        autocompletion=stacks,
        callback=checked,
    ),
]
