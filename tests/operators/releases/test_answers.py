"""Joining answers to the same request: who answered otherwise, in whatever order the replicas are asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.canary.values import Count
from operators.releases.answers import MOST, Answer, Joined, Joins
from operators.releases.mirrored import read


def test_each_arm_is_held_against_the_customers_answers() -> None:
    joins = Joins("chat")
    joins.add("chat", "old-1", [Answer("a", "x"), Answer("b", "y")])
    joins.add("chat_candidate", "new-1", [Answer("a", "x"), Answer("b", "z"), Answer("c", "x")])
    joins.add("chat_baseline", "base-1", [Answer("b", "y")])
    assert joins.take() == {
        "chat_candidate": Joined({"new-1": Count(1, 2)}, {}),
        "chat_baseline": Joined({"base-1": Count(0, 1)}, {}),
    }
    joins.add("chat", "old-2", [Answer("c", "x")])
    assert joins.take() == {"chat_candidate": Joined({"new-1": Count(0, 1)}, {})}
    assert joins.take() == {}


def test_what_kind_of_request_it_is_is_the_customers_answers_word() -> None:
    joins = Joins("chat")
    joins.add("chat", "old-1", [Answer("a", "x", ("card_lost", "zh")), Answer("b", "y", ("hours", "zh"))])
    joins.add("chat_candidate", "new-1", [Answer("b", "z", ("rates", "en")), Answer("a", "x", ("hours",))])
    assert joins.take()["chat_candidate"].kinds == {
        "card_lost": {"new-1": Count(0, 1)},
        "hours": {"new-1": Count(1, 1)},
        "zh": {"new-1": Count(1, 2)},
    }


IDS = st.sampled_from("abcdefgh")
ANSWERS = st.dictionaries(IDS, st.sampled_from("xyz"))


@given(ANSWERS, ANSWERS, st.randoms())
def test_the_order_doesnt_matter(theirs: dict[str, str], mine: dict[str, str], chance: object) -> None:
    both = set(theirs) & set(mine)
    parts = [("chat", Answer(*one)) for one in theirs.items()]
    parts += [("chat_candidate", Answer(*one)) for one in mine.items()]
    chance.shuffle(parts)  # type: ignore[attr-defined]
    joins = Joins("chat")
    for fleet, answer in parts:
        joins.add(fleet, "pod", [answer])
    expected = {"pod": Count(sum(theirs[one] != mine[one] for one in both), len(both))} if both else None
    found = joins.take().get("chat_candidate")
    assert (found.pods if found is not None else None) == expected


def test_what_waits_is_bounded() -> None:
    joins = Joins("chat")
    joins.add("chat_candidate", "new-1", [Answer(str(number), "x") for number in range(MOST + 5)])
    joins.add("chat", "old-1", [Answer("0", "y"), Answer(str(MOST), "y")])
    assert joins.take() == {"chat_candidate": Joined({"new-1": Count(1, 1)}, {})}


def test_reading_what_a_replica_says() -> None:
    rows = [
        [7, 1.5, "a", "x", "card_lost", False, False, "zh"],
        [8, 1.6, "b", "y", "handover", False, True, "en"],
    ]
    assert read(rows, shadow=False) == ([Answer("a", "x", ("card_lost", "zh"))], 8)
    assert read(rows, shadow=True) == ([Answer("b", "y", ("en",))], 8), "a hand-off is no kind"
    assert read([], shadow=True) == ([], 0)
