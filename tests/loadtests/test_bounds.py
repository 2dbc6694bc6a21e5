"""The bounds against hand-worked numbers, against a search by the binomial itself, and by what must always hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadtests.bounds import CONFIDENCE, at_least, at_most, clustered, failures_for, requests_for


@pytest.mark.parametrize(
    ("availability", "failures", "requests"),
    [(0.9999, 0, 29_956), (0.9999, 1, 47_437), (0.9999, 2, 62_956), (0.999, 0, 2_995), (0.5, 0, 5)],
)
def test_how_many_requests_prove_it(availability: float, failures: int, requests: int) -> None:
    assert requests_for(availability, failures) == requests
    assert failures_for(availability, requests) == failures
    assert failures_for(availability, requests - 1) == (failures - 1 if failures else None)


def test_without_a_failure_it_is_the_rule_of_three() -> None:
    assert at_most(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))


COUNTS = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CONFIDENCES = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@given(COUNTS, CONFIDENCES)
def test_the_bounds_are_where_the_binomial_says(counts: tuple[int, int], confidence: float) -> None:
    failed, requests = counts
    high, low = at_most(failed, requests, confidence), at_least(failed, requests, confidence)
    assert 0 <= low <= failed / requests <= high <= 1
    if failed < requests:  # so few failures are as improbable as said, if the share were `high`
        assert stats.binom.cdf(failed, requests, high) == pytest.approx(1 - confidence, rel=1e-6)
    if failed:
        assert stats.binom.sf(failed - 1, requests, low) == pytest.approx(1 - confidence, rel=1e-6)


@given(COUNTS)
def test_they_agree_with_the_interval_of_scipy(counts: tuple[int, int]) -> None:
    found = stats.binomtest(*counts).proportion_ci(confidence_level=1 - 2 * (1 - CONFIDENCE), method="exact")
    assert (at_least(*counts), at_most(*counts)) == pytest.approx(
        (found.low, found.high), rel=1e-6, abs=1e-12
    )


@given(st.floats(0.5, 0.99999), st.integers(0, 30), CONFIDENCES)
def test_one_request_fewer_proves_nothing(availability: float, failures: int, confidence: float) -> None:
    requests = requests_for(availability, failures, confidence)
    assert at_most(failures, requests, confidence) <= 1 - availability
    assert at_most(failures, requests - 1, confidence) > 1 - availability


@pytest.mark.parametrize(
    ("failed", "requests", "confidence"),
    [(-1, 5, 0.95), (6, 5, 0.95), (0, 5, 1.0), (0, 5, 0.3), (0, 5, math.nan)],
)
def test_counts_that_cannot_be(failed: int, requests: int, confidence: float) -> None:
    for bound in (at_most, at_least):
        with pytest.raises(ValueError, match="can't"):
            bound(failed, requests, confidence)


@pytest.mark.parametrize("availability", [0.0, 1.0, -1.0, math.nan, 1 - 1e-15])
def test_claims_that_cannot_be(availability: float) -> None:
    with pytest.raises(ValueError, match="an availability of"):
        requests_for(availability)


def test_nothing_has_failed_or_been_asked() -> None:
    assert at_most(0, 0) == 1.0
    assert clustered([0] * 60, [100] * 60) is None
    assert clustered([], []) is None


def test_failures_of_one_block_count_as_one_event() -> None:
    """Where they are apart the bound is that of so many; where they are together, of one that comes up three times."""
    together = [0] * 600
    together[300:303] = [10, 10, 10]
    apart = [1 if second % 20 == 0 else 0 for second in range(600)]
    asked = [100] * 600
    assert sum(together) == sum(apart) == 30
    least, most = clustered(together, asked) or (1.0, 0.0)
    least_apart, most_apart = clustered(apart, asked) or (1.0, 0.0)
    assert most == pytest.approx(3 * 30 / 60_000, rel=0.35)
    assert least == 0.0  # it needn't have happened
    assert most_apart == pytest.approx(at_most(30, 60_000), rel=0.35)
    assert least_apart == pytest.approx(at_least(30, 60_000), rel=0.35)
    assert most > 1.5 * most_apart


def test_the_same_run_has_the_same_bound_wherever_it_began() -> None:
    failed = [0] * 100
    failed[3], failed[99] = 4, 2
    found = {clustered(failed[turn:] + failed[:turn], [50] * 100) for turn in (0, 1, 50, 97)}
    assert len(found) <= 2  # the blocks are the same ones; which are drawn depends on their numbers
    assert clustered(failed, [50] * 100) == clustered(failed, [50] * 100)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(5, 50)), min_size=1, max_size=120))
def test_whatever_has_failed_it_is_a_share(seconds: list[tuple[int, int]]) -> None:
    failed, asked = [one for one, _ in seconds], [many for _, many in seconds]
    found = clustered(failed, asked)
    if sum(failed) == 0:
        assert found is None
    else:
        assert found is not None
        assert 0 <= found[0] <= sum(failed) / sum(asked) <= found[1] <= 1


def test_seconds_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="failures of 1 seconds, requests of 2"):
        clustered([1], [1, 2])
