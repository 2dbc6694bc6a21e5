"""Figures with the interval that each can be trusted in: proportions, F1, calibration, quantiles, paired differences.

Pure functions of numbers. Texts of one template stand or fall together, so what is drawn anew in a bootstrap is a
cluster (a template, or a text that stands for itself), never a text. The seeds are fixed: the same results give the
same intervals, so that nothing that is decided by them depends on chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z95 = 1.959963984540054
BOOTSTRAPS = 1000
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Figure:
    """A value of `n` texts with its 95 % interval; with `n == 0` it is unknown: 0 in [0, 1].

    Without a unit it is a share, shown in percent.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = ""

    def shown(self) -> str:
        return self._text(self.value)

    def interval(self) -> str:
        return f"[{self._text(self.low)}, {self._text(self.high)}]"

    def _text(self, value: float) -> str:
        return f"{value:.3g} {self.unit}" if self.unit else f"{value:.1%}"

    def __str__(self) -> str:
        return f"{self.shown()} {self.interval()} (n={self.n})"


def proportion(results: Sequence[tuple[str, bool]]) -> Figure:
    """Of (cluster, success): Wilson's interval where each cluster has one result, else a bootstrap over clusters."""
    n = len(results)
    value = sum(success for _, success in results) / n if n else 0.0
    if len({cluster for cluster, _ in results}) == n:
        low, high = wilson(sum(success for _, success in results), n)
    else:
        low, high = cluster_bootstrap(results)
    return _figure(value, low, high, n)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927); (0, 1) where there is nothing."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == n else min(1.0, centre + half)


