"""The outermost layer of a replica: what reaches BentoML's application, and how connections end.

- Only the service's own paths go through. The rest is a JSON 404 here, so that BentoML's development pages stay hidden
  and its metrics, which count by path, keep a bounded number of series.
- While the replica drains, every answer says `Connection: close`: clients that keep connections open go elsewhere with
  their next request, and none is cut off.
- What goes wrong below is a JSON 500, never a half answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from serving.chat import wire
from serving.chat.replica import Replica
from serving.chat.wire import Refusal

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS: Final[dict[str, tuple[str, ...]]] = {
    "/v1/chat": ("POST",),
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
                await self._app(scope, receive, sending)
            except Exception as error:
                log.error("%s failed: %s", path, type(error).__name__)
                if started:
                    raise
                await _refuse(sending, scope, Refusal(500, "internal", "the request could not be answered"))


async def _refuse(
    send: Send, scope: Scope, refusal: Refusal, header: tuple[bytes, bytes] | None = None
) -> None:
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"]
    request_id = wire.request_id(given)
    body = refusal.body(request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *([header] if header else []),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
