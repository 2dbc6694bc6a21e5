"""Quantities are exact: a limit that is a little off is a pod that is killed a little early."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.quantities import in_units, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Decimal(1)),
        ("100m", Decimal("0.1")),
        ("1.5Gi", Decimal(3 * 2**29)),
        ("1e3", Decimal(1000)),
        ("1E", Decimal(10) ** 18),
        ("12M", Decimal(12_000_000)),
        (".5", Decimal("0.5")),
        (3, Decimal(3)),
    ],
)
def test_known_values(text: str | int, value: Decimal) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1Gb", "--1", "1.2.3"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse(text)


@pytest.mark.parametrize(
    ("quantity", "divisor", "shown"),
    [("250m", "1", 1), ("250m", "1m", 250), ("512Mi", "1Mi", 512), ("1Gi", "1", 2**30), ("1500m", "1", 2)],
)
def test_in_units_rounds_up(quantity: str, divisor: str, shown: int) -> None:
    assert in_units(quantity, divisor) == shown


@given(st.integers(0, 10**9), st.sampled_from(["", "m", "k", "Ki", "Mi", "Gi"]))
def test_a_unit_of_itself_is_one(number: int, suffix: str) -> None:
    assert in_units(f"{number}{suffix}", f"1{suffix}") == number
