"""A server's own history of rates, and what it says about the near future.

Rates are kept as means of `BUCKET_S` seconds, each with the level (the mean of some minutes) that was known then. The
forecast at horizon h is the level of now times the ratios that were seen h after such levels before: an empirical
distribution, which knows bursts, noise and trends as far as they have happened, and nothing else. It exceeds the
highest rate of the history only where a trend does. It is checked against what came: where the last half hour was
above it too often, what was before no longer counts.

An operator holds one history for each of its servers, so they are small (8 bytes a bucket), and none is changed once
it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BUCKET_S = 10
SHIFT_BUCKETS = 12
SHIFT = 2.0
"""A median of the last `SHIFT_BUCKETS` that differs from the level by more than this factor is a new level."""
LEAST_RATIOS = 12
"""With fewer ratios than these nothing is said."""
MOST = 1e9
"""No model server has so many requests, waiting or in a second."""

TREND_BUCKETS = 60
"""A trend is what two stretches of so many buckets, one after the other, have in common."""
MOST_TREND = 1.1

RECENT_BUCKETS = 180
"""So many ratios are compared with those before them."""
ALIKE = 12
"""Neighbouring ratios share most of their traffic: so many count as one that is independent."""
SIGMAS = 2.0
"""A forecast doesn't cover what came from so many standard deviations on."""

Rates = NDArray[np.float64]
Kept = NDArray[np.float32]


def _none() -> Kept:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """`rates` (requests/s, one mean a bucket, oldest first, NaN for what isn't known) and the `levels` known then.

    `steady`: for how many buckets there was no new level.
    """

    rates: Kept = field(default_factory=_none)
    levels: Kept = field(default_factory=_none)
    steady: int = 0

    @classmethod
    def of(cls, rates: Iterable[float], *, level_s: float, keep_s: float) -> History:
        """The history that such rates leave."""
        return cls().extend(rates, level_s=level_s, keep_s=keep_s)

    def add(self, rate: float, *, level_s: float, keep_s: float) -> History:
        """One more bucket; what is older than `keep_s` is forgotten."""
        return self.extend((rate,), level_s=level_s, keep_s=keep_s)

    def extend(self, more: Iterable[float], *, level_s: float, keep_s: float) -> History:
        """More buckets, as if one after the other."""
        new = np.fromiter(more, np.float32)
        if not len(new):
            return self
        new[~((new >= 0) & (new <= MOST))] = math.nan
        keep = round(keep_s / BUCKET_S)
        span = min(keep, max(SHIFT_BUCKETS, round(level_s / BUCKET_S)))
        before = min(len(self.rates), max(span, keep - len(new)))
        rates = np.concatenate((self.rates[len(self.rates) - before :], new))
        seen = rates[max(0, before - span) :]
        if len(new) == 1:
            level, steady = _level(seen, self.steady, span)
            levels = np.full(1, level, np.float32)
        else:
            levels, steady = _levels(seen, len(new), self.steady, span)
        levels = np.concatenate((self.levels[len(self.levels) - before :], levels))
        return History(rates[-keep:].copy(), levels[-keep:].copy(), steady)


EMPTY = History()


