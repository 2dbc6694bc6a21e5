"""Errors that a person reads: what failed, why, and what to do next, in one or two lines."""

from __future__ import annotations


class SwitchboardError(Exception):
    """A failure that the user can act on; the command line prints it without a traceback.

    `what` names the thing and the reason, `next_step` (optional) says how to go on.
    """

    def __init__(self, what: str, next_step: str | None = None) -> None:
        super().__init__(what if next_step is None else f"{what}\n  → {next_step}")
        self.what = what
        self.next_step = next_step
        self.exit_code = 1
        """What the command ends with; of a group that has a meaning of its own for 1, another."""
