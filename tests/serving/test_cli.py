"""`switchboard serving ask`, asked of a real HTTP server."""

from __future__ import annotations

import json
import socket

import pytest
from typer.testing import CliRunner

from serving.cli import app, ask_chat
from switchboard.errors import SwitchboardError
from tests.gateways import Reply, gateway

ANSWER = {
    "answer": "Call us.",
    "intent": "card_lost",
    "confidence": 0.913,
    "model": "chat-intent",
    "model_version": "3",
    "tier": "core",
    "handover": True,
}
GOOD = json.dumps(ANSWER).encode()
REFUSED = json.dumps({"error": {"code": "too_long", "message": "at most 2000 characters"}}).encode()


def test_one_question_and_its_answer() -> None:
    with gateway([(200, GOOD)]) as server:
        found = CliRunner().invoke(
            app, ["ask", "I lost my card", "--url", f"{server.url}/", "--session", "s", "--language", "en"]
        )
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        "Call us.",
        "(card_lost 91%, chat-intent version 3, core, a person takes over)",
    ]
    assert server.asked == [("/v1/chat", {"text": "I lost my card", "language": "en"}, "s")]


def test_for_other_programs() -> None:
    with gateway([(200, GOOD)]) as server:
        found = CliRunner().invoke(app, ["ask", "我的卡丢了", "--url", server.url, "--output", "json"])
    assert json.loads(found.stdout) == ANSWER
    ((_, body, session),) = server.asked
    assert body == {"text": "我的卡丢了"}
    assert session


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((400, REFUSED), "answered 400: at most 2000 characters"),
        ((503, b"no healthy upstream"), "answered 503: no healthy upstream"),
        ((500, b""), "answered 500: no reason given"),
        ((200, b"<html>"), "no answer from http"),
        ((200, b"[]"), "not as the chat service does"),
    ],
    ids=["the service's words", "the gateway's words", "without words", "no JSON", "no answer in it"],
)
def test_what_goes_wrong_is_told_at_once(reply: Reply, reason: str) -> None:
    with gateway([reply, (200, GOOD)]) as server:
        with pytest.raises(SwitchboardError, match=reason):
            ask_chat(server.url, "hello")
        assert len(server.asked) == 1


def test_nobody_there() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        with pytest.raises(SwitchboardError, match=r"no answer from .*refused\n  → .*switchboard status"):
            ask_chat(f"http://127.0.0.1:{reserved.getsockname()[1]}", "hello")


def test_an_address_is_http() -> None:
    with pytest.raises(SwitchboardError, match="no address"):
        ask_chat("127.0.0.1:8080", "hello")
