"""The log of histograms, read by the library that the format is of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from loadtests.histograms import DIGITS, INTERVAL_S, LONGEST_US, write
from switchboard.requests import Request, percentile

BEGUN_S = 1_800_000_000.1236


def read(path: Path) -> list[HdrHistogram]:
    reader = HistogramLogReader(str(path), HdrHistogram(1, LONGEST_US, DIGITS))
    found = []
    while (one := reader.get_next_interval_histogram()) is not None:
        found.append(one)
    return found


def written(path: Path, requests: list[Request]) -> list[HdrHistogram]:
    with path.open("w") as file:
        write(requests, file, BEGUN_S)
    return read(path)


def test_each_ten_seconds_are_a_line_and_those_without_a_request_none(tmp_path: Path) -> None:
    requests = [
        Request(BEGUN_S + 25, 0.2, "503"),
        Request(BEGUN_S + 0.5, 0.003, None),
        Request(BEGUN_S + 9.99, 0.1, None),
        Request(BEGUN_S - 0.001, 0.05, None),
    ]
    found = written(tmp_path / "latency.hlog", requests)
    assert [one.get_total_count() for one in found] == [3, 1]
    begins = [one.get_start_time_stamp() / 1000 - BEGUN_S for one in found]
    assert begins == [pytest.approx(0, abs=0.001), pytest.approx(20, abs=0.001)]
    for one in found:
        assert one.get_end_time_stamp() - one.get_start_time_stamp() == pytest.approx(1000 * INTERVAL_S)
    assert found[1].get_max_value() == found[1].get_highest_equivalent_value(200_000)


def test_of_no_requests_there_is_a_head(tmp_path: Path) -> None:
    assert written(tmp_path / "latency.hlog", []) == []
    assert "[Histogram log format version" in (tmp_path / "latency.hlog").read_text()


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=100))
def test_quantiles_are_the_exact_ones_to_three_digits(tmp_path_factory: object, seconds: list[float]) -> None:
    path = Path(str(tmp_path_factory.mktemp("hlog"))) / "latency.hlog"  # type: ignore[attr-defined]
    (found,) = written(path, [Request(BEGUN_S + 1, one, None) for one in seconds])
    exact = sorted(min(LONGEST_US, max(1, round(one * 1e6))) for one in seconds)
    for percent in (50, 99, 100):
        assert found.values_are_equivalent(found.get_value_at_percentile(percent), percentile(exact, percent))
