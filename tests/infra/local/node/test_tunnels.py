"""exec and port-forward against clients that are gone, send too much or send nonsense; over real WebSockets."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from infra.local.node import clients, spdy
from infra.local.node.port_forward import PortForward
from infra.local.node.remote_command import CLOSE, STDIN, RemoteCommand, Wanted
from infra.local.runtime import Session
from infra.local.runtime.sessions import read
from tests.infra.local.node.test_spdy import HEADERS, Client

HOST = "127.0.0.1"
DEADLINE_S = 120.0
WANTED = Wanted(("x",), stdin=True, stdout=True, stderr=False, tty=False)


class Line:
    """A client and, at the other end of its WebSocket, what serves it; `over` is how that went."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, over: asyncio.Future[None]) -> None:
        self.ws = ws
        self.over = over

    def cut(self) -> None:
        """As a process that is killed goes: without a word."""
        response = self.ws._response
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()

    async def ended(self) -> None:
        """Wait until it isn't served any more. Raises what its server raised."""
        async with asyncio.timeout(DEADLINE_S):
            await self.over


Serve = Callable[[web.WebSocketResponse], Awaitable[None]]
Dial = Callable[[Serve], Awaitable[Line]]


@pytest.fixture
async def dial(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dial]:
    monkeypatch.setattr(clients, "LOOK_S", 0.05)
    closing: list[Callable[[], Awaitable[None]]] = []

    async def make(serve: Serve) -> Line:
        over = asyncio.get_running_loop().create_future()

        async def handle(request: web.Request) -> web.WebSocketResponse:
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            try:
                await serve(ws)
            except BaseException as error:
                over.set_exception(error)
            else:
                over.set_result(None)
            return ws

        app = web.Application()
        app.router.add_get("/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        session = aiohttp.ClientSession()
        closing.extend((session.close, runner.cleanup))
        return Line(await session.ws_connect(f"http://{HOST}:{runner.addresses[0][1]}/"), over)

    yield make
    for close in closing:
        await close()


@pytest.fixture
async def session() -> AsyncIterator[tuple[Session, int]]:
    """A session whose command lasts for ever, and the reading end of its stdin."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Session("c", ours)
    stdin, made.stdin = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    made.streams_are_there()
    yield made, stdin
    made.close()
    theirs.close()
    os.close(stdin)


@pytest.mark.parametrize(
    ("sent", "says_bye"), [(0, True), (0, False), (500_000, True), (500_000, False), (20_000_000, False)]
)
async def test_a_client_that_goes_ends_its_command_though_nobody_reads(
    dial: Dial, session: tuple[Session, int], sent: int, says_bye: bool
) -> None:
    line = await dial(lambda ws: RemoteCommand(ws, session[0], WANTED, "c").run())
    assert await line.ws.receive_bytes() == b"\1"

    async def send() -> None:
        for _ in range(sent // 50_000):
            await line.ws.send_bytes(bytes([STDIN]) + bytes(50_000))

    sending = asyncio.create_task(send())
    held_up = sent > 1_000_000  # for ever
    done, _ = await asyncio.wait({sending}, timeout=1 if held_up else DEADLINE_S)
    assert bool(done) != held_up
    sending.cancel()
    if says_bye:
        await line.ws.close()
    else:
        line.cut()
    await asyncio.gather(sending, return_exceptions=True)
    await line.ended()


async def test_a_client_that_has_gone_before_the_first_word_is_no_error(
    dial: Dial, session: tuple[Session, int]
) -> None:
    async def serve(ws: web.WebSocketResponse) -> None:
        async for _ in ws:
            pass
        await RemoteCommand(ws, session[0], WANTED, "c").run()

    line = await dial(serve)
    line.cut()
    await line.ended()


async def test_what_is_typed_comes_in_order_with_its_end(dial: Dial, session: tuple[Session, int]) -> None:
    line = await dial(lambda ws: RemoteCommand(ws, session[0], WANTED, "c").run())
    text = os.urandom(3_000_000)

    async def send() -> None:
        for at in range(0, len(text), 30_000):
            await line.ws.send_bytes(bytes([STDIN]) + text[at : at + 30_000])
        await line.ws.send_bytes(bytes([CLOSE, STDIN]))
        await line.ws.send_bytes(bytes([STDIN]) + b"too late")

    sending = asyncio.create_task(send())
    found = b""
    async with asyncio.timeout(DEADLINE_S):
        while data := await read(session[1]):
            found += data
    assert found == text
    await sending
    line.cut()
    await line.ended()


class Tunnel:
    """A client of `kubectl port-forward`."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.spdy = Client()

    async def open(self, stream: int, kind: str, port: str, id: str = "1") -> int:
        """Open a stream; the kind of the frame that answers."""
        headers = {**HEADERS, "streamtype": kind, "port": port, "requestid": id}
        await self.line.ws.send_bytes(self.spdy.open(stream, headers))
        return int(struct.unpack(">H", (await self.answer())[2:4])[0])

    async def answer(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.line.ws.receive_bytes()

    async def lives(self) -> None:
        await self.line.ws.send_bytes(spdy.ping(7))
        assert await self.answer() == spdy.ping(7)


@pytest.fixture
async def tunnel(dial: Dial) -> Tunnel:
    return Tunnel(await dial(lambda ws: PortForward(ws, "p", HOST).run()))


@pytest.mark.parametrize(
    "port",
    ["", "0", "65536", "-1", " 80", "x", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "1" * 5000],
)
async def test_what_is_no_port_is_refused(tunnel: Tunnel, port: str) -> None:
    assert await tunnel.open(1, "error", port) == spdy.RST_STREAM
    await tunnel.lives()


async def test_a_request_has_one_stream_of_a_kind(tunnel: Tunnel) -> None:
    assert await tunnel.open(1, "error", "1") == spdy.SYN_REPLY
    for stream in (3, 5):
        assert await tunnel.open(stream, "error", "1") == spdy.RST_STREAM
    assert await tunnel.open(1, "data", "1") == spdy.RST_STREAM  # that number is taken
    assert await tunnel.open(7, "error", "1", id="2") == spdy.SYN_REPLY
    await tunnel.lives()


async def test_what_follows_the_end_is_ignored(tunnel: Tunnel) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = str(server.sockets[0].getsockname()[1])
    assert await tunnel.open(1, "error", port) == spdy.SYN_REPLY
    assert await tunnel.open(3, "data", port) == spdy.SYN_REPLY
    for data, fin in ((b"a", True), (b"b", False), (b"", True), (b"c", True)):
        await tunnel.line.ws.send_bytes(spdy.data(3, data, fin=fin))
    async with asyncio.timeout(DEADLINE_S):
        assert await heard == b"a"
    await tunnel.lives()
    over.set()
    server.close()


async def test_a_client_that_goes_ends_its_tunnel_to_a_program_that_does_not_read(tunnel: Tunnel) -> None:
    listening = socket.create_server((HOST, 0))
    port = str(listening.getsockname()[1])
    assert await tunnel.open(1, "error", port) == spdy.SYN_REPLY
    assert await tunnel.open(3, "data", port) == spdy.SYN_REPLY
    program, _ = await asyncio.to_thread(listening.accept)

    async def send() -> None:
        for _ in range(1000):
            await tunnel.line.ws.send_bytes(spdy.data(3, bytes(50_000)))

    sending = asyncio.create_task(send())
    done, _ = await asyncio.wait({sending}, timeout=1)
    assert not done
    tunnel.line.cut()
    await asyncio.gather(sending, return_exceptions=True)
    await tunnel.line.ended()
    poll = select.poll()
    poll.register(program, select.POLLRDHUP)  # (a reset, too)
    # What the program hasn't read by now, nobody keeps for it.
    assert await asyncio.to_thread(poll.poll, DEADLINE_S * 1000)
    program.close()
    listening.close()
