"""One replica as its clients see it: the contract, bad input, retries, metrics. A real process, registry and model."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import uuid
from typing import Any

import pytest

from models.intents import ANSWERABLE
from serving.answers import Answers
from serving.chat.wire import MAX_BODY_BYTES
from tests.serving.chat.replicas import HEADERS, PORT, ReplicaProcess, exchange
from tests.serving.conftest import Champion


@pytest.mark.parametrize(
    ("text", "fields", "language"),
    [
        ("I lost my card yesterday", {}, "en"),
        ("我的银行卡丢了", {}, "zh"),
        ("我的银行卡丢了", {"language": "en"}, "en"),
        ("I lost my card", {"language": "zh"}, "zh"),
        ("I lost my card", {"language": None, "client_version": 7}, "en"),
    ],
)
def test_a_question_is_answered(
    chat: ReplicaProcess, champion: Champion, text: str, fields: dict[str, object], language: str
) -> None:
    reply = chat.ask(text, **fields)
    assert reply.status == 200
    answer = reply.json()
    assert answer["intent"] in ANSWERABLE
    assert 0 <= answer["confidence"] <= 1
    assert answer["language"] == language
    assert answer["answer"] == Answers.load()[answer["intent"]].text(language)
    assert (answer["model"], answer["model_version"]) == (champion.name, champion.version)
    assert answer["tier"] == "core"
    assert reply.headers["x-model-version"] == champion.version
    assert reply.headers["x-request-id"] == answer["request_id"]
    assert len(reply.headers["x-answer-digest"]) == 64


def test_a_lost_card_is_understood_in_both_languages(chat: ReplicaProcess) -> None:
    assert chat.ask("I lost my card yesterday").json()["intent"] == "card_lost"
    assert chat.ask("我的银行卡丢了，怎么挂失").json()["intent"] == "card_lost"


def test_the_digest_is_that_of_the_answer_not_of_the_request(chat: ReplicaProcess) -> None:
    digests = {chat.ask("I lost my card yesterday").headers["x-answer-digest"] for _ in range(3)}
    assert len(digests) == 1
    assert chat.ask("I lost my card yesterday", language="zh").headers["x-answer-digest"] not in digests


@pytest.mark.parametrize("text", ["x" * 8000, "?!", "🙂", "a\u0000b", "９" * 500, "‮abc", "😀" * 600, "1234"])
def test_odd_texts_are_answered(chat: ReplicaProcess, text: str) -> None:
    assert chat.ask(text).status == 200


J = {"Content-Type": "application/json"}
BAD = [
    # what, headers beside the session, body, status, code
    ("nothing", J, b"", 400, "body_empty"),
    ("spaces", J, b"  \n", 400, "body_empty"),
    ("broken JSON", J, b'{"text": "hi"', 400, "not_json"),
    ("trailing characters", J, b'{"text": "hi"} x', 400, "not_json"),
    ("invalid UTF-8", J, b'{"text": "\xff\xfe"}', 400, "not_json"),
    ("a lone surrogate", J, b'{"text": "\\ud800"}', 400, "not_json"),
    ("UTF-16", J, '{"text": "hi"}'.encode("utf-16"), 400, "not_json"),
    ("deep nesting", J, b"[" * 8000, 400, "not_json"),
    ("an endless number", J, b'{"text": "hi", "n": ' + b"9" * 5000 + b"}", 400, "not_json"),
    ("a list", J, b"[]", 400, "not_an_object"),
    ("a string", J, b'"hi"', 400, "not_an_object"),
    ("null", J, b"null", 400, "not_an_object"),
    ("no text", J, b"{}", 400, "text_missing"),
    ("text is a number", J, b'{"text": 1}', 400, "text_not_a_string"),
    ("text is null", J, b'{"text": null}', 400, "text_not_a_string"),
    ("text is a list", J, b'{"text": ["hi"]}', 400, "text_not_a_string"),
    ("an empty text", J, b'{"text": ""}', 400, "text_empty"),
    ("a blank text", J, '{"text": " \u3000\u200b\\n"}'.encode(), 400, "text_empty"),
    ("an unknown language", J, b'{"text": "hi", "language": "fr"}', 400, "language_unknown"),
    ("language is a number", J, b'{"text": "hi", "language": 1}', 400, "language_unknown"),
    ("too long a text", J, json.dumps({"text": "x" * MAX_BODY_BYTES}).encode(), 413, "too_long"),
    ("too long a body", J, b" " * 500_000, 413, "too_long"),
    ("no content type", {}, b'{"text": "hi"}', 415, "content_type"),
    ("a form", {"Content-Type": "application/x-www-form-urlencoded"}, b"text=hi", 415, "content_type"),
    (
        "another charset",
        {"Content-Type": "application/json; charset=gbk"},
        b'{"text": "hi"}',
        415,
        "content_type",
    ),
    ("a pickle", {"Content-Type": "application/vnd.bentoml+pickle"}, b"\x80\x04.", 415, "content_type"),
    ("an empty key", J | {"Idempotency-Key": ""}, b'{"text": "hi"}', 400, "idempotency_key_invalid"),
    ("a long key", J | {"Idempotency-Key": "k" * 256}, b'{"text": "hi"}', 400, "idempotency_key_invalid"),
]


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_input_is_refused_with_a_reason(
    chat: ReplicaProcess, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    # On one connection with a good request after it: a refusal must not cost the client its connection.
    connection = http.client.HTTPConnection(chat.host, PORT, timeout=30)
    reply = exchange(connection, "/v1/chat", "POST", body, {"X-Session-Id": "s", **headers})
    assert (reply.status, reply.error) == (status, code)
    after = exchange(connection, "/v1/chat", "POST", b'{"text": "hello"}', HEADERS)
    assert after.status == 200
    connection.close()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "session_missing"),
        ({"X-Session-Id": ""}, "session_invalid"),
        ({"X-Session-Id": "a b"}, "session_invalid"),
        ({"X-Session-Id": "s" * 129}, "session_invalid"),
    ],
)
def test_a_session_is_needed(chat: ReplicaProcess, headers: dict[str, str], code: str) -> None:
    reply = chat.call("/v1/chat", "POST", b'{"text": "hi"}', J | headers)
    assert (reply.status, reply.error) == (400, code)
    assert "X-Session-Id" in reply.json()["error"]["message"]


def test_a_body_far_too_long_is_refused_before_it_is_sent(chat: ReplicaProcess) -> None:
    with socket.create_connection((chat.host, PORT), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Session-Id: s\r\n"
            b"Content-Length: 10000000000\r\n\r\n"
        )
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status == 413
        assert response.getheader("connection") == "close"
        assert json.loads(response.read())["error"]["code"] == "too_long"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat", 405, "method_not_allowed"),
        ("PUT", "/v1/chat", 405, "method_not_allowed"),
        ("POST", "/readyz", 405, "method_not_allowed"),
        ("POST", "/answers", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/docs.json", 404, "not_found"),
        ("GET", "/v1/chat/", 404, "not_found"),
        ("POST", "/v1/../v1/chat", 404, "not_found"),
        ("POST", "/v1/voice", 404, "not_found"),
    ],
)
def test_other_paths_and_methods(
    chat: ReplicaProcess, method: str, path: str, status: int, code: str
) -> None:
    reply = chat.call(path, method, b"{}" if method != "GET" else None, J)
    assert (reply.status, reply.error) == (status, code)
    assert status != 405 or reply.headers["allow"]


@pytest.mark.parametrize("sent", ["abc-123", "0af7651916cd43dd8448eb211c80319c"])
def test_the_request_id_is_kept(chat: ReplicaProcess, sent: str) -> None:
    assert chat.ask("hello", headers={"X-Request-Id": sent}).headers["x-request-id"] == sent


def test_an_unusable_request_id_is_replaced(chat: ReplicaProcess) -> None:
    reply = chat.ask("hello", headers={"X-Request-Id": "<script>"})
    assert reply.status == 200
    assert reply.headers["x-request-id"] not in ("", "<script>")


def test_a_turn_retried_is_answered_once(chat: ReplicaProcess) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = chat.ask("where is my transfer", headers=key)
    again = chat.ask("where is my transfer", headers=key)
    assert first.status == again.status == 200
    assert first.body == again.body
    assert chat.ask("where is my transfer", headers=key | {"X-Session-Id": "other"}).body != first.body


def test_a_key_is_for_one_question(chat: ReplicaProcess) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    assert chat.ask("hello", headers=key).status == 200
    reply = chat.ask("goodbye", headers=key)
    assert (reply.status, reply.error) == (422, "idempotency_key_reused")
    assert chat.ask("hello", language="zh", headers=key).status == 422


def test_duplicates_at_once_get_one_answer(chat: ReplicaProcess) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(chat.ask("pay my bill", headers=key).body))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies) == 8
    assert len(set(bodies)) == 1


def test_requests_are_counted(chat: ReplicaProcess, champion: Champion) -> None:
    refused = 'switchboard_requests_total{code="415",intent="none",traffic="customer"}'
    before = chat.metric(refused)
    chat.call("/v1/chat", "POST", b"{}", {"X-Session-Id": "s"})
    assert chat.metric(refused) == before + 1
    chat.ask("I lost my card yesterday")
    assert chat.metric('switchboard_requests_total{code="200",intent="card_lost",traffic="customer"}') >= 1
    assert chat.metric('switchboard_request_seconds_bucket{code="200",le="0.3",traffic="customer"}') >= 1
    info = f'switchboard_model_info{{model="{champion.name}",source="registry",version="{champion.version}"}}'
    assert chat.metric(info) == 1
    assert chat.metric("switchboard_max_concurrency") == 32
    assert chat.metric("switchboard_requests_in_flight") == 0
    assert chat.metric("switchboard_ready") == 1
    assert chat.metric("switchboard_model_load_seconds") > 0
    assert chat.metric("process_resident_memory_bytes") > 50 * 2**20
    assert chat.metric("process_cpu_seconds_total") > 0


SHADOW = {"Host": "gateway-shadow"}


def test_a_shadow_request_is_answered_and_leaves_nothing_behind(chat: ReplicaProcess) -> None:
    name = 'switchboard_requests_total{{code="200",intent="card_lost",traffic="{0}"}}'
    latency = 'switchboard_request_seconds_count{{code="200",traffic="{0}"}}'
    series = [each.format(one) for one in ("customer", "shadow") for each in (name, latency)]
    before = [chat.metric(one) for one in series]
    key = {"Idempotency-Key": uuid.uuid4().hex}
    shadow = chat.ask("I lost my card yesterday", headers=key | SHADOW)
    assert shadow.status == 200
    assert [chat.metric(one) for one in series] == [*before[:2], *(value + 1 for value in before[2:])]
    # Neither is the turn known to a customer's request, nor a customer's turn to a shadow one.
    customers = chat.ask("I lost my card yesterday", headers=key)
    again = chat.ask("something else entirely", headers=key | SHADOW)
    assert customers.status == again.status == 200
    assert len({reply.json()["request_id"] for reply in (shadow, customers, again)}) == 3
    assert customers.headers["x-answer-digest"] == shadow.headers["x-answer-digest"]


def test_what_was_answered_last_is_told(chat: ReplicaProcess) -> None:
    def told(query: str = "") -> dict[str, Any]:
        reply = chat.call(f"/answers{query}")
        assert reply.status == 200
        found: dict[str, Any] = reply.json()
        return found

    started, last = told()["started"], told()["last"]
    assert 0 < time.time() - started < 24 * 3600
    names = [uuid.uuid4().hex for _ in range(3)]
    digests = [
        chat.ask("I lost my card yesterday", headers={"X-Request-Id": name, **host}).headers[
            "x-answer-digest"
        ]
        for name, host in zip(names, ({}, SHADOW, {}), strict=True)
    ]
    assert chat.ask("", headers={"X-Request-Id": "refused"}).status == 400
    found = told(f"?after={last}")
    assert (found["started"], found["last"]) == (started, last + 3)
    for number, (row, name, digest) in enumerate(
        zip(found["answers"], names, digests, strict=True), last + 1
    ):
        assert row[0] == number
        assert abs(row[1] - time.time()) < 60
        assert row[2:] == [name, digest, "card_lost", False, name == names[1], "en"]
    assert [row[0] for row in told(f"?after={last}&limit=1")["answers"]] == [last + 1]
    assert told(f"?after={last + 3}")["answers"] == []


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "limit=1.5", "after=1&after=2", "limit=" + "9" * 30]
)
def test_what_is_no_number_is_refused(chat: ReplicaProcess, query: str) -> None:
    reply = chat.call(f"/answers?{query}")
    assert (reply.status, reply.error) == (400, "not_a_number")
    assert query.partition("=")[0] in reply.json()["error"]["message"]


def test_unknown_paths_make_no_series(chat: ReplicaProcess) -> None:
    for _ in range(3):
        chat.call(f"/{uuid.uuid4().hex}")
    series = chat.call("/metrics").body.decode()
    endpoints = {part.split('"')[1] for part in series.split("endpoint=")[1:]}
    assert endpoints <= {"/v1/chat", "/answers", "/livez", "/readyz"}


def test_what_customers_write_is_nowhere(chat: ReplicaProcess) -> None:
    marker = f"secret{uuid.uuid4().hex}"
    assert chat.ask(f"my password is {marker}").status == 200
    refused = [
        chat.ask([marker]),
        chat.ask("hi", language=marker),
        chat.call("/v1/chat", "POST", f'{{"text": "{marker}'.encode(), HEADERS),
        chat.call("/v1/chat", "POST", f'{{"text": "{marker}"}}'.encode(), J),
    ]
    assert all(marker.encode() not in reply.body and reply.status < 500 for reply in refused)
    assert marker not in chat.log
    assert marker not in chat.call("/metrics").body.decode()
    assert marker not in chat.call("/answers?limit=2000").body.decode()
