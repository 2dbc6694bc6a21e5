"""How a request is read: whatever comes in, a request or a refusal with a reason comes out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.chat import wire
from serving.chat.wire import MAX_BODY_BYTES, ChatAnswer, ChatRequest, Refusal

SAID = st.text(min_size=1, max_size=300).filter(lambda text: not wire.is_blank(text))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_body_is_a_request_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(wire.parse_body(body), ChatRequest)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "language", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_request_or_a_refusal(document: object) -> None:
    try:
        request = wire.parse_body(json.dumps(document).encode())
    except Refusal as refusal:
        assert 400 <= refusal.status < 500
    else:
        assert isinstance(document, dict)
        assert request.text == document["text"]


@given(SAID, st.sampled_from([None, "zh", "en"]), st.booleans())
def test_what_was_said_arrives_unchanged(text: str, language: str | None, ascii_only: bool) -> None:
    body = json.dumps({"text": text, "language": language}, ensure_ascii=ascii_only).encode()
    if len(body) <= MAX_BODY_BYTES:
        request = wire.parse_body(body)
        assert (request.text, request.language) == (text, language)


@given(SAID, SAID)
def test_digests_tell_requests_apart(one: str, other: str) -> None:
    first, second = ChatRequest(text=one), ChatRequest(text=other)
    assert (first.digest() == second.digest()) == (one == other)
    assert first.digest() != ChatRequest(text=one, language="en").digest()


def test_the_limit_is_exact() -> None:
    frame = len('{"text":""}')
    fits = json.dumps({"text": "x" * (MAX_BODY_BYTES - frame)}, separators=(",", ":")).encode()
    assert len(fits) == MAX_BODY_BYTES
    assert wire.parse_body(fits)
    with pytest.raises(Refusal) as refusal:
        wire.parse_body(fits + b" ")
    assert refusal.value.status == 413


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("", True),
        (" \t\n", True),
        ("\u3000", True),
        ("\u200b\ufeff", True),
        ("\x00", True),
        (".", False),
        ("你", False),
    ],
)
def test_blank(text: str, blank: bool) -> None:
    assert wire.is_blank(text) is blank


@pytest.mark.parametrize(
    ("value", "ok"),
    [
        ("application/json", True),
        ("Application/JSON; Charset=UTF-8", True),
        ('application/json; charset="utf-8"; profile=x', True),
        ("application/json;charset=latin-1", False),
        ("text/json", False),
        ("text/plain", False),
        ("", False),
        (None, False),
    ],
)
def test_content_types(value: str | None, ok: bool) -> None:
    if ok:
        wire.check_content_type(value)
        return
    with pytest.raises(Refusal) as refusal:
        wire.check_content_type(value)
    assert refusal.value.status == 415


@given(st.lists(st.text(max_size=200), max_size=3))
def test_any_headers_are_usable_or_refused(values: list[str]) -> None:
    for read in (wire.session_id, wire.idempotency_key):
        try:
            found = read(values)
        except Refusal as refusal:
            assert refusal.status == 400
        else:
            assert found is None or (values == [found] and found.isascii() and found.isprintable())
    made = wire.request_id(values)
    assert made.isascii()
    assert 0 < len(made) <= 128


@pytest.mark.parametrize(
    ("hosts", "shadow"),
    [
        (["gateway-shadow"], True),
        (["gateway-shadow:8080"], True),
        (["gateway"], False),
        (["shadow"], False),
        (["gateway-shadow.example"], False),
        (["a-shadow", "b-shadow"], False),
        ([], False),
    ],
)
def test_shadow_hosts(hosts: list[str], shadow: bool) -> None:
    assert wire.is_shadow(hosts) is shadow


@given(st.lists(st.text(max_size=30), max_size=2))
def test_any_number_is_in_its_bounds_or_refused(values: list[str]) -> None:
    try:
        assert 1 <= wire.number(values, "limit", 7, low=1, high=9) <= 9
    except Refusal as refusal:
        assert refusal.status == 400


def test_the_answer_digest_is_of_what_the_customer_sees() -> None:
    answer = ChatAnswer(
        intent="greeting",
        confidence=0.9,
        answer="Hello!",
        language="en",
        handover=False,
        model="chat-intent",
        model_version="1",
        tier="core",
        request_id="a",
    )
    same = answer.model_copy(
        update={"request_id": "b", "model_version": "2", "confidence": 0.5, "tier": "edge"}
    )
    assert same.digest() == answer.digest()
    for change in ({"answer": "Hi!"}, {"intent": "handover"}, {"language": "zh"}, {"handover": True}):
        assert answer.model_copy(update=change).digest() != answer.digest()
    assert json.loads(answer.encode())["answer"] == "Hello!"
