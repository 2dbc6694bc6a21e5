"""Requests for a model server that has no replica wait here, until there is one, and are answered by it.

Envoy would answer them with 503 at once. So the agent's routes lead them to this server, on a socket of the pod's own;
it holds each until `open` says that Envoy has an endpoint for it, gives it back to Envoy by the listener `released` (so
that retries, sessions and the rest are as for any request) and passes the answer on as it comes. A replica that is full
says 503, and the request is the next one again. In the way of a request that needs not wait, the agent is not.

Whoever waits too long, or finds the queue full, gets 503 and `Retry-After`; a customer who goes is forgotten. The time
counts from the request's arrival, whatever breaks meanwhile: no try begins after it, and one that has begun is Envoy's
to end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from serving.gateway.listeners import MAX_REQUEST_BYTES, error
from serving.gateway.queues import Queues, Ticket
from serving.gateway.settings import Settings

log = logging.getLogger(__name__)

MOST_BYTES = 32 * 2**20
"""Of the requests that wait, all model servers' together. The agent may use 256 MiB."""
RETRY_AFTER_S = 5
AGAIN_S = (0.05, 1.0)
"""How soon a request that found a full replica is sent again: at first, and at most."""
_HEADER_BYTES = 64 * 1024
"""As many as Envoy takes from customers (60 KiB)."""
_OF_A_CONNECTION = (
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
)


class Activator:
    """An async context manager; it serves from its start, and answers all that wait at its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queues = Queues(most=settings.hold_requests, most_bytes=MOST_BYTES)
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._deadlines: set[asyncio.Timeout] = set()
        self._open: dict[str, int] = {}
        self._latest = float("inf")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._envoy = await stack.enter_async_context(
                aiohttp.ClientSession(
                    # A connection for each request: one that Envoy closes just now must not fail the next request.
                    connector=aiohttp.UnixConnector(
                        str(self._settings.released_socket), force_close=True, limit=0
                    ),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                    max_line_size=_HEADER_BYTES,
                    max_field_size=_HEADER_BYTES,
                )
            )
            server = web.Server(
                self._answer,
                handler_cancellation=True,
                access_log=None,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
            runner = web.ServerRunner(server, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            socket = self._settings.activator_socket
            await web.UnixSite(runner, str(socket)).start()
            socket.chmod(0o600)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.wait_until(0)
        await self._stack.aclose()

    def open(self, slots: Mapping[str, int]) -> None:
        """What Envoy has endpoints for by now: how many requests of each model server may go at once."""
        for server, length in self._queues.lengths().items():
            if slots.get(server) and not self._open.get(server):
                log.info(
                    "%s: has an endpoint, %d held requests may go, %d at once", server, length, slots[server]
                )
        self._open = dict(slots)
        self._queues.open(slots)
        self._admit()

    def wait_until(self, latest: float) -> None:
        """Nobody waits beyond that time of the event loop's: the gateway is about to end."""
        self._latest = latest
        for deadline in self._deadlines:
            when = deadline.when()
            deadline.reschedule(latest if when is None else min(when, latest))

    def _admit(self) -> None:
        for ticket in self._queues.due():
            turn = self._turns.get(ticket)
            if turn is not None and not turn.done():
                turn.set_result(None)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request.headers.get("X-Request-Id", "")
        length = request.content_length or 0
        if length > MAX_REQUEST_BYTES:
            return _refusal(413, request_id)
        server = server_of(request.raw_path)
        ticket = self._queues.enter(server, length + sum(len(k) + len(v) for k, v in request.raw_headers))
        if ticket is None:
            return _refusal(503, request_id)
        if not self._open.get(server) and self._queues.lengths()[server] == 1:
            log.info("%s: has no endpoint, requests wait", server)
        deadline = asyncio.get_running_loop().time() + self._settings.hold_s
        try:
            return await self._hold(request, await request.read(), ticket, deadline)
        finally:
            self._queues.leave(ticket)
            self._admit()

    async def _hold(
        self, request: web.BaseRequest, body: bytes, ticket: Ticket, deadline: float
    ) -> web.StreamResponse:
        pause_s = AGAIN_S[0]
        while await self._turn(ticket, deadline):
            with suppress(aiohttp.ClientConnectionError):
                async with self._forward(request, body) as answer:
                    if answer.status != 503 or self._is_late(deadline, pause_s):
                        return await _pass_on(request, answer)
            if self._is_late(deadline, pause_s):
                break
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(AGAIN_S[1], pause_s * 2)
            self._queues.back(ticket)
        return _refusal(503, request.headers.get("X-Request-Id", ""))

    async def _turn(self, ticket: Ticket, deadline: float) -> bool:
        """Wait for it; False where the time is over, also for one that is tried again."""
        if self._is_late(deadline):
            return False
        self._admit()
        if ticket.admitted:
            return True
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(min(deadline, self._latest)) as timeout:
                self._deadlines.add(timeout)
                await turn
            return True
        except TimeoutError:
            return False
        finally:
            self._deadlines.discard(timeout)
            del self._turns[ticket]

    def _is_late(self, deadline: float, in_s: float = 0.0) -> bool:
        return asyncio.get_running_loop().time() + in_s >= min(deadline, self._latest)

    def _forward(self, request: web.BaseRequest, body: bytes) -> aiohttp.client._RequestContextManager:
        return self._envoy.request(
            request.method,
            URL(f"http://envoy{request.raw_path}", encoded=True),
            headers=_without(request.headers, *_OF_A_CONNECTION, "content-length"),
            data=body if body or request.method in ("POST", "PUT", "PATCH") else None,
            allow_redirects=False,
        )


def server_of(path: str) -> str:
    """The model server that a request asks: `chat` for `/v1/chat/…?…`. Envoy's routes send no other paths."""
    parts = path.partition("?")[0].split("/", 3)
    return parts[2] if len(parts) > 2 else ""


async def _pass_on(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """The answer, as it comes. One that breaks off must not look like one that ended, nor be asked for again."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=_without(answer.headers, *_OF_A_CONNECTION)
    )
    try:
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except aiohttp.ClientError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _without(headers: Mapping[str, str], *names: str) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in names)


def _refusal(status: int, request_id: str) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(error(status, request_id)).encode(),
        content_type="application/json",
        headers={"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None,
    )
