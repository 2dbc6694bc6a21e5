"""Traffic from a real Prometheus, and what is said where there is none."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from operators.simulator.recorded import from_prometheus, query_of
from switchboard.errors import SwitchboardError
from tests.operators.simulator.conftest import LENGTH_S, Recorded


def test_the_rate_over_time(prometheus: Recorded) -> None:
    """Of all pods together; a counter that starts anew is no negative rate."""
    scenario = from_prometheus(
        prometheus.url, query_of("chat"), end=prometheus.end, length=timedelta(minutes=110)
    )
    rates = scenario.rates(0)
    assert len(rates) == 6600
    expected = np.asarray([prometheus.rate(LENGTH_S - 6600 + second - 30) for second in range(6600)])
    assert np.abs(rates - expected).max() < 0.2 * 100
    assert np.abs(rates - expected).mean() < 2


@pytest.mark.parametrize(
    ("query", "length", "says"),
    [
        (query_of("voice"), timedelta(hours=1), "gives 0 series, not one"),
        ("switchboard_requests_total", timedelta(hours=1), "gives 2 series, not one"),
        (query_of("chat"), timedelta(hours=12), "knows .* of 43200 s"),
        ("sum(", timedelta(hours=1), "HTTP Status Code 400"),
        (query_of("chat"), timedelta(seconds=10), "from a minute to 14 days"),
    ],
)
def test_what_can_t_be_replayed(prometheus: Recorded, query: str, length: timedelta, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        from_prometheus(prometheus.url, query, end=prometheus.end, length=length)


def test_no_prometheus(prometheus: Recorded) -> None:
    with pytest.raises(SwitchboardError, match=r"Prometheus at http://127\.37\.0\.3:9: "):
        from_prometheus(
            "http://127.37.0.3:9", query_of("chat"), end=prometheus.end, length=timedelta(hours=1)
        )
