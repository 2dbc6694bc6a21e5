"""Requests of a load test: what a run leaves is what is read, and percentiles."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.requests import Request, percentile, read, write

reasons = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)
requests = st.builds(
    Request,
    st.integers(0, 2**42).map(lambda ms: ms / 1000),
    st.integers(0, 10**6).map(lambda parts: parts / 10_000),
    reasons,
    st.sampled_from(["", "7"]),
    st.sampled_from(["", "edge cn-beijing zh"]),
    st.integers(0, 10**7).map(lambda parts: parts / 1_000_000),
    reasons,
)


@given(st.lists(requests))
def test_what_is_written_is_read(asked: list[Request]) -> None:
    file = io.StringIO(newline="")
    write(asked, file)
    file.seek(0)
    assert read(file) == asked


@given(st.lists(st.floats(0, 10), min_size=1).map(sorted), st.floats(0, 100))
def test_a_percentile_is_a_value_that_so_many_dont_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    within = sum(one <= found for one in values)
    assert found in values and within >= math.floor(len(values) * percent / 100)
    assert all(one >= found or values.index(one) < len(values) * percent / 100 for one in values)


def test_of_none_there_is_none() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
