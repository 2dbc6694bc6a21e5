"""How strongly counts speak for harm, and against it: the statistics of the judge, as pure functions of arrays.

A block is a stretch of seconds in which candidate and champion were asked side by side. In it the candidate had `x`
events among `n` requests, the champion `y` among `m`. For a ratio `r` between the two rates,

    log e_r = x·log(r/R) − y·log(R) + n·t·(1 − r/R),    R = (r·n + m) / (n + m)

has E[e_r] <= 1 whatever the champion's rate is in this block, as long as the candidate's is at most the champion's plus
`t` (for r > 1), or at least that (for r < 1): since E[exp(a·X)] <= exp(n·p·(e^a − 1)) for a sum of n events of mean p,
and the champion's rate drops out. (For t = 0 it is the likelihood ratio of the binomial of x among x + y.) So a bad
hour that hits both arms says nothing, however bad it is. Products over blocks are test supermartingales, hence by
Ville's inequality (Ville 1939; Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference") the
chance that such a product, or a mixture of them, ever exceeds 1/α is at most α: a judge may look as often as it likes.

Pods differ though nothing is wrong with any: nodes, caches, the sessions that stuck to them. A candidate of few pods
may be unlucky for hours. So harm is weighed against a null in which the candidate's ratio is drawn anew with the spread
that the champion's own pods show, from before the release on (`spread_of_pods`), and against the null of no difference
at all, whichever explains more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]
Counts = Array | float

HARM: Array = np.exp2(np.linspace(-2.0, 5.0, 57))
"""Ratios between the candidate's rate and the champion's that harm is looked for at, from a quarter to 32."""
SAFE: Array = np.concatenate([[0.0], np.exp2(np.linspace(-6.0, 0.0, 33)[:-1])])
"""Ratios below one: what each of them gains while the candidate stays below the margin."""
USUAL_SPREAD, MOST_SPREAD = 0.1, 1.0
"""Pods differ by so much at the least; where nothing has been seen of them, by just as much."""
UNSURE_OF_SPREAD, USUAL_SURE = 0.05, 3.0
"""How far the variance between pods may well be from that, and its degrees of freedom, before any has been seen."""
AS_GOOD_AS_NORMAL = 1e9
"""Degrees of freedom."""
LEAST_HARM, MOST_USUAL = 1.3, 4.0
"""Less than the first is not called harm; more than the second is never pods that differ."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What has been seen of one metric: `harm[j]` and `safe[j]` are the sums of log e over all blocks at the ratios
    `HARM[j]` and `SAFE[j]`. A sufficient summary, so it may be stored and gone on from."""

    harm: Array
    safe: Array

    @staticmethod
    def empty(shape: tuple[int, ...] = ()) -> Tally:
        return Tally(np.zeros((*shape, len(HARM))), np.zeros((*shape, len(SAFE))))

    def add(self, x: Counts, n: Counts, y: Counts, m: Counts, *, tolerated: float, margin: float) -> Tally:
        """With one more block; blocks without candidate or champion say nothing.

        Args:
            x, n: the candidate's events and requests (or seconds of pods), of the shape that the tally was made for.
            y, m: the champion's.
            tolerated: so much more than the champion's rate is no harm yet.
            margin: so much more must be excluded before a promotion.
        """
        return Tally(
            self.harm + log_e(x, n, y, m, HARM, tolerated),
            self.safe + log_e(x, n, y, m, SAFE, margin),
        )


def log_e(x: Counts, n: Counts, y: Counts, m: Counts, ratios: Array, slack: float) -> Array:
    """log e_r of a block for each ratio, along a new last axis; 0 where an arm had nothing to do."""
    x, n, y, m = (np.asarray(one, dtype=np.float64)[..., None] for one in (x, n, y, m))
    both = (n > 0) & (m > 0)
    n, m = np.where(both, n, 1.0), np.where(both, m, 1.0)
    larger = (ratios * n + m) / (n + m)
    tilt = ratios / larger
    with np.errstate(divide="ignore", invalid="ignore"):
        mine = np.where(x > 0, x * np.log(tilt), 0.0)  # at the ratio 0 any event is impossible
    found: Array = np.where(both, mine - y * np.log(larger) + n * slack * (1.0 - tilt), 0.0)
    return found


def log_harm(tally: Tally, spread: Array | float, sure: Array | float = math.inf) -> Array:
    """log of the evidence for harm, whose exponential exceeds 1/α with a chance of at most α where there is none.

    Args:
        spread: the standard deviation of the logarithm of the candidate's rate that is usual for its number of pods.
        sure: the degrees of freedom of that.
    """
    explained = np.maximum(logsumexp(tally.harm + _usual(spread, sure), axis=-1), 0.0)
    found: Array = logsumexp(tally.harm + _worse(), axis=-1) - explained
    return found


def log_safe(tally: Tally, quiet: float = 1 / len(SAFE)) -> Array:
    """log of the evidence that the candidate's rate is less than the champion's plus the margin.

    `quiet`: the weight of the ratio 0 among SAFE. Of an event that a good candidate never has, more of it excludes harm
    sooner; of one that both have, it is lost.
    """
    weights = np.full(len(SAFE), (1 - quiet) / (len(SAFE) - 1))
    weights[0] = quiet
    found: Array = logsumexp(tally.safe, axis=-1, b=weights)
    return found


def _usual(spread: Array | float, sure: Array | float) -> Array:
    if np.ndim(spread) == np.ndim(sure) == 0:
        return _usual_of_one(float(spread), float(sure))
    return _usual_of(spread, sure)


@lru_cache(maxsize=64)
def _usual_of_one(spread: float, sure: float) -> Array:
    """A plan asks for the same thousands of times."""
    found = _usual_of(spread, sure)
    found.setflags(write=False)
    return found


def _usual_of(spread: Array | float, sure: Array | float) -> Array:
    """Log weights of the ratios where nothing is wrong; with Student's tails, since the spread is an estimate, up to
    MOST_USUAL. (scipy.stats has his density, and takes seconds and tens of megabytes to import.)"""
    steps = np.log(HARM)
    scale = np.maximum(np.asarray(spread, dtype=np.float64), (steps[1] - steps[0]) / 2)[..., None]
    freedom = np.minimum(np.asarray(sure, dtype=np.float64), AS_GOOD_AS_NORMAL)[..., None]
    weights = -(freedom + 1) / 2 * np.log1p((steps / scale) ** 2 / freedom)
    weights = np.where(HARM <= MOST_USUAL, weights, -np.inf)
    found: Array = weights - logsumexp(weights, axis=-1, keepdims=True)
    return found


@cache
def _worse() -> Array:
    """Log weights of the ratios that are harm: most around twice, where minutes matter, and a tenth of them anywhere;
    none below LEAST_HARM."""
    harm = LEAST_HARM <= HARM
    around = np.where(harm, np.exp(-(((np.log(HARM) - math.log(2.2)) / 0.6) ** 2) / 2), 0.0)
    weights = 0.9 * around / around.sum() + 0.1 * harm / harm.sum()
    with np.errstate(divide="ignore"):
        found: Array = np.log(weights)
    return found


def between_arms(candidate_pods: int, champion_pods: int) -> float:
    """How much of the pods' spread is left between the means of so many of them, all asked the same."""
    return math.sqrt(1 / candidate_pods + 1 / champion_pods)


