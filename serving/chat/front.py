"""The outermost layer of a replica: what reaches BentoML's application, and how connections end.

- Only the service's own paths go through. The rest is a JSON 404 here, so that BentoML's development pages stay hidden
  and its metrics, which count by path, keep a bounded number of series.
- While the replica drains, every answer says `Connection: close`: clients that keep connections open go elsewhere with
  their next request, and none is cut off.
- What goes wrong below is a JSON 500, never a half answer.
- A replica that is full says so here: that costs a fraction of what an answer does. Overloads end where those who are
  refused take little from those who are answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from serving.chat import wire
from serving.chat.metrics import CUSTOMER, NO_INTENT, SHADOW
from serving.chat.replica import Replica
from serving.chat.wire import Refusal

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CHAT: Final = "/v1/chat"
BEGIN_S: Final = 1.0
"""So long is looked at whether a body is there; one that comes later is the application's to wait for."""

METHODS: Final[dict[str, tuple[str, ...]]] = {
    CHAT: ("POST",),
    "/answers": ("GET",),
    "/livez": ("GET", "HEAD"),
    "/readyz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}


class Front:
    def __init__(self, app: App, replica: Replica) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # A WebSocket handshake; the server answers 403 when the application just returns.
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._replica.draining:
                    message["headers"] = [
                        *(pair for pair in message.get("headers", ()) if pair[0] != b"connection"),
                        (b"connection", b"close"),
                    ]
            await send(message)

        path = scope["path"]
        allowed = METHODS.get(path)
        if allowed is None:
            await _refuse(
                sending, scope, Refusal(404, "not_found", "no such path; questions go to POST /v1/chat")
            )
        elif scope["method"] not in allowed:
            await _refuse(
                sending,
                scope,
                Refusal(405, "method_not_allowed", f"use {allowed[0]}"),
                (b"allow", ", ".join(allowed).encode()),
            )
        else:
            try:
                if path == CHAT and self._replica.full:
                    first = await self._first(receive)
                    if first is not None and _whole(first) and self._replica.full:
                        await self._shed(scope, sending)
                        return
                    receive = receive if first is None else _again(first, receive)
                await self._app(scope, receive, sending)
            except Exception as error:
                log.error("%s failed: %s", path, type(error).__name__)
                if started:
                    raise
                await _refuse(sending, scope, Refusal(500, "internal", "the request could not be answered"))

    @staticmethod
    async def _first(receive: Receive) -> Message | None:
        """What of the body is there first; None where that takes too long."""
        try:
            async with asyncio.timeout(BEGIN_S):
                return await receive()
        except TimeoutError:
            return None

    async def _shed(self, scope: Scope, send: Send) -> None:
        begun = time.perf_counter()
        refusal, hosts = wire.full(), _values(scope, b"host")
        traffic = SHADOW if wire.is_shadow(hosts) else CUSTOMER
        await _refuse(send, scope, refusal)
        metrics, code = self._replica.metrics, str(refusal.status)
        metrics.requests.labels(code, NO_INTENT, traffic).inc()
        metrics.seconds.labels(code, traffic).observe(time.perf_counter() - begun)


def _whole(first: Message) -> bool:
    return first["type"] == "http.request" and not first.get("more_body", False)


def _again(first: Message, receive: Receive) -> Receive:
    """With what was received already."""
    messages = [first]

    async def receiving() -> Message:
        return messages.pop() if messages else await receive()

    return receiving


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]


async def _refuse(
    send: Send, scope: Scope, refusal: Refusal, header: tuple[bytes, bytes] | None = None
) -> None:
    request_id = wire.request_id(_values(scope, b"x-request-id"))
    body = refusal.body(request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
        *(
            [(b"retry-after", str(refusal.retry_after_s).encode())]
            if refusal.retry_after_s is not None
            else []
        ),
        *([header] if header else []),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
