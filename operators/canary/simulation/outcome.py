"""What became of many releases under one judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """`aborted` and `promoted`, of each release; `minutes` until then, the whole time where it came to neither."""

    aborted: NDArray[np.bool_]
    promoted: NDArray[np.bool_]
    minutes: Array

    @staticmethod
    def of(aborted_at: Array, promoted_at: Array, horizon: float) -> Outcome:
        """By the minute at which a judge would abort or promote; infinite: never. Both at once is an abort."""
        aborted = np.isfinite(aborted_at) & (aborted_at <= promoted_at)
        promoted = np.isfinite(promoted_at) & ~aborted
        return Outcome(
            aborted, promoted, np.minimum(np.minimum(aborted_at, promoted_at), horizon).astype(np.float64)
        )

    def figures(self) -> dict[str, float]:
        return {
            "abort_rate": round(float(self.aborted.mean()), 4),
            "promote_rate": round(float(self.promoted.mean()), 4),
            "median_minutes": round(float(np.median(self.minutes)), 2),
        }
