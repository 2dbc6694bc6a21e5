"""Classes of data, their order, and the regions of an annotation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.data import DataClass, parse_regions, regions_text

ORDER = ["public", "internal", "customer", "restricted"]
REGION = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(st.sampled_from(ORDER), st.sampled_from(ORDER))
def test_classes_are_ordered_by_how_sensitive_they_are(one: str, other: str) -> None:
    first, second = DataClass(one), DataClass(other)
    assert (first < second, first <= second, first > second, first >= second) == (
        ORDER.index(one) < ORDER.index(other),
        ORDER.index(one) <= ORDER.index(other),
        ORDER.index(one) > ORDER.index(other),
        ORDER.index(one) >= ORDER.index(other),
    )
    assert max(first, second) == ORDER[max(ORDER.index(one), ORDER.index(other))]


@pytest.mark.parametrize(
    ("of", "private_only", "bound"),
    [
        ("public", False, False),
        ("internal", False, False),
        ("customer", False, True),
        ("restricted", True, True),
    ],
)
def test_where_data_of_a_class_may_be(of: str, private_only: bool, bound: bool) -> None:
    assert DataClass(of).must_stay_private is private_only
    assert DataClass(of).bound_to_regions is bound


@given(st.lists(REGION))
def test_regions_survive_their_annotation(regions: list[str]) -> None:
    text = regions_text(regions)
    assert parse_regions(text) == set(regions)
    assert regions_text(reversed(regions)) == text


def test_an_annotation_by_hand_is_understood() -> None:
    assert parse_regions(" cn-shenzhen , cn-beijing,,") == {"cn-shenzhen", "cn-beijing"}
    assert parse_regions("") == frozenset()
