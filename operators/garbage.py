"""Python's search for unreachable cycles, between the ticks instead of within them.

The answer for 2,000 ModelServers is 50,000 small objects, which start that search a thousand times, and now and then
one of all that the operator holds: a fifth of a second, in which no decision is made. What isn't in a cycle, as nearly
all of it, is freed at once as ever.
"""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Final

ALL_EVERY: Final = 30
"""All that there is is searched at every so many calls, a minute of ticks; else what is new since the last call."""
_NEW, _ALL = 1, 2


class Garbage:
    """While it is entered, cycles are looked for at `collect` alone."""

    def __init__(self) -> None:
        self._calls = 0
        self._was_enabled = False

    def __enter__(self) -> Garbage:
        self._was_enabled = gc.isenabled()
        gc.disable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._was_enabled:
            gc.enable()

    def collect(self) -> int:
        """How many objects were unreachable."""
        self._calls += 1
        return gc.collect(_ALL if self._calls % ALL_EVERY == 0 else _NEW)
