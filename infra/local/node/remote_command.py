"""`kubectl exec`, `cp` and `attach` at the node: a command's streams as the channels of a WebSocket.

The API server passes kubectl's WebSocket on as it is (`v5.channel.k8s.io`; older clients `v4`). The first byte of a
message is its channel: 0-2 the streams, 3 how it ended (a Status in JSON), 4 a terminal's size, and in v5 255 the end
of the channel in the second byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from infra.local.runtime import Session
from infra.local.runtime.sessions import read, read_now, write

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_LATE_BYTES = 1 << 20
"""Of what the command left in its pipe; a child in the background may go on writing for ever."""


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


class RemoteCommand:
    """Joins one session's streams to a WebSocket until one of both ends."""

    def __init__(self, ws: web.WebSocketResponse, session: Session, wanted: Wanted, container: str) -> None:
        self._ws = ws
        self._session = session
        self._wanted = wanted
        self._container = container

    async def run(self, *, attached: bool = False) -> None:
        """Returns when it is over; `attached`: the end of the program is no news of ours."""
        session = self._session
        await self._ws.send_bytes(bytes([STDOUT if self._wanted.stdout else STDERR]))  # it has begun
        await session.joined()
        streams = {STDOUT: session.stdout if self._wanted.stdout or session.terminal else -1}
        streams[STDERR] = session.stderr if self._wanted.stderr else -1
        pumps = {asyncio.create_task(self._pump(channel, fd)) for channel, fd in streams.items() if fd >= 0}
        hearing = asyncio.create_task(self._hear())
        ended = asyncio.ensure_future(session.ended())
        try:
            await asyncio.wait({hearing, ended}, return_when="FIRST_COMPLETED")
            if not ended.done():
                return  # the client has gone
            await _cancel(pumps)
            for channel, fd in streams.items():
                await self._send_late(channel, fd)
            end = ended.result()
            if session.refusal is not None:
                await self._send(STDERR if self._wanted.stderr else STDOUT, f"{session.refusal}\r\n".encode())
            code = 0 if attached else (end[0] if end else None)
            await self._send(ERROR, json.dumps(status(code, self._container)).encode())
        except ConnectionError:
            pass  # the client has gone
        finally:
            await _cancel({hearing, ended, *pumps})

    async def _pump(self, channel: int, fd: int) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await read(fd):
                await self._send(channel, data)

    async def _send_late(self, channel: int, fd: int) -> None:
        left = _LATE_BYTES
        while fd >= 0 and left > 0 and (data := read_now(fd)):
            await self._send(channel, data)
            left -= len(data)

    async def _send(self, channel: int, data: bytes) -> None:
        await self._ws.send_bytes(bytes([channel]) + data)

    async def _hear(self) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY or not message.data:
                return
            channel, data = message.data[0], message.data[1:]
            if channel == STDIN and data and self._wanted.stdin and self._session.stdin >= 0:
                try:
                    await write(self._session.stdin, data)
                except OSError:  # it reads no more: so will its end be told, and the rest is for nobody
                    self._session.close_stdin()
            elif channel == CLOSE and data == bytes([STDIN]):
                self._session.close_stdin()
            elif channel == RESIZE:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    size = json.loads(data)
                    self._session.resize(int(size["Width"]), int(size["Height"]))


async def _cancel(tasks: set[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
