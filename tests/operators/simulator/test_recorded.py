"""Traffic from a real Prometheus, and what is said where there is none, or something else answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from operators.signals.values import Key
from operators.simulator import recorded
from operators.simulator.recorded import Span, of_query, of_service
from switchboard.errors import SwitchboardError
from tests.operators.simulator.conftest import LENGTH_S, STEP_AT_S, Recorded

HOST = "127.37.0.3"
CHAT = Key("chat")
ANSWERED = 'sum(rate(switchboard_requests_total{model_server="chat"}[1m]))'
LONG = timedelta(minutes=110)
"""Without the ten minutes at the beginning."""


def test_what_arrived_not_what_replicas_answered(prometheus: Recorded) -> None:
    """Of all gateways together, each request once; a counter that starts anew is no negative rate."""
    rates = of_service(prometheus.url, CHAT, Span.of(prometheus.end, LONG)).rates(0)
    assert len(rates) == 6600
    expected = np.asarray([prometheus.rate(LENGTH_S - 6600 + second) for second in range(6600)])
    assert np.abs(rates - expected).max() < 0.2 * 100
    assert np.abs(rates - expected).mean() < 1


def test_a_step_stays_a_step(prometheus: Recorded) -> None:
    """No ramp of a minute; and straight lines over what isn't known, which is little."""
    scenario = of_service(prometheus.url, Key("stepped"), Span.of(prometheus.end, LONG))
    rates = scenario.rates(0)
    at = STEP_AT_S - (LENGTH_S - 6600)
    assert rates[: at - 1] == pytest.approx(100)
    assert rates[at + 10 :] == pytest.approx(400)
    assert scenario.gamma_shape is None, "nothing is made up within its steps"


def test_an_edges_own_replicas(prometheus: Recorded) -> None:
    key = Key("chat", "edge", "cn-beijing")
    assert of_service(prometheus.url, key, Span.of(prometheus.end, LONG)).rates(0) == pytest.approx(20)


def test_no_requests_are_traffic_too(prometheus: Recorded) -> None:
    assert not of_service(prometheus.url, Key("idle"), Span.of(prometheus.end, LONG)).rates(0).any()


def test_a_long_range_takes_several_questions(prometheus: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    span = Span.of(prometheus.end, LONG)
    whole = of_service(prometheus.url, CHAT, span).rates(0), of_query(prometheus.url, ANSWERED, span).rates(0)
    monkeypatch.setattr(recorded, "MOST_POINTS", 97)
    parts = of_service(prometheus.url, CHAT, span).rates(0), of_query(prometheus.url, ANSWERED, span).rates(0)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)


def test_two_weeks_are_asked_for_in_steps_of_10_s(prometheus: Recorded) -> None:
    """More than Prometheus gives at once: it is only too little that it knows."""
    with pytest.raises(SwitchboardError, match=r"knows 72\d0 of 1209600 s of requests to chat, between "):
        of_service(prometheus.url, CHAT, Span.of(prometheus.end, timedelta(days=14)))


def test_another_query(prometheus: Recorded) -> None:
    rates = of_query(prometheus.url, ANSWERED, Span.of(prometheus.end, LONG)).rates(0)
    assert (rates.min(), rates.max()) == pytest.approx((3 * 50, 3 * 150), rel=0.01)


