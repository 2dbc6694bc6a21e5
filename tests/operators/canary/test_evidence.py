"""What the judge's statistics promise: evidence that is as strong as it looks, whatever befalls both arms."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, t

from operators.canary import evidence
from operators.canary.evidence import (
    HARM,
    SAFE,
    USUAL_SPREAD,
    Tally,
    log_e,
    log_harm,
    log_safe,
    spread_of_pods,
)
from switchboard.paths import ROOT


def expectation(p: float, n: int, q: float, m: int, ratio: float, slack: float) -> float:
    """E[e_r], exactly: over all that candidate (n requests of rate p) and champion (m of rate q) may count."""
    x, y = np.meshgrid(np.arange(n + 1), np.arange(m + 1), indexing="ij")
    chance = np.outer(binom.pmf(np.arange(n + 1), n, p), binom.pmf(np.arange(m + 1), m, q))
    found = np.exp(log_e(x.astype(float), float(n), y.astype(float), float(m), np.array([ratio]), slack))
    return float((chance * found[..., 0]).sum())


def thousandths(most: int) -> st.SearchStrategy[float]:
    """scipy's binomial fails at the smallest numbers that there are."""
    return st.integers(0, most).map(lambda number: number / 1000)


rates = thousandths(600)
requests = st.integers(1, 25)


@given(rates, requests, requests, thousandths(300), thousandths(1000), st.sampled_from(list(HARM[HARM >= 1])))
def test_harm_is_not_shown_where_there_is_none(
    q: float, n: int, m: int, tolerated: float, worse: float, ratio: float
) -> None:
    """Whatever the champion's rate is, and anywhere up to what is tolerated more."""
    assert expectation(q + tolerated * worse, n, q, m, ratio, tolerated) <= 1 + 1e-9


@given(rates, requests, requests, thousandths(300), thousandths(100), st.sampled_from(list(SAFE[1:])))
def test_safety_is_not_shown_where_there_is_harm(
    q: float, n: int, m: int, margin: float, more: float, ratio: float
) -> None:
    assert expectation(q + margin + more, n, q, m, ratio, margin) <= 1 + 1e-9


@pytest.mark.parametrize(("x", "n", "y", "m"), [(3, 100, 4, 900), (0, 50, 7, 450), (12, 300, 20, 300)])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 8.0])
def test_without_slack_it_is_the_likelihood_ratio_of_the_binomial(
    x: int, n: int, y: int, m: int, ratio: float
) -> None:
    found = log_e(float(x), float(n), float(y), float(m), np.array([ratio]), 0.0)[0]
    worse, same = ratio * n / (ratio * n + m), n / (n + m)
    assert found == pytest.approx(binom.logpmf(x, x + y, worse) - binom.logpmf(x, x + y, same))


def test_a_block_with_one_arm_alone_says_nothing() -> None:
    for n, m in ((0.0, 100.0), (100.0, 0.0), (0.0, 0.0)):
        assert not log_e(0.0, n, 0.0, m, HARM, 0.0).any()


def test_with_no_event_in_either_arm_safety_grows_by_the_margin() -> None:
    tally = Tally.empty().add(0.0, 1000.0, 0.0, 9000.0, tolerated=0.0, margin=0.005)
    assert tally.safe[0] == pytest.approx(1000 * 0.005)
    assert log_safe(tally) < tally.safe[0]
    assert log_harm(tally, USUAL_SPREAD) == pytest.approx(0)


def test_an_event_of_the_candidates_is_impossible_at_the_ratio_zero_alone() -> None:
    tally = Tally.empty().add(1.0, 1000.0, 0.0, 9000.0, tolerated=0.0, margin=0.005)
    assert np.isneginf(tally.safe[0]) and np.isfinite(tally.safe[1:]).all()
    assert math.isfinite(log_safe(tally))


def test_an_incident_that_hits_both_arms_is_no_harm() -> None:
    """Half of all requests fail for a while, of both arms."""
    tally = Tally.empty().add(500.0, 1000.0, 4500.0, 9000.0, tolerated=0.0, margin=0.005)
    assert log_harm(tally, USUAL_SPREAD) < 0.1


