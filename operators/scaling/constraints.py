"""The constraints between a need and a number of replicas: each a small function of values."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from switchboard.api.scaling import Day, Pace, Scaling, Schedule

Timed = tuple[tuple[float, float], ...]

LEAST_STABILIZATION_S, MOST_STABILIZATION_S = 60.0, 420.0

RAISE_FROM = 0.3
"""A need may exceed the replicas by so much of one before another is added: less is noise."""


def remember(highest: Timed, now: float, need: float, window_s: float) -> Timed:
    """The window's needs that may yet be its highest: newer ones replace lower ones."""
    kept = [one for one in highest if one[0] > now - window_s and one[1] > need]
    return (*kept, (now, need))


def stabilization_s(scaling: Scaling, start_s: float) -> float:
    """How long a smaller number has to have been enough: what is removed takes `start_s` to come back."""
    if scaling.stabilization_seconds is not None:
        return float(scaling.stabilization_seconds)
    return min(max(start_s, LEAST_STABILIZATION_S), MOST_STABILIZATION_S)


def step(current: int, now_needed: float, kept: float, tolerance: float) -> int:
    """From `current` up to what is needed now, or down to what the window needed, or nowhere.

    Between the two is a band in which nothing moves, so that noise makes no turns; what nobody needed is let go.
    """
    if now_needed > current + RAISE_FROM:
        return math.ceil(now_needed - RAISE_FROM)
    if kept == 0 or kept < current - max(1.0, tolerance * current):
        return math.ceil(kept)
    return current


def paced(
    current: int, wanted: int, pace: Pace | None, changes: tuple[tuple[float, int], ...], now: float
) -> int:
    """No further than the pace allows, given the changes in this direction within its period."""
    if pace is None or wanted == current:
        return wanted
    up = wanted > current
    recent = sum(change for at, change in changes if at > now - pace.period_seconds and (change > 0) == up)
    before = current - recent
    allowed = max(pace.replicas, math.ceil(before * pace.percent / 100))
    return min(wanted, max(current, before + allowed)) if up else max(wanted, min(current, before - allowed))


def scheduled(schedules: tuple[Schedule, ...], now: float) -> tuple[int, str]:
    """The largest minimum that a schedule asks for now (seconds since the epoch), and its name; 0 for none."""
    asked = [(one.min_replicas, one.name) for one in schedules if _covers(one, now)]
    return max(asked, default=(0, ""))


def _covers(schedule: Schedule, now: float) -> bool:
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(schedule.time_zone))
    start, end = schedule.times
    clock, days = local.time(), tuple(Day)
    today, yesterday = days[local.weekday()], days[(local - timedelta(days=1)).weekday()]
    if start < end:
        return today in schedule.days and start <= clock < end
    return (today in schedule.days and clock >= start) or (yesterday in schedule.days and clock < end)
