"""A client that goes is seen to go, also where nothing that it sent is read any more."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from infra.local.node.clients import while_there
from tests.infra.certificates import self_signed_pair

HOST = "127.37.0.4"
DEADLINE_S = 120.0


@dataclass
class Server:
    """Takes WebSockets and reads nothing of them; `over` has what came of each, `begun` is set once one is there."""

    url: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Queue[BaseException | None] = field(default_factory=asyncio.Queue)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(timeout=0.1)
        await ws.prepare(request)
        await ws.receive()
        self.begun.set()
        try:
            await while_there(ws, self.free.wait())
            await self.over.put(None)
        except BaseException as error:
            await self.over.put(error)
        return ws


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server()
    key, certificate = self_signed_pair()
    (tmp_path / "pem").write_text(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    app = web.Application()
    app.router.add_get("/", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=context)
    await site.start()
    made.url = f"wss://{HOST}:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("unread", [0, 70_000, 150_000, 300_000, 600_000, 8_000_000])
async def test_a_client_that_goes(server: Server, unread: int, how: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url, ssl=False) as ws:
        await ws.send_bytes(b"first")
        await server.begun.wait()
        sending = asyncio.create_task(ws.send_bytes(bytes(unread))) if unread else None
        if sending is not None:
            await asyncio.wait({sending}, timeout=0.2)
        transport = ws._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        socket = transport.get_extra_info("socket")
        if how == "reset":
            transport.abort()
        else:
            socket.shutdown(1)  # no more to come: as the end of what the other side sends looks
        async with asyncio.timeout(DEADLINE_S):
            assert isinstance(await server.over.get(), ConnectionError)
        if sending is not None:
            sending.cancel()


async def test_who_stays_is_waited_with(server: Server) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url, ssl=False) as ws:
        await ws.send_bytes(b"first")
        await server.begun.wait()
        pinged = asyncio.create_task(ws.receive())
        await asyncio.wait({pinged}, timeout=2.5)
        server.free.set()
        async with asyncio.timeout(DEADLINE_S):
            assert await server.over.get() is None
        pinged.cancel()
