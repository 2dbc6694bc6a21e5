"""The question at the end of `up`, asked of a real HTTP server that answers as gateways do."""

from __future__ import annotations

import json
import socket

import pytest

from infra.ask import ask
from infra.status import Endpoints, Status
from infra.up import _entrance
from switchboard.errors import SwitchboardError
from tests.gateways import Reply, gateway

GOOD = json.dumps({"answer": "Call us.", "intent": "card_lost"}).encode()


@pytest.mark.parametrize(
    "before",
    [[], [(503, b"no healthy upstream")], [(502, b""), (504, b""), (503, b"")], [(200, b"<html>")]],
    ids=["at once", "503", "all kinds", "no JSON"],
)
def test_it_asks_until_it_is_answered(before: list[Reply]) -> None:
    with gateway([*before, (200, GOOD)]) as server:
        answered = ask(server.url, "I lost my card", language="en")
        assert answered.body["intent"] == "card_lost"
        assert answered.question == "I lost my card"
        assert answered.url == server.url
        assert answered.seconds > 0
        assert len(server.asked) == len(before) + 1
        for path, body, session in server.asked:
            assert path == "/v1/chat"
            assert body == {"text": "I lost my card", "language": "en"}
            assert session


@pytest.mark.parametrize("status", [400, 404, 413, 500])
def test_a_refusal_is_an_error_at_once(status: int) -> None:
    with gateway([(status, b'{"error": "too long"}'), (200, GOOD)]) as server:
        with pytest.raises(SwitchboardError, match=f"refused the question: {status} .*too long"):
            ask(server.url, "x")
        assert len(server.asked) == 1


def test_the_last_reason_is_told_when_time_is_up() -> None:
    with gateway([(503, b"no replicas")]) as server, pytest.raises(SwitchboardError) as caught:
        ask(server.url, "x", deadline_s=0)
    assert "503 no replicas" in str(caught.value)
    assert "switchboard status" in str(caught.value)


def test_nobody_there() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        with pytest.raises(SwitchboardError, match=r"did not answer within 0 s: .*refused"):
            ask(f"http://127.0.0.1:{reserved.getsockname()[1]}", "x", deadline_s=0)


@pytest.mark.parametrize(
    ("endpoints", "url"),
    [
        (Endpoints(gateway="http://g"), "http://g"),
        (Endpoints(gateway="http://g", edges={"b": "http://b", "a": "http://a"}), "http://a"),
    ],
)
def test_customers_come_in_at_the_first_edge(endpoints: Endpoints, url: str) -> None:
    assert _entrance(Status(stack="x", healthy=True, endpoints=endpoints, sites={})) == url


def test_no_entrance() -> None:
    with pytest.raises(SwitchboardError, match="no gateway"):
        _entrance(Status(stack="x", healthy=False, endpoints=Endpoints(), sites={}))
