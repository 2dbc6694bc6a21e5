"""What a number of requests proves of the share of them that fails: pure functions of counts.

Bounds are exact and one-sided (C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in
the case of the binomial", Biometrika 26, 1934). They take requests for independent, which those of a bad second aren't:
`clustered` draws whole blocks of seconds anew instead (H. R. Künsch, "The jackknife and the bootstrap for general
stationary observations", Annals of Statistics 17, 1989; circular, by D. N. Politis and J. P. Romano, 1992).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any, Final

from switchboard.requests import nearest_rank

CONFIDENCE: Final = 0.95
BLOCK_S: Final = 10
"""What fails together: the length of a fault that is over, and of what it leaves behind."""
DRAWS: Final = 2000
MOST_REQUESTS: Final = 10**12
SEED: Final = 20_260_101
"""The same run has the same bound."""


def at_most(failed: int, requests: int, confidence: float = CONFIDENCE) -> float:
    """The share of failures that is exceeded with a probability of `1 - confidence` at most; 1 if nothing is known."""
    _check(failed, requests, confidence)
    if failed == requests:
        return 1.0
    from scipy.special import betaincinv  # half a second of import

    return float(betaincinv(failed + 1, requests - failed, confidence))


def at_least(failed: int, requests: int, confidence: float = CONFIDENCE) -> float:
    """The share of failures that isn't reached with a probability of `1 - confidence` at most."""
    _check(failed, requests, confidence)
    if failed == 0:
        return 0.0
    from scipy.special import betaincinv

    return float(betaincinv(failed, requests - failed + 1, 1 - confidence))


def requests_for(availability: float, failures: int = 0, confidence: float = CONFIDENCE) -> int:
    """The fewest requests that prove `availability` with so many failures among them.

    Raises:
        ValueError: an availability or a confidence that isn't between 0 and 1, failures below 0, or a claim that takes
            more than MOST_REQUESTS.
    """
    if not 0 < availability < 1:
        raise ValueError(f"an availability of {availability:g} can't be proven: it must be between 0 and 1")
    _check(failures, failures, confidence)
    counts = range(failures, MOST_REQUESTS + 1)
    found = bisect.bisect_left(
        counts, True, key=lambda n: at_most(failures, n, confidence) <= 1 - availability
    )
    if found == len(counts):
        raise ValueError(f"an availability of {availability!r} takes more than {MOST_REQUESTS:.0e} requests")
    return counts[found]


def failures_for(availability: float, requests: int, confidence: float = CONFIDENCE) -> int | None:
    """The most failures among so many requests that still prove it; None where even none of them would."""
    too_many = bisect.bisect_left(
        range(requests + 1), True, key=lambda failed: at_most(failed, requests, confidence) > 1 - availability
    )
    return too_many - 1 if too_many else None


def clustered(
    failed: Sequence[int], requests: Sequence[int], confidence: float = CONFIDENCE, block_s: int = BLOCK_S
) -> tuple[float, float] | None:
    """The shares of failures that aren't reached, and that are exceeded, with a probability of about `1 - confidence`
    each, where what fails in the same `block_s` seconds fails together; of each second's failures and requests, in
    order.

    None where nothing has failed: what isn't there can't be drawn.
    """
    if len(failed) != len(requests):
        raise ValueError(f"failures of {len(failed)} seconds, requests of {len(requests)}")
    if not sum(failed):
        return None
    import numpy as np

    bad, all_of = (np.asarray(one, dtype=float) for one in (failed, requests))
    length = min(block_s, len(bad))
    # Of each block that begins at a second; the end goes on at the beginning, so that all seconds count the same.
    sums = [
        np.convolve(np.concatenate([one, one[: length - 1]]), np.ones(length), "valid")
        for one in (bad, all_of)
    ]
    random = np.random.default_rng(SEED)
    drawn = random.integers(0, len(bad), size=(DRAWS, math.ceil(len(bad) / length)))
    shares = sums[0][drawn].sum(axis=1) / np.maximum(sums[1][drawn].sum(axis=1), 1.0)
    least = np.quantile(shares, 1 - confidence, method="lower")
    return float(least), float(min(1.0, np.quantile(shares, confidence, method="higher")))


def more_at_most(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], percent: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """By how much a percentile of the first of each pair's values is above that of the second's, all pairs taken
    together; and what that exceeds with a probability of about `1 - confidence` at most, where pairs are drawn anew
    (what disturbs a machine for seconds disturbs a block of values, so that values can't be drawn by themselves).

    Raises:
        ValueError: fewer than two pairs, or one of nothing.
    """
    if len(pairs) < 2 or not all(first and second for first, second in pairs):
        raise ValueError("a bound of a difference takes two pairs of values at least")
    _check(0, 0, confidence)
    import numpy as np

    random = np.random.default_rng(SEED)
    drawn = [range(len(pairs)), *random.integers(0, len(pairs), size=(DRAWS, len(pairs)))]
    found = []
    for which in (0, 1):
        blocks = [np.asarray(pair[which], dtype=float) for pair in pairs]
        taken = (np.concatenate([blocks[number] for number in one]) for one in drawn)
        found.append([_percentile(values, percent) for values in taken])
    more = np.subtract(found[0], found[1])
    return float(more[0]), float(np.quantile(more[1:], confidence, method="higher"))


def _percentile(values: Any, percent: float) -> float:
    """As `switchboard.requests.percentile`, of an array that needs no order."""
    rank = nearest_rank(len(values), percent)
    values.partition(rank)
    return float(values[rank])


def _check(failed: int, requests: int, confidence: float) -> None:
    if not 0 <= failed <= requests:
        raise ValueError(f"{failed} of {requests} requests can't have failed")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"a confidence of {confidence:g} can't be: it must be from 0.5 to below 1")
