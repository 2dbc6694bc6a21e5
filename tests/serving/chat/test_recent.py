"""The last answers: bounded, in order, each told once to who asks for those after the last one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.chat.recent import Answered, Recent


def answered(number: int) -> Answered:
    return Answered(float(number), f"r-{number}", "d", "card_lost", False, number % 2 == 0, "en")


def test_rows() -> None:
    recent = Recent(5.0)
    recent.add(Answered(7.5, "r-1", "abc", "handover", False, True, "zh"))
    assert recent.after(0, 10) == {
        "started": 5.0,
        "first": 1,
        "last": 1,
        "answers": [[1, 7.5, "r-1", "abc", "handover", False, True, "zh"]],
    }
    assert Recent(5.0).after(0, 10) == {"started": 5.0, "first": 1, "last": 0, "answers": []}


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 80), st.integers(1, 30))
def test_what_is_told(count: int, capacity: int, after: int, limit: int) -> None:
    recent = Recent(0.0, capacity)
    for number in range(1, count + 1):
        recent.add(answered(number))
    told = recent.after(after, limit)
    assert (told["first"], told["last"]) == (max(1, count - capacity + 1), count)
    expected = [number for number in range(told["first"], count + 1) if number > after][:limit]
    assert [row[0] for row in told["answers"]] == expected
    assert [row[2] for row in told["answers"]] == [f"r-{number}" for number in expected]


@given(st.lists(st.integers(0, 15), max_size=20), st.integers(1, 10))
def test_who_follows_misses_nothing_that_was_kept(bursts: list[int], limit: int) -> None:
    recent, seen, after, number = Recent(0.0, 1000), list[int](), 0, 0
    for burst in bursts:
        for _ in range(burst):
            number += 1
            recent.add(answered(number))
        for row in recent.after(after, limit)["answers"]:
            seen.append(row[0])
            after = row[0]
    assert seen == list(range(1, len(seen) + 1))
