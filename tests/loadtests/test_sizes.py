"""How many replicas there were, and what it cost to take some away."""

from __future__ import annotations

import pytest

from loadtests.observing import Look
from loadtests.sizes import Sizes, finding, sizes
from loadtests.verdict import Answer
from switchboard.requests import Request

BEGUN = 1_000_000.0


def looks(*counts: tuple[int, int], then_s: int = 60) -> list[Look]:
    """Each a second: wanted, ready; and the last one for some time."""
    seen = [*counts, *[counts[-1]] * then_s]
    return [Look(BEGUN + second, desired, ready) for second, (desired, ready) in enumerate(seen)]


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
        ([(2, 2), (2, 3), (2, 2)], 0),  # a new revision's, which comes before an old one goes
        ([(5, 3), (4, 3)], 0),  # it hadn't come yet
        ([(5, 5), (4, 5), (5, 5)], 0),  # it was wanted again
    ],
)
def test_those_that_are_taken_away_were_wanted_before(counts: list[tuple[int, int]], taken: int) -> None:
    found = sizes(looks(*counts), [])
    assert found is not None
    assert found.taken == taken


def test_what_ends_in_the_last_seconds_was_not_seen() -> None:
    found = sizes(looks((3, 3), (2, 3), (2, 2), then_s=5), [asked(1)])
    assert found == Sizes(3, 3, 2)


DRAINED = [(3, 3)] * 100 + [(2, 3)] * 30 + [(2, 2)]
"""Gateways leave it out from the hundredth second on; it goes when it has nothing left to answer."""


def test_what_fails_meanwhile_is_told() -> None:
    requests = [
        asked(50, failure="503"),  # long before
        asked(90, 9.0, first="cut off"),  # under way
        asked(105, failure="503", first="503"),  # 25 s before it isn't ready any more
        asked(130),
        asked(150, failure="503"),  # long after
    ]
    found = sizes(looks(*DRAINED), requests)
    assert found == Sizes(3, 3, 2, taken=1, requests=3, failed=1, first_failed=2)
    assert str(found).endswith("1 taken away, and meanwhile 1 of 3 requests failed, 2 at the first try")


@pytest.mark.parametrize(
    ("found", "lost", "answer"),
    [
        (None, 0, Answer.NOT_PROVEN),
        (Sizes(2, 5, 5), 0, Answer.NOT_PROVEN),
        (Sizes(2, 5, 2, taken=3), 0, Answer.NOT_PROVEN),  # nobody asked
        (Sizes(2, 5, 2, taken=3, requests=90), 0, Answer.HOLDS),
        (Sizes(2, 5, 2, taken=3, requests=90), 1, Answer.NOT_PROVEN),
        (Sizes(2, 5, 2, taken=3, requests=90, first_failed=4), 0, Answer.HOLDS),
        (Sizes(2, 5, 2, taken=3, requests=90, failed=1, first_failed=4), 0, Answer.REFUTED),
    ],
)
def test_it_is_a_claim(found: Sizes | None, lost: int, answer: Answer) -> None:
    assert finding(found, lost).answer is answer


def test_nobody_looked() -> None:
    assert sizes([], [asked(1)]) is None
