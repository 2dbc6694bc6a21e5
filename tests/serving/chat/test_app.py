"""The handler where a real replica can't be brought at will: at its limit, with a body that never ends, with a bug."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route

from models import loading
from models.loading import LoadedModel, Prediction
from serving.answers import Answers
from serving.chat import app as app_module
from serving.chat import front
from serving.chat.app import ChatApp
from serving.chat.batching import Batcher
from serving.chat.front import Front
from serving.chat.metrics import Metrics
from serving.chat.replica import LONGEST_RETRY_S, Replica, Serving, retry_delay_s
from serving.chat.settings import Settings
from tests.serving.conftest import Champion


@pytest.fixture(scope="session")
def model(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loading.load(
        champion.env["MODEL_URI"], tmp_path_factory.mktemp("models"), tracking_uri=champion.registry
    )


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def replica(model: LoadedModel, registry: CollectorRegistry) -> Replica:
    found = Replica(lambda: model, Metrics(registry), max_concurrency=2)
    found.serving = Serving(model, Batcher(model.predict, in_thread=False))
    return found


async def call(
    replica: Replica,
    *chunks: bytes | None,
    path: str = "/v1/chat",
    method: str = "POST",
    application: Starlette | None = None,
    more: bool = True,
) -> tuple[int, dict[str, str], Any]:
    """One request whose body comes in `chunks`; None stands for a pause without end."""
    parts = iter(chunks)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        part = next(parts, b"")
        if part is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": more and part != b""}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"x-session-id", b"s")]
    scope = {
        **{"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""},
        **{"headers": headers, "root_path": "", "scheme": "http", "http_version": "1.1"},
    }
    inner = application or ChatApp(replica, Answers.load(), Settings()).starlette()
    await Front(inner, replica)(scope, receive, send)
    start = sent[0]
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], names, json.loads(b"".join(part["body"] for part in sent[1:]))


QUESTION = b'{"text": "I lost my card"}'


async def test_beyond_its_concurrency_it_says_so_at_once(replica: Replica) -> None:
    replies = await asyncio.gather(*(call(replica, QUESTION) for _ in range(5)))
    assert sorted(status for status, *_ in replies) == [200, 200, 503, 503, 503]
    shed = next(reply for reply in replies if reply[0] == 503)
    assert shed[1]["retry-after"] == "1"
    assert shed[2]["error"]["code"] == "overloaded"
    assert replica.in_flight == 0
    assert (await call(replica, QUESTION))[0] == 200


@pytest.mark.parametrize("more", [False, True], ids=["whole", "in pieces"])
async def test_a_full_replica_refuses_before_anything_else(
    replica: Replica, registry: CollectorRegistry, more: bool
) -> None:
    def served(*_: Any) -> Any:
        raise AssertionError("nothing is done for it")

    application = Starlette(routes=[Route("/v1/chat", served, methods=["POST"])])
    replica.in_flight = replica.max_concurrency
    status, headers, body = await call(
        replica, QUESTION, more=more, application=None if more else application
    )
    assert (status, headers["retry-after"], headers["cache-control"]) == (503, "1", "no-store")
    assert body["error"]["code"] == "overloaded"
    counted = {"code": "503", "intent": "none", "traffic": "customer"}
    assert registry.get_sample_value("switchboard_requests_total", counted) == 1
    replica.in_flight = 0
    assert (await call(replica, QUESTION, more=more))[0] == 200


async def test_a_full_replica_waits_for_no_body(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "BEGIN_S", 0.2)
    monkeypatch.setattr(app_module, "BODY_TIMEOUT_S", 0.2)
    replica.in_flight = replica.max_concurrency
    status, headers, body = await call(replica, None, None)
    assert (status, headers["connection"], body["error"]["code"]) == (408, "close", "body_timeout")
    assert (await call(replica, None, QUESTION))[0] == 503, "it was full still"


async def test_a_slow_body_is_given_up_and_holds_no_place(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "BODY_TIMEOUT_S", 0.2)
    slow = [asyncio.create_task(call(replica, QUESTION[:5], None)) for _ in range(5)]
    await asyncio.sleep(0)
    assert (await call(replica, QUESTION))[0] == 200
    for status, headers, body in await asyncio.gather(*slow):
        assert (status, headers["connection"], body["error"]["code"]) == (408, "close", "body_timeout")


async def test_a_body_without_end_is_cut_off(replica: Replica) -> None:
    status, headers, body = await call(replica, *[b"x" * 65536] * 1000)
    assert (status, headers["connection"], body["error"]["code"]) == (413, "close", "too_long")


async def test_a_body_in_pieces_is_one(replica: Replica) -> None:
    assert (await call(replica, *(bytes([byte]) for byte in QUESTION)))[0] == 200


async def test_a_bug_is_a_500_that_tells_nothing(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    def broken(texts: list[str]) -> list[Prediction]:
        raise ValueError(f"can't read {texts[0]}")

    assert replica.serving is not None
    replica.serving = Serving(replica.serving.model, Batcher(broken, in_thread=False))
    status, _, body = await call(replica, QUESTION)
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "ValueError" in caplog.text
    assert "lost my card" not in caplog.text + json.dumps(body)


async def test_an_intent_without_an_answer_goes_to_a_person(
    replica: Replica, registry: CollectorRegistry
) -> None:
    def newer(texts: list[str]) -> list[Prediction]:
        return [Prediction("buy_crypto", 0.9) for _ in texts]

    assert replica.serving is not None
    replica.serving = Serving(replica.serving.model, Batcher(newer, in_thread=False))
    application = ChatApp(replica, Answers.load(), Settings()).starlette()
    status, _, body = await call(replica, QUESTION, application=application)
    assert (status, body["intent"], body["handover"]) == (200, "handover", True)
    assert registry.get_sample_value("switchboard_fallbacks_total", {"traffic": "customer"}) == 1
    (row,) = (await call(replica, path="/answers", method="GET", application=application))[2]["answers"]
    assert row[4:] == ["handover", True, False, "en"], "the hand-off is the replica's own"


async def test_while_it_drains_it_answers_and_closes(replica: Replica) -> None:
    assert "connection" not in (await call(replica, QUESTION))[1]
    replica.drain()
    status, headers, _ = await call(replica, QUESTION)
    assert (status, headers["connection"]) == (200, "close")
    assert (await call(replica, b"", path="/nowhere"))[1]["connection"] == "close"
    assert replica.not_ready_because() == "draining"


async def test_a_model_is_tried_until_it_comes(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.chat.replica.FIRST_RETRY_S", 0.01)
    tries: list[int] = []

    def load() -> LoadedModel:
        tries.append(1)
        if len(tries) < 4:
            raise OSError("registry away")
        return model

    replica = Replica(load, Metrics(CollectorRegistry()), max_concurrency=2)
    replica.start()
    async with asyncio.timeout(30):
        while replica.not_ready_because() is not None:
            await asyncio.sleep(0.01)
    assert len(tries) == 4
    replica.close()


def test_retries_grow_and_are_bounded() -> None:
    delays = [retry_delay_s(failures, 1.0) for failures in range(1, 30)]
    assert delays == sorted(delays)
    assert delays[0] == 0.5
    assert delays[-1] == LONGEST_RETRY_S
    assert retry_delay_s(30, 0.0) == LONGEST_RETRY_S / 2
