"""How many replicas there were, and what it cost to take some away."""

from __future__ import annotations

import pytest

from loadtests.observing import Look
from loadtests.sizes import Sizes, finding, sizes
from loadtests.verdict import Answer
from switchboard.requests import Request

BEGUN = 1_000_000.0


def looks(*counts: tuple[int, int]) -> list[Look]:
    """Each a second: wanted, ready."""
    return [Look(BEGUN + second, desired, ready) for second, (desired, ready) in enumerate(counts)]


def asked(
    second: float, seconds: float = 0.02, failure: str | None = None, first: str | None = None
) -> Request:
    return Request(BEGUN + second, seconds, failure, first=first)


@pytest.mark.parametrize(
    ("counts", "taken"),
    [
        ([(2, 2)] * 5, 0),
        ([(2, 2), (3, 2), (3, 3)], 0),
        ([(5, 5), (4, 5), (4, 4), (3, 4), (3, 3)], 2),
        ([(5, 5), (2, 5), (2, 3), (2, 2)], 3),
        ([(5, 5), (5, 4), (5, 5)], 0),  # it died, and came again
        ([(5, 5), (4, 3), (4, 4)], 1),  # one was taken away, and one died
    ],
)
def test_those_that_are_taken_away_are_more_than_are_wanted(
    counts: list[tuple[int, int]], taken: int
) -> None:
    found = sizes(looks(*counts), [])
    assert found is not None
    assert found.taken == taken


def test_what_fails_meanwhile_is_told() -> None:
    seen = looks(*[(3, 3)] * 100, *[(2, 3)] * 2, *[(2, 2)] * 100)
    requests = [
        asked(50, failure="503"),  # long before
        asked(90, 9.0, first="cut off"),  # under way
        asked(103, failure="503", first="503"),
        asked(120),
        asked(140, failure="503"),  # long after
    ]
    assert sizes(seen, requests) == Sizes(3, 3, 2, taken=1, failed=1, first_failed=2)


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (None, Answer.NOT_PROVEN),
        (Sizes(2, 5, 5), Answer.NOT_PROVEN),
        (Sizes(2, 5, 2, taken=3), Answer.HOLDS),
        (Sizes(2, 5, 2, taken=3, first_failed=4), Answer.HOLDS),
        (Sizes(2, 5, 2, taken=3, failed=1, first_failed=4), Answer.REFUTED),
    ],
)
def test_it_is_a_claim(found: Sizes | None, answer: Answer) -> None:
    assert finding(found).answer is answer


def test_nobody_looked() -> None:
    assert sizes([], [asked(1)]) is None