def cluster_bootstrap(
    results: Sequence[tuple[str, bool]], *, rounds: int = BOOTSTRAPS, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the proportion over clusters drawn with replacement.

    Where all results are alike the bootstrap would say that nothing is uncertain: then it is Wilson's over clusters.
    """
    import numpy as np

    table = cluster_sums([cluster for cluster, _ in results], [[success, 1.0] for _, success in results])
    if table[:, 0].sum() in (0, table[:, 1].sum()):
        return wilson(len(table) if table[:, 0].sum() else 0, len(table))
    totals = resampled(table, rounds=rounds, seed=seed)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def cluster_sums(clusters: Sequence[str], values: Sequence[Sequence[float]]) -> np.ndarray:
    """`values`, a row for each text, added up to a row for each cluster, in the order in which clusters appear."""
    import numpy as np

    index: dict[str, int] = {}
    rows = np.array([index.setdefault(cluster, len(index)) for cluster in clusters], dtype=np.intp)
    table = np.zeros((len(index), len(values[0]) if values else 0))
    if values:
        np.add.at(table, rows, np.asarray(values, dtype=float))
    return table


def resampled(table: np.ndarray, *, rounds: int = BOOTSTRAPS, seed: int = 0) -> np.ndarray:
    """Sums over clusters drawn with replacement, as many as there are: shape (rounds, columns)."""
    import numpy as np

    clusters = len(table)
    drawn = np.random.default_rng(seed).integers(0, clusters, size=(rounds, clusters))
    places = (drawn + clusters * np.arange(rounds)[:, None]).ravel()
    counts = np.bincount(places, minlength=rounds * clusters).reshape(rounds, clusters)
    return counts.astype(float) @ table


def bootstrapped(
    clusters: Sequence[str],
    values: Sequence[Sequence[float]],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """A statistic of sums over texts, `statistic(sums of shape (…, columns)) -> (…)`, with its interval.

    The interval is the basic one (twice the value less the bootstrap's points, within `bounds`), which takes off what
    resampling itself adds to a statistic such as a calibration error; it always holds the value.
    """
    import numpy as np

    n = len(values)
    if n == 0:
        return Figure(0.0, *bounds, 0)
    table = cluster_sums(clusters, values)
    value = float(statistic(table.sum(axis=0)))
    low, high = np.quantile(statistic(resampled(table)), (0.025, 0.975))
    low, high = 2 * value - float(high), 2 * value - float(low)
    return _figure(value, max(bounds[0], min(low, value)), min(bounds[1], max(high, value)), n)


def macro_f1(
    clusters: Sequence[str], wanted: Sequence[str], best: Sequence[str], of: Sequence[str]
) -> Figure:
    """The mean F1 of the classes `of`: 2 · right / (wanted + taken for it); one that is never either is left out."""
    import numpy as np

    values = [
        [x for name in of for x in (float(w == name == b), float(w == name) + float(b == name))]
        for w, b in zip(wanted, best, strict=True)
    ]

    def statistic(sums: np.ndarray) -> np.ndarray:
        right, total = sums[..., 0::2], sums[..., 1::2]
        there = total > 0
        each = np.divide(2 * right, total, out=np.zeros_like(right), where=there)
        return each.sum(axis=-1) / np.maximum(1, there.sum(axis=-1))

    return bootstrapped(clusters, values if of else [], statistic)


def calibration_error(clusters: Sequence[str], confidence: Sequence[float], right: Sequence[bool]) -> Figure:
    """Expected calibration error of the best class (Naeini et al., 2015), in ten bins of equal width.

    It is the mean over texts of the distance, within their bin, between mean confidence and share of right ones. In
    trials with 300 texts its interval held the true value in 88 to 92 of 100 cases, with 1,000 texts in 94.
    """
    import numpy as np

    values = [[0.0] * CALIBRATION_BINS + [1.0] for _ in right]
    for row, (sure, is_right) in enumerate(zip(confidence, right, strict=True)):
        values[row][min(int(sure * CALIBRATION_BINS), CALIBRATION_BINS - 1)] = sure - is_right

    def statistic(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]

    return bootstrapped(clusters, values, statistic)


def brier(clusters: Sequence[str], confidence: Sequence[float], right: Sequence[bool]) -> Figure:
    """Brier's score of the best class: the mean of (confidence - right)²; 0.25 is what knowing nothing gets."""
    values = [[(sure - is_right) ** 2, 1.0] for sure, is_right in zip(confidence, right, strict=True)]
    return bootstrapped(clusters, values, lambda sums: sums[..., 0] / sums[..., 1])


def quantile(values: Sequence[float], q: float, *, unit: str) -> Figure:
    """A quantile with the interval that its order statistics give, whatever the distribution (W. J. Conover, 1999).

    Where there are too few values for a bound it is the smallest or the largest of them.
    """
    from scipy.stats import binom

    n = len(values)
    if n == 0:
        return Figure(0.0, 0.0, 1.0, 0, unit)
    ordered = sorted(values)

    def at(rank: float) -> float:
        return float(ordered[min(n - 1, max(0, int(rank)))])

    value = at(math.ceil(q * n) - 1)
    low, high = at(binom.ppf(0.025, n, q) - 1), at(binom.ppf(0.975, n, q))
    return _figure(value, min(low, value), max(high, value), n, unit)


@dataclass(frozen=True)
class Paired:
    """One less the other on the same `n` texts: the difference of the shares, and one-sided bounds on it.

    `low` and `high` are each exceeded on their side with probability `1 - confidence` only.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float

    def __str__(self) -> str:
        points = f"{self.value * 100:+.1f} points [{self.low * 100:+.1f}, {self.high * 100:+.1f}]"
        return f"{points} (n={self.n})"


def paired(
    clusters: Sequence[str], one: Sequence[bool], other: Sequence[bool], *, confidence: float
) -> Paired:
    """`one` less `other`, text by text; the bounds come from a bootstrap over clusters.

    Two results that never differ are as equal as so many clusters can show: the bound is then the rule of three's,
    the rate of differences at which none would be seen with probability `1 - confidence`. For few clusters it is
    added to the bootstrap, which knows nothing of differences that were not drawn.

    Raises:
        ValueError: the three differ in length.
    """
    import numpy as np

    rows = [[float(a) - float(b), 1.0] for a, b in zip(one, other, strict=True)]
    if len(rows) != len(clusters):
        raise ValueError("a cluster for each text is needed")
    if not rows:
        return Paired(0.0, -1.0, 1.0, 0, confidence)
    table = cluster_sums(clusters, rows)
    value = float(table[:, 0].sum() / table[:, 1].sum())
    unseen = 1.0 - (1.0 - confidence) ** (1.0 / len(table))
    differ = np.count_nonzero(table[:, 0])
    if differ == 0:
        return Paired(value, max(-1.0, -unseen), min(1.0, unseen), len(rows), confidence)
    totals = resampled(table, rounds=4 * BOOTSTRAPS)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (1.0 - confidence, confidence))
    if differ < 5:
        low, high = min(low, value - unseen), max(high, value + unseen)
    return Paired(
        round(value, 4),
        round(max(-1.0, float(low)), 4),
        round(min(1.0, float(high)), 4),
        len(rows),
        confidence,
    )


def _figure(value: float, low: float, high: float, n: int, unit: str = "") -> Figure:
    return Figure(round(value, 4), round(low, 4), round(high, 4), n, unit)
