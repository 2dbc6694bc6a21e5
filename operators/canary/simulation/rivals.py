"""The rules that others judge canaries by, for many simulated releases at once.

Each is given what an arm counted in each minute, and says when it aborts or promotes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from operators.canary.simulation.outcome import Outcome

Array = NDArray[np.float64]
Minutes = Mapping[str, tuple[Array, Array]]
"""By metric, the events and requests of each minute; shape (releases, minutes)."""

LEAST_SUCCESS, FAILED_CHECKS, PASSED_CHECKS = 0.99, 5, 5
CONFIDENCE, TOLERANCE = 0.98, 0.25
LOOK_MINUTES = 10
COMPARED = ("failed", "slow", "fallback", "handoff")


def threshold(candidate: Minutes) -> Outcome:
    """A check a minute: less than 99 % of the candidate's requests succeeded, or not. Five that fail abort, five that
    pass are the five steps from 10 % to 50 % (Flagger's defaults). Without requests a check fails, as it does there."""
    events, requests = candidate["failed"]
    passed = (requests > 0) & (1 - events / np.maximum(requests, 1) >= LEAST_SUCCESS)
    return Outcome.of(
        _first(np.cumsum(~passed, axis=1) >= FAILED_CHECKS),
        _first(np.cumsum(passed, axis=1) >= PASSED_CHECKS),
        passed.shape[1],
    )


def mann_whitney(candidate: Minutes, champion: Minutes) -> Outcome:
    """Every ten minutes, each minute's rates of the two arms are compared by the confidence interval of their shift
    (Hodges and Lehmann's estimate; Mann and Whitney's test): it aborts when the interval's lower end is more than a
    quarter of the estimate (Kayenta's classifier; all metrics critical), and promotes at the end."""
    releases, minutes = candidate["failed"][0].shape
    aborted = np.full(releases, math.inf)
    for end in range(LOOK_MINUTES, minutes + 1, LOOK_MINUTES):
        for name in COMPARED:
            waiting = np.isinf(aborted)
            if not waiting.any():
                break
            mine, theirs = (_rates(arm[name], waiting, end) for arm in (candidate, champion))
            aborted[np.flatnonzero(waiting)[_high(mine, theirs)]] = end
    return Outcome.of(aborted, np.full(releases, float(minutes)), minutes)


def _rates(counts: tuple[Array, Array], chosen: NDArray[np.bool_], end: int) -> Array:
    events, requests = (one[chosen, :end] for one in counts)
    seen = requests.sum(axis=0) > 0
    return np.asarray(events[:, seen] / np.maximum(requests[:, seen], 1))


def _high(mine: Array, theirs: Array) -> NDArray[np.bool_]:
    size = mine.shape[1]
    if size < 3:
        return np.zeros(len(mine), dtype=bool)
    shifts = np.sort((mine[:, :, None] - theirs[:, None, :]).reshape(len(mine), -1), axis=1)
    deviation = math.sqrt(size * size * (2 * size + 1) / 12)
    rank = max(0, math.floor(size * size / 2 - float(norm.ppf((1 + CONFIDENCE) / 2)) * deviation))
    estimate = np.median(shifts, axis=1)
    found: NDArray[np.bool_] = (shifts[:, rank] > TOLERANCE * np.abs(estimate)) & (
        mine.mean(axis=1) > theirs.mean(axis=1)
    )
    return found


def _first(reached: NDArray[np.bool_]) -> Array:
    """The number of the first minute's end at which it holds; infinite where it never does."""
    found: Array = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)
    return found


RIVALS: Sequence[str] = ("threshold", "mann-whitney")
