"""`kubectl port-forward` at the node: streams of a WebSocket, each joined to a connection with the pod's own address.

The API server passes kubectl's WebSocket on as it is; inside it is SPDY (see `spdy`). For each connection that kubectl
accepts it opens two streams with the same `requestid`: one for data, one for what goes wrong. What listens on the
pod's address can be reached; the machine's 127.0.0.1 is not the pod's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from infra.local.node import spdy
from infra.local.node.clients import while_there

log = logging.getLogger(__name__)

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_MAX_REQUESTS = 256
_CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 1 << 15
_UNSENT_BYTES = 1 << 20


@dataclass
class _Request:
    """One connection through the tunnel."""

    error: int | None = None
    data: int | None = None
    task: asyncio.Task[None] | None = None
    writer: asyncio.StreamWriter | None = None
    sent: bool = False
    """The client has sent all that it will."""
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the pod has taken the connection, or hasn't."""

    def full(self) -> bool:
        """Whether more waits for the program than should."""
        return self.writer is not None and self.writer.transport.get_write_buffer_size() > _UNSENT_BYTES

    async def room(self) -> None:
        """Wait until the program has taken some of it, or takes nothing any more."""
        if self.writer is not None:
            with contextlib.suppress(OSError):
                await self.writer.drain()


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 1 << 16


def _break_off(transport: asyncio.WriteTransport) -> None:
    """Close without waiting for a program that doesn't read: with what it should have had, an end can't reach it."""
    if transport.get_write_buffer_size():
        one = transport.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset does
    transport.abort()


class PortForward:
    """One `kubectl port-forward`: `run` lasts as long as its WebSocket."""

    def __init__(self, ws: web.WebSocketResponse, pod: str, pod_ip: str) -> None:
        self._ws = ws
        self._pod = pod
        self._ip = pod_ip
        self._framer = spdy.Framer()
        self._requests: dict[str, _Request] = {}
        self._by_stream: dict[int, _Request] = {}

    async def run(self) -> None:
        try:
            async for message in self._ws:
                if message.type is not WSMsgType.BINARY:
                    break
                for frame in self._framer.feed(message.data):
                    await self._handle(frame)
        except ConnectionError:
            pass  # the client has gone
        except spdy.ProtocolError as error:
            log.warning("port-forward to pod %s: the client sent %s", self._pod, error)
        finally:
            tasks = [request.task for request in self._requests.values() if request.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Opened():
                await self._open(frame)
            case spdy.Data(stream, data, fin):
                await self._to_pod(stream, data, fin)
            case spdy.Reset(stream):
                request = self._by_stream.pop(stream, None)
                if request is not None and stream == request.data and request.task is not None:
                    request.task.cancel()
            case spdy.Ping(id):
                await self._ws.send_bytes(spdy.ping(id))

    async def _open(self, opened: spdy.Opened) -> None:
        headers = opened.headers
        id, kind, port = headers.get("requestid", ""), headers.get("streamtype"), headers.get("port", "")
        request = self._requests.get(id) or _Request()
        right = (
            _is_port(port)
            and ((kind == "error" and request.error is None) or (kind == "data" and request.data is None))
            and opened.stream not in self._by_stream
            and (id in self._requests or len(self._requests) < _MAX_REQUESTS)
        )
        if not right:
            await self._ws.send_bytes(spdy.reset(opened.stream, spdy.REFUSED_STREAM))
            return
        self._requests[id] = self._by_stream[opened.stream] = request
        if kind == "error":
            request.error = opened.stream
        else:
            request.data = opened.stream
        await self._ws.send_bytes(self._framer.reply(opened.stream))
        if request.task is None and request.error is not None and request.data is not None:
            request.task = asyncio.create_task(self._serve(id, request, int(port)))

    async def _to_pod(self, stream: int, data: bytes, fin: bool) -> None:
        request = self._by_stream.get(stream)
        if request is None or stream != request.data or request.task is None or request.sent:
            return
        request.sent = fin
        await request.tried.wait()
        if (writer := request.writer) is None:
            return
        with contextlib.suppress(OSError):
            if data:
                writer.write(data)
            if fin:
                writer.write_eof()
        # One slow program holds up the tunnel only when a mebibyte waits for it.
        if request.full():
            await while_there(self._ws, request.room())

    async def _serve(self, id: str, request: _Request, port: int) -> None:
        problem = ""
        try:
            problem = await self._forward(request, port)
        except asyncio.CancelledError:
            if request.writer is not None:
                _break_off(request.writer.transport)
            raise
        finally:
            self._requests.pop(id, None)
            if request.writer is not None:
                request.writer.close()
            for stream in (request.data, request.error):
                self._by_stream.pop(stream or 0, None)
            if not self._ws.closed:
                with contextlib.suppress(ConnectionError):
                    await self._ws.send_bytes(spdy.data(request.error or 0, problem.encode(), fin=True))
                    await self._ws.send_bytes(spdy.data(request.data or 0, b"", fin=True))

    async def _forward(self, request: _Request, port: int) -> str:
        """Copy until the pod has sent all; what went wrong, or nothing."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self._ip, port)
        except (OSError, TimeoutError) as error:
            why = (
                "connection refused"
                if isinstance(error, ConnectionRefusedError)
                else str(error) or "timed out"
            )
            return f"error forwarding port {port} to pod {self._pod}: {self._ip}:{port}: {why}"
        else:
            writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
            request.writer = writer
        finally:
            request.tried.set()
        try:
            while chunk := await reader.read(_READ_BYTES):
                await self._ws.send_bytes(spdy.data(request.data or 0, chunk))
        except ConnectionError as error:
            return f"error forwarding port {port} to pod {self._pod}: {error}"
        return ""
