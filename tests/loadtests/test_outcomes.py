"""What faults came to, by hand-worked runs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.faults import FAULTS, LEAD_S, Name, length_s
from loadtests.outcomes import AGAIN_S, Happened, Outcome, finding, outcomes, recovery
from loadtests.verdict import Answer
from switchboard.requests import Request

BEGUN = 1_000_000.0


def traffic(seconds: int, slow: Iterable[int] = (), failed: Iterable[int] = ()) -> list[Request]:
    """Ten requests a second; in some seconds one of them is slow, or failed at both tries."""
    slow, failed = set(slow), set(failed)
    return [
        Request(
            BEGUN + second + number / 10,
            0.5 if number == 3 and second in slow else 0.02,
            "503" if number == 3 and second in failed else None,
            first="503" if number == 3 and second in failed else None,
        )
        for second in range(seconds)
        for number in range(10)
    ]


@pytest.mark.parametrize(
    ("bad", "until", "seconds", "longest", "open_s"),
    [
        ([], 60, 0.0, 0.0, 0.0),
        ([0], 60, 0.5, 0.5, 0.0),
        ([0, 1, 2], 60, 2.5, 2.5, 0.0),
        ([0, 4], 60, 4.5, 4.5, 0.0),  # four good ones between them aren't enough
        ([0, 6], 60, 1.0, 1.0, 0.0),  # five are: what comes then is another time, from its own beginning
        ([20], 60, 1.0, 1.0, 0.0),
        ([0, 1, 20, 21, 22, 40], 60, 3.0, 3.0, 0.0),
        ([0], 5, None, 0.5, 4.5),  # who knows
        ([20, 58], 60, None, 1.0, 2.0),
        (list(range(60)), 60, None, 59.5, 59.5),
        (list(range(6, 60)), 120, 54.0, 54.0, 0.0),  # what it left behind is the fault's, too
        ([0, 3, 6, 9, 12], 20, 12.5, 12.5, 0.0),
        ([-1], 60, 0.0, 0.0, 0.0),  # of what was under way when it came
    ],
)
def test_when_the_service_is_within_its_level_again(
    bad: list[int], until: int, seconds: float | None, longest: float, open_s: float
) -> None:
    """The fault is half a second into the first second."""
    assert recovery(0.5, bad, until) == (longest, open_s)
    assert (None if open_s else longest) == seconds


@given(st.sets(st.integers(0, 59)), st.integers(0, 59), st.floats(0, 0.99))
def test_it_is_as_long_as_bad_seconds_are_and_never_shorter_by_one_more(
    bad: set[int], more: int, begun: float
) -> None:
    longest, open_s = recovery(begun, sorted(bad), 60)
    back = max([begun, *(second + 1.0 for second in bad)])
    assert (open_s == 0) == (60 - back >= AGAIN_S)
    runs = "".join("x" if second in bad else " " for second in range(60)).split()
    assert max(map(len, runs), default=0) - 1 <= longest <= 60
    assert longest == 0 or bad
    assert recovery(begun, sorted(bad | {more}), 60)[0] >= longest


def test_each_has_what_came_until_the_next() -> None:
    happened = [
        Happened(name=Name.KILL_POD, begun_s=BEGUN + 10, ended_s=BEGUN + 10, target="pod/chat-1"),
        Happened(name=Name.FREEZE_POD, begun_s=BEGUN + 30, ended_s=BEGUN + 50, target="pod/chat-2"),
        Happened(name=Name.CUT_EDGE, problem="it couldn't be caused: no root"),
    ]
    found = outcomes(happened, traffic(80, slow=[10, 11, 31], failed=[12, 5]))
    by_name = {one.happened.name: one for one in found}
    killed, frozen = by_name[Name.KILL_POD], by_name[Name.FREEZE_POD]
    assert (killed.requests, killed.failed, killed.first_failed) == (200, 1, 1)
    assert (killed.recovered_s, killed.out_s) == (3.0, 3)
    assert (frozen.requests, frozen.failed, frozen.recovered_s, frozen.out_s) == (500, 0, 2.0, 1)
    assert by_name[Name.CUT_EDGE] == Outcome(happened=happened[2])


def test_what_is_under_way_when_it_comes_is_what_it_hits_first() -> None:
    """Nine requests of before, that end by it: theirs are not the usual's, nor those of the fault before."""
    before = Happened(name=Name.KILL_POD, begun_s=BEGUN + 2)
    happened = Happened(name=Name.KILL_GATEWAY, begun_s=BEGUN + 30)
    hit = [Request(BEGUN + 29.9 + number / 100, 0.2, "cut off") for number in range(9)]
    earlier, found = outcomes([before, happened], sorted([*traffic(80), *hit]))
    assert (earlier.failed, found.failed, found.first_failed) == (0, 9, 9)
    assert finding(earlier).answer is Answer.HOLDS
    assert finding(found).answer is Answer.HOLDS


