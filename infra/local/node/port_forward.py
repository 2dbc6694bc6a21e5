"""`kubectl port-forward` at the node: streams of a WebSocket, each joined to a connection with the pod's own address.

The API server passes kubectl's WebSocket on as it is; inside it is SPDY (see `spdy`). For each connection that kubectl
accepts it opens two streams with the same `requestid`: one for data, one for what goes wrong. What listens on the
pod's address can be reached; the machine's 127.0.0.1 is not the pod's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from infra.local.node import spdy

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
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the pod has taken the connection, or hasn't."""


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
        right = kind in ("error", "data") and port.isdigit() and 0 < int(port) < 1 << 16
        request = self._requests.get(id) or _Request()
        if not right or (id not in self._requests and len(self._requests) >= _MAX_REQUESTS):
            await self._ws.send_bytes(spdy.reset(opened.stream, spdy.REFUSED_STREAM))
            return
        self._requests[id] = self._by_stream[opened.stream] = request
        await self._ws.send_bytes(self._framer.reply(opened.stream))
        if kind == "error":
            request.error = opened.stream
        else:
            request.data = opened.stream
        if request.task is None and request.error is not None and request.data is not None:
            request.task = asyncio.create_task(self._serve(id, request, int(port)))

    async def _to_pod(self, stream: int, data: bytes, fin: bool) -> None:
        request = self._by_stream.get(stream)
        if request is None or stream != request.data or request.task is None:
            return
        await request.tried.wait()
        if request.writer is None:
            return
        with contextlib.suppress(OSError):
            if data:
                request.writer.write(data)
            if fin:
                request.writer.write_eof()
            # One slow program holds up the tunnel only when a mebibyte waits for it.
            await request.writer.drain()

    async def _serve(self, id: str, request: _Request, port: int) -> None:
        problem = ""
        try:
            problem = await self._forward(request, port)
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