@pytest.mark.parametrize(
    ("key", "length", "says"),
    [
        pytest.param(
            Key("voice"),
            LONG,
            r"knows no requests to voice from .* to .* UTC\n  → it knows those to chat, chat on the edge of "
            r"cn-beijing, idle, stepped: --model-server, --region",
            id="a service that there isn't",
        ),
        pytest.param(
            Key("server-of-its-own-name"),
            LONG,
            "knows no requests to server-of-its-own-name",
            id="the name of a ModelServer is none of a service",
        ),
        pytest.param(
            Key("chat", "edge", "cn-hangzhou"),
            LONG,
            "knows no requests to chat on the edge of cn-hangzhou",
            id="another edge",
        ),
        pytest.param(
            CHAT, timedelta(hours=12), r"knows 7\d\d0 of 43200 s of requests to chat", id="too long"
        ),
        pytest.param(Key('x"} or vector(1)'), LONG, "is no service's name", id="no name"),
        pytest.param(CHAT, timedelta(seconds=10), "from a minute to 14 days", id="too short"),
        pytest.param(CHAT, timedelta(days=15), "from a minute to 14 days", id="much too long"),
    ],
)
def test_a_service_that_can_t_be_replayed(
    prometheus: Recorded, key: Key, length: timedelta, says: str
) -> None:
    with pytest.raises(SwitchboardError, match=says) as caught:
        of_service(prometheus.url, key, Span.of(prometheus.end, length))
    assert str(caught.value).count("\n") <= 1


def test_a_time_of_which_nothing_is_known(prometheus: Recorded) -> None:
    span = Span.of(prometheus.end - timedelta(days=30), LONG)
    with pytest.raises(
        SwitchboardError, match=r"knows no requests to chat .*\n.*knows no gateway's requests"
    ):
        of_service(prometheus.url, CHAT, span)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ('sum(rate(switchboard_requests_total{model_server="voice"}[1m]))', "gives 0 series, not one"),
        (
            "switchboard_requests_total\n  or\n  up",
            "switchboard_requests_total or up gives 3 series, not one",
        ),
        ("sum(", "HTTP Status Code 400"),
    ],
)
def test_a_query_that_can_t_be_replayed(prometheus: Recorded, query: str, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as caught:
        of_query(prometheus.url, query, Span.of(prometheus.end, LONG))
    assert str(caught.value).count("\n") <= 1


# What is no Prometheus

SPAN = Span.of(datetime(2026, 1, 2, tzinfo=UTC), timedelta(hours=1))


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


SERIES = b'{"status": "success", "data": {"resultType": "matrix", "result": [%s]}}'


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        pytest.param(200, b"<html>\n<body>hello</body></html>", "doesn't answer in JSON", id="a page"),
        pytest.param(404, b"<html>\n<body>none</body></html>", "HTTP Status Code 404", id="no such page"),
        pytest.param(200, b"", "doesn't answer in JSON", id="nothing"),
        pytest.param(500, b"", "HTTP Status Code 500", id="an error without a text"),
        pytest.param(200, b'{"status": "success"}', "doesn't answer as a Prometheus does", id="no data"),
        pytest.param(200, b"[]", "doesn't answer as a Prometheus does", id="a list"),
        pytest.param(200, b'{"data": {"result": null}}', "doesn't answer as a Prometheus", id="no result"),
        pytest.param(200, SERIES % b"7", "doesn't answer as a Prometheus does", id="series that are none"),
        pytest.param(
            200,
            SERIES % b'{"metric": {"envoy_local_http_ratelimit_prefix": "chat"}, "values": [[0, "many"]]}',
            "doesn't answer as a Prometheus does",
            id="values that are none",
        ),
    ],
)
def test_an_answer_of_something_else(status: int, body: bytes, says: str) -> None:
    for ask in (
        lambda url: of_service(url, CHAT, SPAN),
        lambda url: of_query(url, ANSWERED, SPAN),
    ):
        with answering(status, body) as url, pytest.raises(SwitchboardError, match=says) as caught:
            ask(url)
        text = str(caught.value)
        assert text.startswith(f"Prometheus at {url}: ")
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://{HOST}:9", "Connection refused"),
        ("http://127.0.0.1:99999", "Failed to parse"),
        ("http://.example.", "invalid label"),
        ("http://[", "doesn't answer as a Prometheus does"),
        ("localhost:9090", "'localhost:9090' is no Prometheus's address"),
        ("http:///", "is no Prometheus's address"),
        ("", "is no Prometheus's address"),
    ],
)
def test_an_address_of_nothing(url: str, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as caught:
        of_service(url, CHAT, SPAN)
    assert str(caught.value).count("\n") == 1
