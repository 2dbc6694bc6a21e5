"""The root of the `switchboard` command: one group for each folder, loaded when it is asked for.

The commands that bring the whole thing up and down (`up`, `down`, `status`, `env`, …) are the infra group's own,
offered at the root as well. Exit codes: 0 done, 1 it failed or is unhealthy, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
import typer.core
import typer.main

from switchboard import __version__
from switchboard.errors import SwitchboardError

GROUPS = {
    "infra": ("infra.cli", "What is there: the cloud, its stacks and its tools."),
    "models": ("models.cli", "What is served: train, evaluate and look at models."),
    "serving": ("serving.cli", "How it is served: ask a question."),
    "scaling": (
        "operators.scaling_cli",
        "What keeps it sized: try scaling policies on traffic, recorded or made up.",
    ),
    "canary": (
        "operators.canary_cli",
        "How a new model reaches every customer: plan a release, try its judge.",
    ),
    "loadtests": ("loadtests.cli", "Does it hold: load and its verdict."),
}
"""Each group's module (its `app` is the typer application) and its line in `--help`."""

FROM_INFRA = {
    "up": "Bring the embedded cloud up and ask it a question.",
    "down": "Stop what `up` started; state and volumes stay.",
    "clean": "Remove a stack's state (not the built tools).",
    "status": "What runs, healthy or not, with addresses.",
    "doctor": "What is wrong with machine, tools, sites and stack, and how to mend it.",
    "render": "Write what a stack would apply as YAML files, secrets left out.",
    "env": 'Print the environment for plain `pulumi` and `kubectl`: eval "$(switchboard env)".',
    "pulumi": "Run Pulumi with the right environment.",
}


COMPLETING = "_SWITCHBOARD_COMPLETE"
"""Set by the shell's completion; the words are in other variables then, not among the arguments."""


class LazyGroup(typer.core.TyperGroup):
    """Loads a group's module only when the group is used; `--help` and the completion of its name need none of them."""

    _naming = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._naming = True  # the group's own names are wanted, not what a command takes
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._naming = False

    def list_commands(self, ctx: Any) -> list[str]:
        return [*FROM_INFRA, *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in FROM_INFRA:
            if self._naming or _only_listing():
                return _line(cmd_name, FROM_INFRA[cmd_name])
            return _load("infra.cli").commands[cmd_name]
        if cmd_name in GROUPS:
            module, text = GROUPS[cmd_name]
            return _line(cmd_name, text) if self._naming or _only_listing() else _load(module, cmd_name)
        return None


def _only_listing() -> bool:
    """Whether this call shows the root's own help: then a name and a line of each command is enough."""
    if COMPLETING in os.environ:
        return False
    words = [word for word in sys.argv[1:] if not word.startswith("--install")]
    return not words or words[0] in ("--help", "-h")


def _line(name: str, text: str) -> Any:
    return typer.core.TyperCommand(name=name, help=text)


def _load(module: str, name: str | None = None) -> Any:
    command = typer.main.get_command(importlib.import_module(module).app)
    if name is not None:
        command.name = name
    return command


def _version(value: bool) -> None:
    if value:
        typer.echo(f"switchboard {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="A bank's chat and voice models on a hybrid cloud: lay it out, run it, prove that it holds.",
    epilog="Examples: `switchboard up` · `switchboard status -o json` · `switchboard serving ask 'I lost my card'`",
)


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """The console command: errors that a person can act on are printed without a traceback."""
    try:
        app()
    except SwitchboardError as error:
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
