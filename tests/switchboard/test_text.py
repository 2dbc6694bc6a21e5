"""Columns as a person reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.text import age, columns


@pytest.mark.parametrize(
    ("rows", "gap", "text"),
    [
        ([("A", "B"), ("long", "")], 3, "A      B\nlong"),
        ([("A", "B"), ("long", "b")], 2, "A     B\nlong  b"),
        ([], 3, ""),
        ([("one",)], 3, "one"),
    ],
)
def test_columns(rows: list[tuple[str, ...]], gap: int, text: str) -> None:
    assert columns(rows, gap=gap) == text


@given(st.lists(st.tuples(st.text("ab", min_size=1), st.text("cd", min_size=1)), min_size=1))
def test_the_second_column_begins_at_one_place(rows: list[tuple[str, str]]) -> None:
    lines = columns(rows).splitlines()
    assert len({len(line) - len(second) for line, (_, second) in zip(lines, rows, strict=True)}) == 1


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (90000, "1d")]
)
def test_age(seconds: int, shown: str) -> None:
    assert age(seconds) == shown
