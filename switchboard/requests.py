"""What customers of a load test asked and got: each request, and the file in which a run leaves all of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO


class Request(NamedTuple):
    """One request: when it began (seconds since the epoch), how long it took, why it failed (None: it didn't), and
    which version of the model answered it."""

    started_s: float
    seconds: float
    failure: str | None
    version: str = ""


def write(requests: Iterable[Request], file: TextIO) -> None:
    """As CSV, with a head."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(Request._fields)
    rows.writerows(
        (f"{one.started_s:.3f}", f"{one.seconds:.4f}", one.failure, one.version) for one in requests
    )


def read(file: TextIO) -> list[Request]:
    """What `write` wrote."""
    return [
        Request(float(row["started_s"]), float(row["seconds"]), row["failure"] or None, row["version"])
        for row in csv.DictReader(file)
    ]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` % of all values don't exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
