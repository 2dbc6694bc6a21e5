"""How a model server is sized: bounds, how fast, how much headroom, when more. The operator's policy reads it.

The defaults are those that the simulator's scenarios were run with (`switchboard scaling simulate`).
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, StringConstraints, field_validator, model_validator

from switchboard.api._base import Api, Rule

MOST_REPLICAS = 10_000

Replicas = Annotated[int, Field(ge=0, le=MOST_REPLICAS)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""A time of day, `08:30`."""


class Mode(StrEnum):
    """What is done with a decision: carried out, only recorded, or none made."""

    ACTIVE = "active"
    SHADOW = "shadow"
    PAUSED = "paused"


class Day(StrEnum):
    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


class Pace(Api):
    """At most so much change within `period_seconds`: whichever of `replicas` and `percent` allows more."""

    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] = 4
    percent: Annotated[int, Field(ge=1, le=100_000)] = 100
    period_seconds: Annotated[int, Field(ge=2, le=3600)] = 15


class Pause(Api):
    """Directions in which nothing is changed."""

    up: bool = False
    down: bool = False


class Headroom(Api):
    """Replicas beyond today's need, for what the server's own history says may come while one starts.

    `price` is what a second out of service level is worth, in replica-seconds: the number is chosen at which one more
    replica costs more than what it is likely to save. 0 turns it off.
    """

    price: Annotated[float, Field(ge=0, le=100_000)] = 60.0
    level_seconds: Annotated[int, Field(ge=60, le=3600)] = 600
    history_seconds: Annotated[int, Field(ge=600, le=86_400)] = 14_400


class Window(Api):
    """These days from `start` to `end` of that time zone's clock; the next day's, where that is no later than start."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7)] = tuple(Day)
    start: Clock
    end: Clock
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.timeZone.matches('^[A-Za-z]') && "
            "timestamp('2026-01-01T00:00:00Z').getHours(self.timeZone) >= 0",
            "timeZone is no time zone: say it as Asia/Shanghai or UTC",
            "timeZone",
        ),
    )

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone: say it as Asia/Shanghai or UTC") from None
        return value

    def covers(self, now: float) -> bool:
        """Whether it is in the window at `now` (seconds since the epoch)."""
        local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(self.time_zone))
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        clock, days = local.time(), tuple(Day)
        today, yesterday = days[local.weekday()], days[(local - timedelta(days=1)).weekday()]
        if start < end:
            return today in self.days and start <= clock < end
        return (today in self.days and clock >= start) or (yesterday in self.days and clock < end)


class Schedule(Window):
    """At least `min_replicas` in the window."""

    min_replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS)]


class Scaling(Api):
    """The scaling of one model server; times in seconds."""

    mode: Mode = Mode.ACTIVE
    min_replicas: Replicas = 1
    max_replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS)]
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The most that replicas carry on average, as a share of their capacity; at low rates the square-root rule asks
    for more room than that."""
    up_window_seconds: Annotated[int, Field(ge=2, le=60)] = 6
    stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """A smaller number has to have been enough for so long; by default the start time of a replica, 60 to 420."""
    drain_seconds: Annotated[int, Field(ge=1, le=600)] = 20
    """Within this time a backlog should be gone."""
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Smaller steps down than this share aren't taken."""
    up: Pace | None = None
    down: Pace | None = None
    pause: Pause = Pause()
    headroom: Headroom = Headroom()
    idle_seconds: Annotated[int, Field(ge=30, le=86_400)] | None = None
    """Without a request for so long, no replica is kept (with `min_replicas: 0` only)."""
    fallback_replicas: Replicas | None = None
    """At least so many where nothing has been known for `fallback_after_seconds`."""
    fallback_after_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    schedules: Annotated[tuple[Schedule, ...], Field(max_length=32)] = ()
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas is more than maxReplicas", "minReplicas"),
        Rule(
            "!has(self.fallbackReplicas) || self.fallbackReplicas <= self.maxReplicas",
            "fallbackReplicas is more than maxReplicas",
            "fallbackReplicas",
        ),
        Rule(
            "self.schedules.all(one, one.minReplicas <= self.maxReplicas)",
            "a schedule's minReplicas is more than maxReplicas",
            "schedules",
        ),
        Rule(
            "!has(self.idleSeconds) || self.minReplicas == 0",
            "idleSeconds is for minReplicas 0: with more, replicas are always kept",
            "idleSeconds",
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} is more than maxReplicas {self.max_replicas}")
        if self.fallback_replicas is not None and self.fallback_replicas > self.max_replicas:
            raise ValueError(
                f"fallbackReplicas {self.fallback_replicas} is more than maxReplicas {self.max_replicas}"
            )
        names = [schedule.name for schedule in self.schedules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two schedules have the name {twice!r}")
        for schedule in self.schedules:
            if schedule.min_replicas > self.max_replicas:
                raise ValueError(
                    f"schedule {schedule.name!r}: minReplicas {schedule.min_replicas} is more than maxReplicas "
                    f"{self.max_replicas}"
                )
        if self.idle_seconds is not None and self.min_replicas > 0:
            raise ValueError("idleSeconds is for minReplicas 0: with more, replicas are always kept")
        return self


Reason = Literal["rate", "in-flight", "queue", "headroom"]
"""The signals that a number of replicas can come from."""
