"""What a stack asks of releases: a passed gate, a second person's approval, times in which nothing is released."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from switchboard.api._base import Api
from switchboard.api.scaling import Window


class Freeze(Api):
    """Once, from a date to another: a year's end, a migration."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _ends_after(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the freeze {self.name!r} ends before it begins")
        return self


class ReleasePolicy(Api):
    """`gate`: only versions that passed the offline gate. `approval`: only what a second person has approved of.
    `closed` are hours of each week, `freezes` are dated: in neither does a release begin or come to more customers."""

    gate: bool = False
    approval: bool = False
    closed: Annotated[tuple[Window, ...], Field(max_length=64)] = ()
    freezes: Annotated[tuple[Freeze, ...], Field(max_length=64)] = ()

    def held(self, requested_by: str, approved_by: str, now: float) -> str | None:
        """Why a release may not go on at `now` (seconds since the epoch); None where it may."""
        for freeze in self.freezes:
            if freeze.start.timestamp() <= now < freeze.end.timestamp():
                until = freeze.end.astimezone(UTC)
                return f"nothing is released in {freeze.name!r}, until {until:%Y-%m-%d %H:%M}Z"
        for window in self.closed:
            if window.covers(now):
                return f"nothing is released in {window.name!r}, until {window.end} ({window.time_zone})"
        if self.approval and not approved_by:
            return "it waits for a second person's approval (switchboard canary approve)"
        if self.approval and approved_by == requested_by:
            return f"it waits for a second person's approval: {approved_by} asked for it"
        return None
