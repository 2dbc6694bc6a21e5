"""What counts as an answer to a customer (by the greenlets of Locust, so in a process of its own)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.loadtests.loops import told

HEAD = """
    import json
    from locust.env import Environment
    from loadtests.agreed import Settings
    from loadtests.client import Door, Reply
    from loadtests.conversations import Conversation, Question
    from loadtests.customers import Desk

    QUESTION = Question("hello there", "en", "greeting")
    desk = Desk(Environment(), "chat", [Door("http://127.38.0.9:1")], {"en": [QUESTION]}, {}, Settings())
    conversation = Conversation("some", "en", left=5)

    def problem(status, answer):
        body = answer if isinstance(answer, str) else json.dumps(answer)
        return desk._problem(Reply(status, body.encode()), conversation, QUESTION, {})
"""
GOOD: dict[str, Any] = {
    "intent": "greeting",
    "confidence": 1.0,
    "answer": "Hello!",
    "language": "en",
    "model_version": "1",
    "handover": False,
}


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        pytest.param(200, GOOD, None, id="good"),
        pytest.param(200, {**GOOD, "intent": "balance"}, "asked for greeting, answered balance", id="wrong"),
        pytest.param(200, {**GOOD, "language": "zh"}, "asked in en, answered in zh", id="language"),
        pytest.param(200, "Hello!", "the answer is no JSON object", id="no JSON"),
        pytest.param(200, "[" * 50_000, "the answer is no JSON object", id="deep"),
        pytest.param(503, {"error": {"code": "overloaded"}}, "503 overloaded", id="refused"),
        pytest.param(502, {"error": "no such thing"}, "502", id="refused by another"),
        pytest.param(500, "<html>", "500", id="a page"),
        pytest.param(503, {"error": {"code": 7}}, "503 7", id="a number"),
    ],
)
def test_what_is_wrong_with_an_answer(status: int, answer: Any, says: str | None) -> None:
    found = told(HEAD, f"print(json.dumps(problem({status}, {answer!r})))")
    assert json.loads(found) == says


def test_a_conversation_that_goes_to_and_fro_between_versions() -> None:
    found = told(
        HEAD, f"print(json.dumps([problem(200, {{**{GOOD!r}, 'model_version': one}}) for one in '12122']))"
    )
    to_and_fro = "answered by version 2, to and fro within its conversation"
    assert json.loads(found) == [None, None, None, to_and_fro, to_and_fro]
