"""The simulated service, by hand: who waits how long, who gives up, what is paid for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.simulator.plant import Fleet, Plant, Replica
from operators.simulator.traffic import BINS_PER_S, Arrivals

ONE = Replica(slots=1, service_s=0.1, bound_s=0.3, timeout_s=1.0)  # 10 requests/s, one a tenth of a second


def arriving(*seconds: list[int] | int) -> Arrivals:
    """Each second by its tenths, or as many in its first tenth."""
    bins = [one if isinstance(one, list) else [one, *[0] * 9] for one in seconds]
    counts = np.asarray(bins, dtype=np.int64).reshape(-1)
    return Arrivals(counts.reshape(-1, BINS_PER_S).sum(axis=1).astype(float), counts)


def serve(
    arrivals: Arrivals, ready: list[int], replica: Replica = ONE
) -> tuple[Plant, list[tuple[float, ...]]]:
    plant = Plant(arrivals, replica)
    seen = [plant.second(second, count) for second, count in enumerate(ready)]
    return plant, [(one.arrived, one.served, round(one.in_service, 6), round(one.queued, 6)) for one in seen]


def test_what_fits_is_served_at_once() -> None:
    plant, seen = serve(arriving([1] * 10, [2] * 10), [1, 2])
    assert seen == [(10, 10, 1.0, 0), (20, 20, 2.0, 0)]
    assert plant.finish().tolist() == [False, False]


def test_a_burst_waits_and_three_of_it_are_in_time() -> None:
    """4 at once for one slot: served in the tenths 0, 1, 2, 3; a wait of up to 0.2 s is in time."""
    plant, seen = serve(arriving(4), [1])
    assert seen == [(4, 4, 0.4, (3 + 2 + 1) / 10)]
    assert plant.finish().tolist() == [True]
    assert serve(arriving(3), [1])[0].finish().tolist() == [False]


def test_late_requests_count_in_the_second_that_they_were_due_in() -> None:
    patient = replace(ONE, timeout_s=5)
    plant, _ = serve(arriving(20, [1] * 10), [1, 2], patient)
    assert plant.finish().tolist() == [True, True], "those of the second one had to wait for the others"
    plant, _ = serve(arriving(20, [0] * 10), [1, 2], patient)
    assert plant.finish().tolist() == [True, False]


def test_who_waits_for_longer_than_its_patience_gives_up() -> None:
    """30 at once for one slot: 11 are served within a second and the tenth after, the others are gone then."""
    _, seen = serve(arriving(30, 0, 0), [1, 1, 1])
    assert [one[1] for one in seen] == [10, 1, 0]


def test_without_a_replica_all_wait_and_give_up() -> None:
    plant, seen = serve(arriving(5, 0, 0), [0, 0, 1])
    assert [one[1] for one in seen] == [0, 0, 0]
    assert plant.finish().tolist() == [True, False, False]


def test_who_still_waits_at_the_end_is_late() -> None:
    assert serve(arriving(12), [1])[0].finish().tolist() == [True]


def test_one_percent_may_be_late() -> None:
    replica = Replica(slots=33.0, service_s=0.1, bound_s=0.3)  # 33 in a tenth, 99 within 0.2 s after
    assert serve(arriving(100), [1], replica)[0].finish().tolist() == [False]
    assert serve(arriving(101), [1], replica)[0].finish().tolist() == [True]


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=10, max_size=10), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_every_request_is_served_or_gives_up_or_waits(bins: list[list[int]], ready: int) -> None:
    plant, seen = serve(arriving(*bins), [ready] * len(bins))
    served = sum(one[1] for one in seen)
    assert served <= sum(sum(one) for one in bins) + 1e-6
    assert served <= ready * 10 * len(bins) + 1e-6
    if ready == 3 and max(max(one) for one in bins) <= 3:
        assert served == sum(sum(one) for one in bins)
        assert not plant.finish().any()


def test_more_replicas_are_never_worse() -> None:
    bins = np.random.default_rng(5).poisson(3, size=(60, 10)).tolist()
    out = [int(serve(arriving(*bins), [ready] * 60)[0].finish().sum()) for ready in range(1, 9)]
    assert out == sorted(out, reverse=True)
    assert out[-1] == 0 < out[0]


def test_a_fleet_starts_serves_and_drains() -> None:
    fleet = Fleet(2)
    fleet.grow([10.0, 5.0])
    assert (fleet.size, fleet.ready(0), fleet.ready(5), fleet.ready(9)) == (4, 2, 3, 3)
    assert fleet.paid_s() == 4
    fleet.shrink(2, drain_s=5)  # the one that starts, and one that serves
    assert (fleet.size, fleet.ready(10)) == (2, 2)
    assert [fleet.paid_s(), fleet.paid_s()] == [7, 2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_latest_go_first(count: int) -> None:
    fleet = Fleet(1)
    fleet.grow([4.0, 2.0, 3.0])
    fleet.shrink(count, drain_s=5)
    assert fleet.ready(10) == 4 - count
    assert fleet.paid_s() == 4 - count, "nothing that served was drained"
