"""What a step of `operators.trials.step` showed, and the figures of many."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One step: `settled_s` from its first request until the last decision upwards, `capacity_s` until as many replicas
    serve, `start_s` the longest start among them, `reversals` how often it turned before the traffic fell again."""

    number: int
    rule: str
    before: int
    settled: int
    first_s: float
    ended_s: float
    settled_s: float | None
    capacity_s: float | None
    start_s: float | None
    reversals: int
    out_of_level_s: int
    failed: int
    asked: int
    back_s: float | None


def reversals(counts: list[int]) -> int:
    turns = [later - sooner for sooner, later in itertools.pairwise(counts) if later != sooner]
    return sum(a * b < 0 for a, b in itertools.pairwise(turns))


def read_seconds(file: Path) -> list[tuple[int, int, int, int]]:
    """Of each second: when, how many requests were due, good and failed."""
    with file.open() as lines:
        return [tuple(int(value) for value in row) for row in list(csv.reader(lines))[1:]]  # type: ignore[misc]


def summary(found: Sequence[Run]) -> str:
    """The figures that count, in lines."""
    settled = sorted(one.settled_s if one.settled_s is not None else math.inf for one in found)
    more = sorted(
        one.capacity_s - one.start_s if one.capacity_s is not None and one.start_s is not None else math.inf
        for one in found
    )
    place = max(0, math.ceil(0.95 * len(found)) - 1)
    turns = max(one.reversals for one in found)
    failed, asked = sum(one.failed for one in found), sum(one.asked for one in found)
    return "\n".join(
        (
            f"runs                                   {len(found)}",
            f"settled decision, p95                  {settled[place]:.1f} s after the step's first request",
            f"capacity ready, p95                    {more[place]:.1f} s beyond a replica's start time",
            f"turns within a step, most              {turns}",
            f"seconds out of level, all steps        {sum(one.out_of_level_s for one in found)}",
            f"requests of the steps that failed      {failed} of {asked}",
        )
    )