def test_where_none_could_be_caused_each_says_why() -> None:
    happened = [Happened(name=one, problem="the Kubernetes API has no means for it") for one in Name]
    found = outcomes(happened, traffic(5))
    assert [one.happened for one in found] == happened
    assert {finding(one).answer for one in found} == {Answer.NOT_PROVEN}


@pytest.mark.parametrize(
    ("slow", "seconds", "answer"),
    [
        pytest.param([10, 57], 120, Answer.HOLDS, id="a bad second before the next one comes"),
        pytest.param([10, 53, 57], 120, Answer.NOT_PROVEN, id="it may be out of it for as long"),
        pytest.param([10, 52, 56, 58], 120, Answer.REFUTED, id="out of it when the next one comes"),
        pytest.param([*range(10, 14), *range(19, 23)], 120, Answer.HOLDS, id="twice"),
        pytest.param([*range(10, 14), *range(19, 23), *range(28, 32)], 120, Answer.REFUTED, id="and again"),
        pytest.param([10], 13, Answer.NOT_PROVEN, id="ended by hand"),
    ],
)
def test_by_what_is_seen_until_the_next_one(slow: list[int], seconds: int, answer: Answer) -> None:
    happened = [Happened(name=Name.KILL_POD, begun_s=BEGUN + 10)]
    if seconds > 30:
        happened.append(Happened(name=Name.FREEZE_POD, begun_s=BEGUN + 60, ended_s=BEGUN + 80))
    first = outcomes(happened, traffic(seconds, slow=slow))[0]
    assert finding(first).answer is answer, first


@pytest.mark.parametrize(
    ("recovered", "longest", "problem", "requests", "answer"),
    [
        (0.0, 0.0, None, 100, Answer.HOLDS),
        (5.0, 5.0, None, 100, Answer.HOLDS),
        (5.1, 5.1, None, 100, Answer.REFUTED),
        (None, 5.1, None, 100, Answer.REFUTED),
        (None, 3.0, None, 100, Answer.NOT_PROVEN),  # ended by hand, 3 s after it
        (0.0, 0.0, None, 0, Answer.NOT_PROVEN),
        (None, 0.0, "it couldn't be caused: no root", 0, Answer.NOT_PROVEN),
    ],
)
def test_a_fault_is_one_more_claim(
    recovered: float | None, longest: float, problem: str | None, requests: int, answer: Answer
) -> None:
    happened = Happened(name=Name.KILL_POD, begun_s=BEGUN, problem=problem)
    found = finding(Outcome(happened=happened, requests=requests, recovered_s=recovered, longest_s=longest))
    assert found.answer is answer
    assert found.claim == "kill-pod: within the service level again within 5 s"
    assert problem is None or found.why == problem


def test_a_node_may_take_longer() -> None:
    happened = Happened(name=Name.LOSE_NODE, begun_s=BEGUN)
    assert (
        finding(Outcome(happened=happened, requests=9, recovered_s=9.9, longest_s=9.9)).answer is Answer.HOLDS
    )


def test_each_fault_is_described_and_has_its_turn() -> None:
    assert set(FAULTS) == set(Name)
    for one in FAULTS.values():
        assert all((one.hypothesis, one.done, one.repair))
        assert one.turn_s >= one.lasts_s + 2 * AGAIN_S + one.within_s
    assert length_s([Name.KILL_POD, Name.LOSE_NODE]) == LEAD_S + 60 + 120
