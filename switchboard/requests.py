"""What customers of a load test asked and got: each request, and the file in which a run leaves all of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO


class Request(NamedTuple):
    """One request: when it was due (seconds since the epoch), how long it took from then on, why it failed (None: it
    didn't), which version of the model answered it, who asked, how late it was sent (s), and why the first try failed
    where there was a second."""

    started_s: float
    seconds: float
    failure: str | None
    version: str = ""
    who: str = ""
    late_s: float = 0.0
    first: str | None = None


def write(requests: Iterable[Request], file: TextIO) -> None:
    """As CSV, with a head."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(Request._fields)
    rows.writerows(
        (
            *(f"{one.started_s:.3f}", f"{one.seconds:.4f}", one.failure, one.version),
            *(one.who, f"{one.late_s:.6f}", one.first),
        )
        for one in requests
    )


def read(file: TextIO) -> list[Request]:
    """What `write` wrote."""
    return [
        Request(
            float(row["started_s"]),
            float(row["seconds"]),
            row["failure"] or None,
            row["version"],
            row["who"],
            float(row["late_s"]),
            row["first"] or None,
        )
        for row in csv.DictReader(file)
    ]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` % of all values don't exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[nearest_rank(len(ordered), percent)]


def nearest_rank(count: int, percent: float) -> int:
    """Where that is among so many values in order, counted from 0."""
    return max(0, math.ceil(count * percent / 100) - 1)
