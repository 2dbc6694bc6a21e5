"""The judge's evidence against a published implementation: savvi's test of a canary release, by Lindon and Malek (2022,
"Anytime-valid inference for multinomial count data").

An event that is counted is the candidate's with a chance that depends on the ratio of the rates alone. Theirs is a test
of that chance, mixed over a beta distribution, whose integral has a closed form. Ours is the same likelihood, where
nothing is tolerated, mixed over the ratios that are harm. So with their mixture it is to be their number; with its own
it is to come to the same verdicts, about as soon.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from savvi.multinomial import InhomogeneousPoissonProcess
from scipy.special import logsumexp
from scipy.stats import beta

from operators.canary.evidence import USUAL_SPREAD, USUAL_SURE, Array, Tally, between_arms, log_e, log_harm

ALPHA, WEIGHT, SURE = 0.05, 0.1, 100.0
"""`SURE`: how narrow their mixture is, as events seen before any; it is what they use where nothing is said."""
REQUESTS = 1000
CANDIDATES, CHAMPIONS = REQUESTS * WEIGHT, REQUESTS * (1 - WEIGHT)
RATE = 0.005
"""The champion's."""


def published() -> InhomogeneousPoissonProcess:
    arms, difference = np.array([WEIGHT, 1 - WEIGHT]), np.array([[1.0, -1.0]])
    return InhomogeneousPoissonProcess(ALPHA, arms, difference, SURE)


def blocks(times: float) -> list[tuple[int, int, int]]:
    """Of a release: the candidate's events and requests, the champion's events. Traffic and rates come and go."""
    random = np.random.default_rng(3)
    found = []
    for number in range(30):
        requests, rate = int(random.integers(20, 200)), RATE * (10 if 10 <= number < 20 else 1)
        found.append(
            (int(random.binomial(requests, rate * times)), requests, int(random.binomial(9 * requests, rate)))
        )
    return found


def ours(seen: list[tuple[int, int, int]], ratios: Array) -> Array:
    """The logarithm of the evidence for each ratio."""
    found = np.zeros(len(ratios))
    for x, n, y in seen:
        found += log_e(float(x), float(n), float(y), 9.0 * n, ratios, 0.0)
    return found


RATIOS: Array = np.exp(np.linspace(-5, 5, 10_001))


def their_mixture() -> Array:
    """Log weights of `RATIOS`, under which the candidate's chance has their beta distribution."""
    chance = RATIOS * WEIGHT / (RATIOS * WEIGHT + 1 - WEIGHT)
    density = beta.logpdf(chance, SURE * WEIGHT, SURE * (1 - WEIGHT)) + np.log(chance * (1 - chance))
    found: Array = density - logsumexp(density)
    return found


@pytest.mark.parametrize("times", [0.3, 1.0, 2.0, 6.0])
@pytest.mark.parametrize("seen", [1, 10, 30])
def test_over_their_mixture_it_is_their_number(times: float, seen: int) -> None:
    release, theirs = blocks(times)[:seen], published()
    for x, _, y in release:
        theirs.update(np.array([x, y]))
    evidence = logsumexp(ours(release, RATIOS) + their_mixture())
    assert evidence == pytest.approx(math.log(theirs.odds), abs=1e-9)


@pytest.mark.parametrize("times", [0.3, 1.0, 2.0, 6.0])
def test_the_ratios_that_it_leaves_are_their_confidence_sequence(times: float) -> None:
    """A ratio is excluded once the mixture is 1/α times as likely."""
    release, theirs = blocks(times), published()
    for x, _, y in release:
        theirs.update(np.array([x, y]))
    evidence = ours(release, RATIOS)
    left = RATIOS[logsumexp(evidence + their_mixture()) - evidence <= -math.log(ALPHA)]
    assert np.log(left[[0, -1]]) == pytest.approx(theirs.calculate_conf_int()[0], abs=3e-3)


def shown_after(times: float, looks: int, releases: int, alphas: tuple[float, ...]) -> tuple[Array, Array]:
    """The look at which either shows that the candidate differs, ours as the judge weighs it; infinite: at none.

    Pods differ by what is usual, of which as much is known as of ten. In the middle third of the looks ten times as
    many requests fail, of both arms. Shape (alphas, releases).
    """
    random = np.random.default_rng(4)
    spread, sure = USUAL_SPREAD * between_arms(2, 10), USUAL_SURE + 9
    tally, theirs = Tally.empty((releases,)), [published() for _ in range(releases)]
    bounds = -np.log(alphas)[:, None]
    found = np.full((2, len(alphas), releases), math.inf)
    for look in range(1, looks + 1):
        rate = RATE * (10 if looks < 3 * look <= 2 * looks else 1)
        x = random.binomial(round(CANDIDATES), rate * times, releases).astype(float)
        y = random.binomial(round(CHAMPIONS), rate, releases).astype(float)
        tally = tally.add(x, CANDIDATES, y, CHAMPIONS, tolerated=0.0, margin=RATE)
        for release, one in enumerate(theirs):
            one.update(np.array([x[release], y[release]], dtype=np.int64))
        evidence = (log_harm(tally, spread, sure), -np.log([one.calculate_p_value() for one in theirs]))
        for judge, strength in zip(found, evidence, strict=True):
            judge[(strength >= bounds) & np.isinf(judge)] = look
    return found[0], found[1]


@pytest.mark.parametrize(
    ("times", "looks", "least", "most"),
    [
        (1.5, 180, 0.7, 1.3),  # pods may differ by almost so much, which theirs doesn't know
        (2.0, 90, 0.4, 0.9),
        (4.0, 30, 0.25, 0.75),
        (10.0, 15, 0.25, 0.75),  # theirs expects a ratio near one, and looks both ways
    ],
)
def test_harm_is_shown_about_as_soon(times: float, looks: int, least: float, most: float) -> None:
    mine, theirs = shown_after(times, looks, 200, (ALPHA,))
    assert np.isfinite(mine).mean() >= 0.95 and np.isfinite(theirs).mean() >= 0.95
    assert least <= np.median(mine) / np.median(theirs) <= most


def test_no_harm_is_shown_as_seldom_as_either_says() -> None:
    """However often they look, and through an incident that hits both arms."""
    alphas, releases = (0.2, 0.05, 0.01), 500
    for shown in shown_after(1.0, 90, releases, alphas):
        for alpha, after in zip(alphas, shown, strict=True):
            assert np.isfinite(after).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / releases)