def _levels(rates: Kept, new: int, steady: int, span: int) -> tuple[Kept, int]:
    """The levels of the `new` last ones of these rates, and for how long the last of them is one level.

    A level is the mean of `span` rates, or of as many as there are since it was a new one.
    """
    known = ~np.isnan(rates)
    sums = np.concatenate(((0.0,), np.cumsum(np.where(known, rates, 0), dtype=np.float64)))
    counts = np.concatenate(((0,), np.cumsum(known)))

    def means(ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rates:
        starts = np.maximum(ends - lengths, 0)
        count = counts[ends] - counts[starts]
        mean = (sums[ends] - sums[starts]) / np.maximum(count, 1)
        return np.where(2 * count >= np.maximum(lengths, 1), mean, math.nan)

    ends = np.arange(len(rates) - new + 1, len(rates) + 1)
    medians, levels = _medians(rates, ends), np.empty(new, np.float32)
    at = 0
    while at < new:
        lasting = np.arange(steady + 1, steady + 1 + new - at)
        found = means(ends[at:], np.minimum(lasting, span))
        other = (lasting > SHIFT_BUCKETS) & ~_near(medians[at:], found)
        until = int(np.argmax(other)) if other.any() else new - at
        levels[at : at + until] = found[:until]
        at, steady = at + until, steady + until
        if at < new:
            end, median = ends[at], medians[at]
            unlike = ~_near(rates[max(0, end - SHIFT_BUCKETS) : end][::-1], median)
            steady = int(np.argmax(unlike)) if unlike.any() else len(unlike)
            levels[at] = means(ends[at : at + 1], np.full(1, steady))[0] if steady else median
            at += 1
    return levels, steady


def _level(rates: Kept, steady: int, span: int) -> tuple[float, int]:
    """What `_levels` says of one more rate: thousands of servers add a bucket at a time, which numpy is slow at."""
    latest = rates[-SHIFT_BUCKETS:].tolist()
    known = sorted(rate for rate in latest if rate == rate)
    median = math.nan
    if 2 * len(known) >= SHIFT_BUCKETS:
        median = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    steady += 1
    level = _mean(rates, min(steady, span))
    if steady <= SHIFT_BUCKETS or _is_near(median, level):
        return level, steady
    steady = next(
        (back for back, rate in enumerate(reversed(latest)) if not _is_near(rate, median)), len(latest)
    )
    return _mean(rates, steady) if steady else median, steady


def _mean(rates: Kept, length: int) -> float:
    """Of so many last ones, of what is known, if that is at least half."""
    window = rates[-length:]
    known = window[~np.isnan(window)]
    return float(known.mean(dtype=np.float64)) if 2 * len(known) >= length else math.nan


def _is_near(rate: float, level: float) -> bool:
    return not (rate < level / SHIFT or rate > level * SHIFT)


def _near(rates: Kept | Rates, levels: Rates) -> NDArray[np.bool_]:
    """Within the factor that a level may differ by; so is what isn't known."""
    return ~((rates < levels / SHIFT) | (rates > levels * SHIFT))


def _medians(rates: Kept, ends: NDArray[np.int64]) -> Rates:
    """The medians of the `SHIFT_BUCKETS` before each end, of what is known, if that is at least half."""
    ahead = np.full(SHIFT_BUCKETS - 1, math.nan, np.float32)
    windows = np.sort(sliding_window_view(np.concatenate((ahead, rates)), SHIFT_BUCKETS)[ends - 1], axis=1)
    count = (~np.isnan(windows)).sum(axis=1)
    row = np.arange(len(ends))
    low, high = windows[row, np.maximum(count - 1, 0) // 2], windows[row, count // 2 % SHIFT_BUCKETS]
    return np.where(2 * count >= SHIFT_BUCKETS, (low + high.astype(np.float64)) / 2, math.nan)


def forecast(history: History, horizon_s: float) -> Rates:
    """The rates to be expected in `horizon_s`, equally likely, in requests/s; empty where too little is known."""
    ahead = max(1, math.ceil(horizon_s / BUCKET_S))
    if len(history.rates) < ahead + LEAST_RATIOS:
        return np.empty(0)
    rates, levels = history.rates, history.levels
    later, before = rates[ahead:], levels[:-ahead]
    usable = (before > 0) & ~np.isnan(later)
    if np.isnan(levels[-1]) or usable.sum() < LEAST_RATIOS:
        return np.empty(0)
    ratios = np.divide(later[usable], before[usable], dtype=np.float64)
    earlier, recent = ratios[:-RECENT_BUCKETS], ratios[-RECENT_BUCKETS:]
    if not covers(earlier, recent):
        ratios = recent
    most = float(np.fmax.reduce(rates)) * trend(history, ahead)
    return np.minimum(ratios * levels[-1], most)


def trend(history: History, ahead: int) -> float:
    """By how much the rate grows in `ahead` buckets, if it goes on as in both of the last two stretches; at least 1.

    Noise seldom grows twice, and a burst is a new level, of which nothing is known yet.
    """
    if history.steady < 2 * TREND_BUCKETS + SHIFT_BUCKETS or len(history.levels) <= 2 * TREND_BUCKETS:
        return 1.0
    first, second, now = (float(history.levels[-1 - back]) for back in (2 * TREND_BUCKETS, TREND_BUCKETS, 0))
    grown = (second - first, now - second)
    if not all(one > 0 for one in grown):  # nor where one isn't known
        return 1.0
    return min(MOST_TREND, 1 + min(grown) / TREND_BUCKETS * ahead / now)


def covers(earlier: Rates, recent: Rates) -> bool:
    """Whether the `recent` ratios were as the `earlier` ones foretold: a tenth above their 90th percentile, not more.

    That fewer were above it costs replicas and no customers, and is no sign yet: in waves of an hour it's always so on
    the way down.
    """
    if len(recent) < RECENT_BUCKETS // 2 or len(earlier) < TREND_BUCKETS:
        return True
    tenth = len(earlier) * 9 // 10
    above = np.count_nonzero(recent > np.partition(earlier, tenth)[tenth]) / len(recent)
    return bool(above <= 0.1 + SIGMAS * math.sqrt(0.1 * 0.9 * ALIKE / len(recent)))


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
