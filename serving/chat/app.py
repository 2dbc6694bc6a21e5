"""`POST /v1/chat`: a question in, an intent and the customer's answer out. `GET /answers`: what was answered last.

The handler reads a bounded body in bounded time, admits a bounded number of requests, and asks the model. Beyond that
number it answers 503 with `Retry-After` at once: a queue would only turn an overload into an outage. (`front` says so
to most of them, before anything is done for them.) What the customer
wrote is in no log, metric or error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from models.intents import HANDOVER
from serving.answers import Answers
from serving.chat import language, recent, wire
from serving.chat.idempotency import Turns
from serving.chat.metrics import CUSTOMER, NO_INTENT, SHADOW
from serving.chat.recent import Answered, Recent
from serving.chat.replica import Replica
from serving.chat.settings import Settings
from serving.chat.wire import ChatAnswer, ChatRequest, Refusal

log = logging.getLogger(__name__)

PATH = "/v1/chat"
ANSWERS = "/answers"

BODY_TIMEOUT_S = 10.0
DISCARD_BYTES = 1024 * 1024
"""So much of a body that is too long is read and thrown away, so that the client gets to read the answer."""


@dataclass(frozen=True)
class _Turn:
    """An answer, and whether it stands in for the model's, which has no text."""

    answer: ChatAnswer
    fallback: bool


class ChatApp:
    """The ASGI application that BentoML mounts."""

    def __init__(self, replica: Replica, answers: Answers, settings: Settings) -> None:
        self._replica = replica
        self._answers = answers
        self._tier = settings.tier
        self._turns: Turns[_Turn] = Turns()
        self._recent = Recent(time.time())
        self._unknown_intents: set[str] = set()

    def starlette(self) -> Starlette:
        return Starlette(
            routes=[
                Route(PATH, self.handle, methods=["POST"]),
                Route(ANSWERS, self.answers, methods=["GET"]),
            ]
        )

    async def answers(self, request: Request) -> Response:
        """The last answers after the sequence number `after`, at most `limit` of them."""
        query = request.query_params
        try:
            after = wire.number(query.getlist("after"), "after", 0, low=0, high=2**62)
            limit = wire.number(query.getlist("limit"), "limit", recent.LIMIT, low=1, high=recent.MOST)
        except Refusal as refusal:
            return _refused(refusal, wire.request_id(_values(request, "x-request-id")))
        found = json.dumps(self._recent.after(after, limit), separators=(",", ":"))
        return Response(found, media_type="application/json", headers={"Cache-Control": "no-store"})

    async def handle(self, request: Request) -> Response:
        """Every request is answered here, whatever goes wrong, and counted once."""
        started = time.perf_counter()
        request_id = wire.request_id(_values(request, "x-request-id"))
        shadow = wire.is_shadow(_values(request, "host"))
        traffic, intent = SHADOW if shadow else CUSTOMER, NO_INTENT
        metrics = self._replica.metrics
        try:
            turn = await self._turn(request, request_id, shadow)
        except Refusal as refusal:
            response = _refused(refusal, request_id)
        except Exception as error:
            # The message of an exception may quote the text that caused it; its type and place don't.
            log.error("request %s failed: %s", request_id, _place(error))
            response = _refused(Refusal(500, "internal", "the request could not be answered"), request_id)
        else:
            intent, digest = turn.answer.intent, turn.answer.digest()
            response = _answered(turn.answer, digest, request_id)
            at, language = round(time.time(), 3), turn.answer.language
            self._recent.add(Answered(at, request_id, digest, intent, turn.fallback, shadow, language))
            if turn.fallback:
                metrics.fallbacks.labels(traffic).inc()
        code = str(response.status_code)
        metrics.requests.labels(code, intent, traffic).inc()
        metrics.seconds.labels(code, traffic).observe(time.perf_counter() - started)
        return response

    async def _turn(self, request: Request, request_id: str, shadow: bool) -> _Turn:
        # The body first: a refusal that leaves it unread would cost the client its connection.
        body = await _body(request)
        session = wire.session_id(_values(request, "x-session-id"))
        key = wire.idempotency_key(_values(request, "idempotency-key"))
        wire.check_content_type(request.headers.get("content-type"))
        asked = wire.parse_body(body)
        replica = self._replica
        if replica.full:
            raise wire.full()
        replica.in_flight += 1
        replica.metrics.in_flight.inc()
        try:
            if key is None or shadow:
                return await self._answer(asked, request_id)
            answer, replayed = await self._turns.once(
                session,
                key,
                asked.digest(),
                lambda: self._answer(asked, request_id),
                now_s=time.monotonic(),
            )
            if replayed:
                replica.metrics.replays.inc()
            return answer
        finally:
            replica.in_flight -= 1
            replica.metrics.in_flight.dec()

    async def _answer(self, asked: ChatRequest, request_id: str) -> _Turn:
        serving = self._replica.serving
        if serving is None:
            raise Refusal(503, "not_ready", "this replica has no model yet; try again", retry_after_s=1)
        prediction = await serving.predict(asked.text)
        intent = prediction.intent
        fallback = intent not in self._answers
        if fallback:
            if intent not in self._unknown_intents:
                self._unknown_intents.add(intent)
                log.error("model version %s says %r, which has no answer", serving.model.version, intent)
            intent = HANDOVER
        tongue = asked.language or language.detect(asked.text)
        answer = self._answers[intent]
        made = ChatAnswer(
            intent=intent,
            confidence=round(min(1.0, max(0.0, float(prediction.confidence))), 4),
            answer=answer.text(tongue),
            language=tongue,
            handover=answer.handover,
            model=serving.model.name,
            model_version=serving.model.version,
            tier=self._tier,
            request_id=request_id,
        )
        return _Turn(made, fallback)


async def _body(request: Request) -> bytes:
    """The whole body, at most `MAX_BODY_BYTES` long and at most `BODY_TIMEOUT_S` under way."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > DISCARD_BYTES:
        raise wire.too_long(close=True)
    body = bytearray()
    received = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                received += len(chunk)
                if received > DISCARD_BYTES:
                    raise wire.too_long(close=True)
                if received <= wire.MAX_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        raise Refusal(408, "body_timeout", "the body didn't arrive in time", close=True) from None
    except ClientDisconnect:
        raise Refusal(400, "disconnected", "the connection ended before the body did", close=True) from None
    if received > wire.MAX_BODY_BYTES:
        raise wire.too_long()
    return bytes(body)


def _values(request: Request, header: str) -> Sequence[str]:
    return request.headers.getlist(header)


def _answered(answer: ChatAnswer, digest: str, request_id: str) -> Response:
    return Response(
        answer.encode(),
        media_type="application/json",
        headers={
            "X-Request-Id": request_id,
            "X-Answer-Digest": digest,
            "X-Model-Version": answer.model_version,
            "Cache-Control": "no-store",
        },
    )


def _refused(refusal: Refusal, request_id: str) -> Response:
    headers = {"X-Request-Id": request_id, "Cache-Control": "no-store"}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.close:
        headers["Connection"] = "close"
    return Response(refusal.body(request_id), refusal.status, media_type="application/json", headers=headers)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"
    return f"{type(error).__name__} at {where}"