@pytest.mark.parametrize("spread", [0.2, 0.3])
def test_a_candidate_within_the_pods_own_spread_is_no_harm(spread: float) -> None:
    """Two standard deviations up, and so many events that chance is no answer."""
    times = math.exp(2 * spread)
    tally = Tally.empty().add(1000.0 * times, 1e5, 9000.0, 9e5, tolerated=0.0, margin=0.005)
    assert log_harm(tally, spread) < math.log(20)
    assert log_harm(tally, 0.02) > math.log(100), "pods that don't differ would make it one"


def test_evidence_that_is_looked_at_all_the_time_errs_as_seldom_as_it_says() -> None:
    """Ville's inequality, on 1,500 releases that look 150 times each: at most α of them ever exceed 1/α."""
    random = np.random.default_rng(1)
    size, rate = 1500, 0.02
    harm, safe = np.zeros(size), np.zeros(size)
    tally = Tally.empty((size,))
    for _ in range(150):
        x, y = (random.binomial(n, rate, size).astype(float) for n in (50, 450))
        tally = tally.add(x, np.full(size, 50.0), y, np.full(size, 450.0), tolerated=0.0, margin=0.01)
        harm = np.maximum(harm, log_harm(tally, USUAL_SPREAD))
    worse = Tally.empty((size,))
    for _ in range(150):
        x, y = (random.binomial(n, p, size).astype(float) for n, p in ((50, rate + 0.01), (450, rate)))
        worse = worse.add(x, np.full(size, 50.0), y, np.full(size, 450.0), tolerated=0.0, margin=0.01)
        safe = np.maximum(safe, log_safe(worse))
    for alpha in (0.2, 0.05, 0.01):
        most = alpha + 3 * math.sqrt(alpha * (1 - alpha) / size)
        assert (harm >= -math.log(alpha)).mean() <= most
        assert (safe >= -math.log(alpha)).mean() <= most


@pytest.mark.parametrize("spread", [0.15, 0.3, 0.6])
def test_the_spread_of_pods_is_found(spread: float) -> None:
    random = np.random.default_rng(2)
    expected = np.full((2000, 10), 400.0)
    events = random.poisson(expected * np.exp(random.normal(-(spread**2) / 2, spread, expected.shape)))
    pooled = events.sum(axis=1, keepdims=True) / 10
    found, sure = spread_of_pods(events.astype(float), np.broadcast_to(pooled, events.shape))
    assert np.median(found) == pytest.approx(spread, rel=0.15)
    usual = evidence.USUAL_SURE * (USUAL_SPREAD / found) ** 2
    assert sure == pytest.approx(9 + usual, abs=0.1), "ten pods, and what is usual by its part"


@pytest.mark.parametrize(
    ("events", "expected"),
    [([], []), ([7.0], [7.0]), ([0.0, 0.0], [0.0, 0.0]), ([0.0, 1.0, 0.0], [0.3, 0.4, 0.3])],
    ids=["no pod", "one pod", "pods that did nothing", "hardly an event"],
)
def test_where_little_is_known_of_pods_the_usual_spread_holds(
    events: list[float], expected: list[float]
) -> None:
    spread, sure = spread_of_pods(np.array(events), np.array(expected))
    assert spread == pytest.approx(USUAL_SPREAD, rel=0.05)
    assert sure == pytest.approx(evidence.USUAL_SURE, abs=0.1)


@pytest.mark.parametrize(("spread", "sure"), [(0.1, 3.0), (0.3, 12.5), (1.0, math.inf)])
def test_pods_with_nothing_wrong_differ_as_students_distribution_has_it(spread: float, sure: float) -> None:
    usual = evidence._usual(spread, sure)
    there = HARM <= evidence.MOST_USUAL
    expected = t.pdf(np.log(HARM[there]) / spread, sure)
    assert np.exp(usual[there]) == pytest.approx(expected / expected.sum(), rel=1e-6)
    assert (usual[~there] == -np.inf).all()


def test_the_operator_needs_no_library_of_distributions() -> None:
    """Which would be a third of its memory, and seconds of its start."""
    code = "import sys, operators.app; print('scipy.stats' in sys.modules, 'scipy.special' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
