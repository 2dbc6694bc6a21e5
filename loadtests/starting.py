"""How long a replica takes to start: what a run has to wait for after its rate has changed, before a claim counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

START_S: Final = 20.0
"""Where nobody knows."""
MOST_S: Final = 60.0
"""Of what was measured: replicas that take longer are no excuse."""


@dataclass(frozen=True)
class Start:
    """At its 95th percentile, in seconds; `measured` in so many replicas that started in the run, or `given`."""

    seconds: float
    measured: int = 0
    given: bool = False

    @staticmethod
    def of(given_s: float | None, starts_s: Sequence[float]) -> Start:
        """What was given counts, then what was measured."""
        from switchboard.requests import percentile

        if given_s is not None:
            return Start(given_s, given=True)
        if not starts_s:
            return Start(START_S)
        return Start(min(MOST_S, percentile(sorted(starts_s), 95)), len(starts_s))

    def __str__(self) -> str:
        how = "as given" if self.given else "not measured: none started in the run"
        if self.measured:
            how = f"p95 of {self.measured} in the run, by whole seconds"
        return f"{self.seconds:g} s ({how})"
