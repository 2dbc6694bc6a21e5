"""A server's own history of rates, and what it says about the near future.

Rates are kept as means of `BUCKET_S` seconds, each with the level (the mean of some minutes) that was known then. The
forecast at horizon h is the level of now times the ratios that were seen h after such levels before: an empirical
distribution, which knows bursts, noise and trends as far as they have happened, and nothing else. It never exceeds the
highest rate of the history.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

BUCKET_S = 10
SHIFT_BUCKETS = 12
SHIFT = 2.0
"""A median of the last `SHIFT_BUCKETS` that differs from the level by more than this factor is a new level."""
LEAST_RATIOS = 12
"""With fewer ratios than these nothing is said."""

Rates = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """`rates` (requests/s, one mean a bucket, oldest first, NaN for what isn't known) and the `levels` known then.

    `steady`: for how many buckets there was no new level.
    """

    rates: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    steady: int = 0

    @classmethod
    def of(cls, rates: Iterable[float], *, level_s: float, keep_s: float) -> History:
        """The history that such rates leave."""
        made = cls()
        for rate in rates:
            made = made.add(rate, level_s=level_s, keep_s=keep_s)
        return made

    def add(self, rate: float, *, level_s: float, keep_s: float) -> History:
        """One more bucket; what is older than `keep_s` is forgotten."""
        keep = round(keep_s / BUCKET_S)
        rates = (*self.rates, rate)[-keep:]
        steady = self.steady + 1
        level = _mean(rates[-min(steady, max(SHIFT_BUCKETS, round(level_s / BUCKET_S))) :])
        recent = rates[-SHIFT_BUCKETS:]
        median = _median(recent)
        if steady > SHIFT_BUCKETS and not _near(median, level):
            steady = sum(1 for _ in takewhile(lambda rate: _near(rate, median), reversed(recent)))
            level = _mean(rates[-steady:]) if steady else median
        return History(rates, (*self.levels, level)[-keep:], steady)


EMPTY = History()


def _near(rate: float, level: float) -> bool:
    """Within the factor that a level may differ by; so is what isn't known."""
    return not (rate < level / SHIFT or rate > level * SHIFT)


def _mean(rates: tuple[float, ...]) -> float:
    """The mean of what is known, if that is at least half."""
    known = _known(rates)
    return sum(known) / len(known) if known else math.nan


def _median(rates: tuple[float, ...]) -> float:
    """The median of what is known, if that is at least half."""
    known = _known(rates)
    return statistics.median(known) if known else math.nan


def _known(rates: tuple[float, ...]) -> list[float]:
    known = [rate for rate in rates if not math.isnan(rate)]
    return known if 2 * len(known) >= len(rates) else []


def forecast(history: History, horizon_s: float) -> Rates:
    """The rates to be expected in `horizon_s`, equally likely, in requests/s; empty where too little is known."""
    ahead = math.ceil(horizon_s / BUCKET_S)
    if len(history.rates) < ahead + LEAST_RATIOS:
        return np.empty(0)
    rates, levels = np.asarray(history.rates), np.asarray(history.levels)
    later, before = rates[ahead:], levels[:-ahead]
    usable = (before > 0) & ~np.isnan(later)
    if np.isnan(levels[-1]) or usable.sum() < LEAST_RATIOS:
        return np.empty(0)
    return np.minimum(levels[-1] * later[usable] / before[usable], np.nanmax(rates))


def priced(needs: Rates, price: float) -> float:
    """The number of replicas at which the expected cost is least, of equally likely `needs` (replicas).

    The newsvendor's rule: `n` replicas cost n a second, and a second that needs more than n costs `price`.
    """
    ordered = np.sort(needs)
    more = 1 - np.arange(1, len(ordered) + 1) / len(ordered)
    return float(ordered[np.argmin(ordered + price * more)])


def headroom(
    history: History,
    *,
    horizon_s: float,
    price: float,
    replicas_for: Callable[[Rates], Rates],
) -> float:
    """How many replicas the history asks for; 0 where it says nothing or has no price."""
    if price == 0:
        return 0.0
    rates = forecast(history, horizon_s)
    return priced(replicas_for(rates), price) if len(rates) else 0.0
