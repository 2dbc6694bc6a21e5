"""`kubectl exec`, `cp` and `attach` at the node: a command's streams as the channels of a WebSocket.

The API server passes kubectl's WebSocket on as it is (`v5.channel.k8s.io`; older clients `v4`). The first byte of a
message is its channel: 0-2 the streams, 3 how it ended (a Status in JSON), 4 a terminal's size, and in v5 255 the end
of the channel in the second byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from infra.local.node.clients import while_there
from infra.local.runtime import Session
from infra.local.runtime.sessions import read, read_late, write

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_UNREAD_BYTES = 1 << 20
"""Of what the client sent, before it is read on only as fast as the command reads."""


@dataclass(frozen=True)
class Wanted:
    """What the client asks for, from the query of its request (`command` may come many times)."""

    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, query: Any) -> Wanted:
        """From a multi-valued query."""

        def on(name: str) -> bool:
            return query.get(name) in ("1", "true")

        return cls(tuple(query.getall("command", ())), on("input"), on("output"), on("error"), on("tty"))


def status(code: int | None, container: str) -> Mapping[str, Any]:
    """The Status that tells a client how a command ended; None: its container ended first."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    if code is None:
        message = f"container {container} ended while the command ran in it"
        return {
            "metadata": {},
            "status": "Failure",
            "reason": "InternalError",
            "message": message,
            "code": 500,
        }
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


class _Input:
    """What the client sent for the command's stdin, on its way there: one puts in, one moves it on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting = bytearray()
        self._ended = False
        self._more = asyncio.Event()
        self._taken = asyncio.Event()

    def put(self, data: bytes) -> None:
        if not self._ended:
            self._waiting += data
            self._more.set()

    def end(self) -> None:
        self._ended = True
        self._more.set()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _UNREAD_BYTES

    async def room(self) -> None:
        while self.full:
            self._taken.clear()
            await self._taken.wait()

    async def move(self) -> None:
        """Until the client has ended it, and all is written; what the command doesn't want, is for nobody."""
        session = self._session
        while self._waiting or not self._ended:
            self._more.clear()
            data = bytes(self._waiting)
            self._waiting.clear()
            self._taken.set()
            if not data:
                await self._more.wait()
            elif session.stdin >= 0:
                try:
                    await write(session.stdin, data)
                except OSError:  # it reads no more: so will its end be told
                    session.close_stdin()
        session.close_stdin()


class RemoteCommand:
    """Joins one session's streams to a WebSocket until one of both ends."""

    def __init__(self, ws: web.WebSocketResponse, session: Session, wanted: Wanted, container: str) -> None:
        self._ws = ws
        self._session = session
        self._wanted = wanted
        self._container = container

    async def run(self, *, attached: bool = False) -> None:
        """Returns when it is over; `attached`: the end of the program is no news of ours."""
        session, tasks = self._session, set[asyncio.Future[Any]]()
        try:
            await self._ws.send_bytes(bytes([STDOUT if self._wanted.stdout else STDERR]))  # it has begun
            await session.joined()
            streams = {STDOUT: session.stdout if self._wanted.stdout or session.terminal else -1}
            streams[STDERR] = session.stderr if self._wanted.stderr else -1
            pumps = [
                asyncio.create_task(self._pump(channel, fd)) for channel, fd in streams.items() if fd >= 0
            ]
            typed = _Input(session)
            hearing, moving = asyncio.create_task(self._hear(typed)), asyncio.create_task(typed.move())
            ended = asyncio.ensure_future(session.ended())
            tasks |= {*pumps, hearing, moving, ended}
            await asyncio.wait({hearing, ended}, return_when="FIRST_COMPLETED")
            if not ended.done():
                return  # the client has gone
            await _cancel(pumps)
            for channel, fd in streams.items():
                for data in read_late(fd) if fd >= 0 else ():
                    await self._send(channel, data)
            end = ended.result()
            if session.refusal is not None:
                await self._send(STDERR if self._wanted.stderr else STDOUT, f"{session.refusal}\r\n".encode())
            code = 0 if attached else (end[0] if end else None)
            await self._send(ERROR, json.dumps(status(code, self._container)).encode())
        except ConnectionError:
            pass  # the client has gone
        finally:
            await _cancel(tasks)

    async def _pump(self, channel: int, fd: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await read(fd):
                await self._send(channel, data)

    async def _send(self, channel: int, data: bytes) -> None:
        await self._ws.send_bytes(bytes([channel]) + data)

    async def _hear(self, typed: _Input) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY or not message.data:
                return
            channel, data = message.data[0], message.data[1:]
            if channel == STDIN and self._wanted.stdin:
                typed.put(data)
                if typed.full:
                    await while_there(self._ws, typed.room())
            elif channel == CLOSE and data == bytes([STDIN]):
                typed.end()
            elif channel == RESIZE:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    size = json.loads(data)
                    self._session.resize(int(size["Width"]), int(size["Height"]))


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
