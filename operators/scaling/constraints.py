"""The constraints between a need and a number of replicas: each a small function of values."""

from __future__ import annotations

import math

from switchboard.api.scaling import Pace, Scaling, Schedule

Timed = tuple[tuple[float, float], ...]

LEAST_STABILIZATION_S, MOST_STABILIZATION_S = 60.0, 420.0

MOST_REMEMBERED, EXACT_S = 32, 2.0

RAISE_FROM = 0.3
"""A need may exceed the replicas by so much of one before another is added: less is noise."""


def remember(highest: Timed, now: float, need: float, window_s: float) -> Timed:
    """The window's needs that may yet be its highest: newer ones replace lower ones.

    Of a long window at most `MOST_REMEMBERED` are kept: those of one part of it as the highest of them, at its end.
    """
    part_s = window_s / MOST_REMEMBERED
    at = math.ceil(now / part_s) * part_s if part_s > EXACT_S else now
    kept = [one for one in highest if one[0] > now - window_s and one[1] > need]
    return tuple(kept) if kept and kept[-1][0] == at else (*kept, (at, need))


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
    asked = [(one.min_replicas, one.name) for one in schedules if one.covers(now)]
    return max(asked, default=(0, ""))
