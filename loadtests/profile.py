"""How many requests a second are due at which time: a pure function that scenarios describe.

Between two points the rate is on the line between them. Arrivals by chance (Poisson) scatter around it; what is said
here is their mean.
"""

from __future__ import annotations

import bisect
import csv
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST_S: Final = 7 * 86_400
MOST_RPS: Final = 10_000.0


@dataclass(frozen=True)
class Span:
    """From one second of the run until before another."""

    begin_s: float
    end_s: float

    def holds(self, second: float) -> bool:
        return self.begin_s <= second < self.end_s


@dataclass(frozen=True)
class Profile:
    """`points`: (seconds from the beginning, requests/s), in order, the first at 0; two at one time are a step."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [time for time, _ in self.points]
        if not all(math.isfinite(one) for point in self.points for one in point):
            raise ValueError("a profile's times and rates must be finite")
        if len(times) < 2 or times[0] != 0 or any(b < a for a, b in itertools.pairwise(times)):
            raise ValueError("a profile takes two points at least, in order of time, the first at 0")
        if not 0 < times[-1] <= LONGEST_S:
            raise ValueError(f"a profile of {times[-1]:g} s can't be: it takes up to {LONGEST_S} s")
        if not all(0 <= rate <= MOST_RPS for _, rate in self.points):
            raise ValueError(f"a rate must be from 0 to {MOST_RPS:g} requests/s")
        if not any(rate for _, rate in self.points):
            raise ValueError("a profile without a request proves nothing")

    @property
    def length_s(self) -> float:
        return self.points[-1][0]

    @property
    def most_rps(self) -> float:
        return max(rate for _, rate in self.points)

    def rate(self, second: float) -> float:
        """Requests/s that are due at that time; 0 before the beginning and from the end on. At a step, the new rate."""
        if not 0 <= second < self.length_s:
            return 0.0
        after = bisect.bisect_right(self.points, second, key=lambda point: point[0])
        (begin, low), (end, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (second - begin) / (end - begin)

    def requests(self, begin_s: float = 0.0, end_s: float = math.inf) -> float:
        """How many are due in that time, on average."""
        total = 0.0
        for (begin, low), (end, high) in itertools.pairwise(self.points):
            since, until = max(begin, begin_s), min(end, end_s)
            if until > since and end > begin:
                slope = (high - low) / (end - begin)
                total += (until - since) * (low + slope * ((since + until) / 2 - begin))
        return total

    def changes(self) -> tuple[Span, ...]:
        """When the rate is on its way from one that was held to another; a step has no length."""
        moving = (
            Span(begin, end) for (begin, low), (end, high) in itertools.pairwise(self.points) if low != high
        )
        found: list[Span] = []
        for span in moving:
            if found and found[-1].end_s == span.begin_s:
                found[-1] = Span(found[-1].begin_s, span.end_s)
            else:
                found.append(span)
        return tuple(found)


def staged(stages: Iterable[tuple[float, float, float]]) -> Profile:
    """Of (rate, seconds until it is there, seconds for which it is held); before the first one there is none."""
    points: list[tuple[float, float]] = []
    at, before = 0.0, 0.0
    for rate, over_s, for_s in stages:
        if over_s:
            points.append((at, before))
        at += over_s
        points += [(at, rate), (at + for_s, rate)]
        at, before = at + for_s, rate
    return Profile(tuple(point for point, _ in itertools.groupby(points)))


def traced(rows: Sequence[tuple[float, float]], *, seconds: float, peak_rps: float) -> Profile:
    """The shape of a trace of (seconds, requests/s): brought to that length, and its highest rate to `peak_rps`.

    Raises:
        ValueError: it has fewer than two rows, isn't in order, or never has a request.
    """
    if len(rows) < 2:
        raise ValueError("a trace takes two rows at least")
    if not all(math.isfinite(one) for row in rows for one in row):
        raise ValueError("a trace's times and rates must be finite")
    begin, length = rows[0][0], rows[-1][0] - rows[0][0]
    highest = max(rate for _, rate in rows)
    if length <= 0 or any(b[0] < a[0] for a, b in itertools.pairwise(rows)):
        raise ValueError("a trace's times must rise")
    if not highest > 0:
        raise ValueError("a trace must have requests")
    return Profile(
        tuple(((time - begin) * seconds / length, rate * peak_rps / highest) for time, rate in rows)
    )


def read_trace(file: Path) -> list[tuple[float, float]]:
    """The rows of a CSV file with the columns `time_s` and `requests_per_s`.

    Raises:
        OSError: it can't be read.
        ValueError: a column is missing, or a value is no number.
    """
    with file.open(encoding="utf-8", newline="") as opened:
        rows = csv.DictReader(opened)
        try:
            missing = {"time_s", "requests_per_s"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"it has no column {' and no column '.join(sorted(missing))}")
            found = []
            for number, row in enumerate(rows, 2):
                try:
                    found.append((float(row["time_s"]), float(row["requests_per_s"])))
                except (TypeError, ValueError):
                    raise ValueError(f"line {number} has no two numbers") from None
        except csv.Error as error:
            raise ValueError(f"it is no CSV: {error}") from None
        return found
