"""Commands whose exit code is an answer, so that it can't be taken for one where there is none."""

from __future__ import annotations

import traceback
from typing import Any

import typer
import typer.core

ERROR = 3


class AnswerGroup(typer.core.TyperGroup):
    """Whatever keeps a command from its answer ends it with `ERROR`: 1 and 2 are answers here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, BrokenPipeError):
            raise
        except typer.Abort:
            raise typer.Exit(ERROR) from None
        except Exception as error:
            # Of wrong usage, whose class typer doesn't show, or a SwitchboardError.
            if not hasattr(error, "exit_code"):
                traceback.print_exc()  # a bug, which somebody has to find
                raise typer.Exit(ERROR) from None
            vars(error)["exit_code"] = ERROR
            raise