def spread_of_pods(events: Array, expected: Array) -> tuple[Array, Array]:
    """The standard deviation of the logarithm of pods' rates beyond what chance gives, along the last axis, and its
    degrees of freedom.

    By moments: a pod's events have the variance E + (spread·E)², with E what is expected of it. A few events settle
    nothing: what is usual counts for as much as it is surer than what was seen. But it says nothing for a spread beyond
    it, so its degrees of freedom count by its part of the variance. (With all of them ten pods that differ by 30 %
    would be believed like thirteen, and a sixth more of the candidates that are as good be aborted.)

    Args:
        events: what each of the champion's warm pods has had.
        expected: what it would have had at all pods' rate in the same minutes; 0 where there was no such pod.
    """
    everybody = np.maximum(expected.sum(axis=-1, keepdims=True), 1e-12)
    pods = np.maximum((expected > 0).sum(axis=-1), 1)
    weight = np.maximum((expected**2).sum(axis=-1), 1e-12)
    # The mean of all pods is their own, so each strays less from it: by the share that it is of them.
    chance = expected * (1 - expected / everybody)
    beyond = ((events - expected) ** 2 - chance).sum(axis=-1)
    shown = np.maximum(0.0, beyond / (weight * np.maximum(1 - 1 / pods, 0.5)))
    trust = np.where(
        pods > 1, 1 / (1 + 2 / weight / UNSURE_OF_SPREAD**2), 0.0
    )  # 2/weight: its variance by chance
    variance = np.clip(trust * shown + (1 - trust) * USUAL_SPREAD**2, USUAL_SPREAD**2, MOST_SPREAD**2)
    return np.sqrt(variance), USUAL_SURE * USUAL_SPREAD**2 / variance + trust * (pods - 1)
