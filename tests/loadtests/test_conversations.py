"""Conversations: whose turn it is, and that nobody asks on before an answer is there."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.conversations import MOST_TURNS, THINK_S, Conversation, Conversations, Question

EN, ZH = Question("hello", "en", "greeting"), Question("你好", "zh")
BOTH = {"en": [EN], "zh": [ZH]}


def made(seed: int = 1) -> Conversations:
    return Conversations(BOTH, random.Random(seed))


def test_a_customer_goes_on_after_the_answer_and_a_while() -> None:
    conversations = made()
    first, _ = next(one for one in (conversations.begin(0.0) for _ in range(50)) if one[0].left > 0)
    conversations.answered(first, 10.0)
    assert conversations.begin(10.0 + THINK_S[0] - 0.01)[0] is not first
    again, question = conversations.begin(10.0 + THINK_S[1])
    assert again is first
    assert again.turn == 2
    assert question.language == first.language


def test_one_that_waits_for_its_answer_asks_nothing() -> None:
    conversations = made()
    sessions = {conversations.begin(float(second))[0].session for second in range(100)}
    assert len(sessions) == 100


@given(st.integers(0, 1000), st.integers(1, 300))
def test_all_turns_are_asked_in_order_and_none_beyond(seed: int, requests: int) -> None:
    conversations, now = made(seed), 0.0
    turns: Counter[str] = Counter()
    for _ in range(requests):
        now += 0.5
        one, question = conversations.begin(now)
        turns[one.session] += 1
        assert one.turn == turns[one.session] <= MOST_TURNS
        assert one.left >= 0
        assert question in BOTH[one.language]
        conversations.answered(one, now)
    assert turns.total() == requests


def test_both_languages_and_several_turns() -> None:
    conversations = made()
    found: list[Conversation] = []
    for number in range(500):
        one, _ = conversations.begin(number * 0.1)
        conversations.answered(one, number * 0.1)
        found.append(one)
    assert {one.language for one in found} == {"en", "zh"}
    assert max(one.turn for one in found) == MOST_TURNS


def test_the_same_seed_asks_the_same() -> None:
    def asked(seed: int) -> list[str]:
        conversations = made(seed)
        return [conversations.begin(float(number))[0].session for number in range(20)]

    assert asked(1) == asked(1) != asked(2)


def test_nothing_to_ask() -> None:
    with pytest.raises(ValueError, match="nothing to ask"):
        Conversations({"en": []}, random.Random(1))


@pytest.mark.parametrize(
    ("versions", "kept"),
    [
        pytest.param("1111", "yyyy", id="one"),
        pytest.param("1122", "yyyy", id="given to a candidate"),
        pytest.param("1221", "yyyy", id="and taken back"),
        pytest.param("1212", "yyyn", id="to and fro"),
        pytest.param("12121", "yyynn", id="for good"),
        pytest.param("1231", "yyyn", id="of three"),
    ],
)
def test_a_thread(versions: str, kept: str) -> None:
    conversation = Conversation("session", "en", left=3)
    assert "".join("ny"[conversation.keeps_thread(version)] for version in versions) == kept
