"""A stand-in for a model server as a process: answers with its own address, and fails in the ways that servers do.

`POST /mode {"status": 503}`, `{"delay_s": 5}`, `{"holds": true}` (until the mode is another one), `{"reset": true}`,
`{"ready": false}` or `{}` (well again). An answer says what came (`body`, `headers`), as the how manyth (`number`), and
how many at most were at work at once (`peak`). `GET /seen` has the host and the id of each request that came, `GET
/checks` the number of health checks.

At SIGTERM it drains as the contract says: it isn't ready any more, and serves on. How long is a matter of seconds with
a real one; this one goes when it is told, by SIGUSR1, so that no test depends on how fast a gateway is on its machine.
"""

from __future__ import annotations

import asyncio
import signal
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web


class Backend:
    def __init__(self, ip: str) -> None:
        self._ip = ip
        self._mode: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._number = self._active = self._peak = self._checks = 0
        self._came: list[tuple[str, str]] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/v1/chat", self._chat), web.get("/readyz", self._readyz)])
        app.add_routes([web.post("/mode", self._set_mode), web.get("/seen", self._seen)])
        app.add_routes([web.get("/checks", self._checked)])
        return app

    def drain(self) -> None:
        self._mode["ready"] = False

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._number += 1
        self._came.append((request.headers.get("Host", ""), request.headers.get("X-Request-Id", "")))
        self._active += 1
        self._peak = max(self._peak, self._active)
        try:
            return await self._answer(request, {"number": self._number, "peak": self._peak})
        finally:
            self._active -= 1

    async def _answer(self, request: web.Request, numbers: dict[str, Any]) -> web.StreamResponse:
        text = await request.text()
        now = dict(self._mode)
        if now.get("holds"):
            await self._changed.wait()
        if delay_s := now.get("delay_s"):
            await asyncio.sleep(delay_s)
        if now.get("reset") and request.transport is not None:
            request.transport.abort()
        await asyncio.sleep(0.002)
        if now.get("breaks") and request.transport is not None:
            part = web.StreamResponse(headers={"Content-Length": "1000"})
            await part.prepare(request)
            await part.write(b"x")
            await asyncio.sleep(0.1)
            request.transport.abort()
        said = {"from": self._ip, "session": request.headers.get("X-Session-Id"), "body": text} | numbers
        return web.json_response(said | {"headers": dict(request.headers)}, status=now.get("status", 200))

    async def _readyz(self, _: web.Request) -> web.Response:
        self._checks += 1
        return web.Response(status=200 if self._mode.get("ready", True) else 503)

    async def _checked(self, _: web.Request) -> web.Response:
        return web.json_response(self._checks)

    async def _seen(self, _: web.Request) -> web.Response:
        return web.json_response(self._came)

    async def _set_mode(self, request: web.Request) -> web.Response:
        self._mode = await request.json()
        self._changed.set()
        self._changed = asyncio.Event()
        return web.Response()


def serve(ip: str, port: int, up: Connection) -> None:
    """Until it is told to go; `up` gets a word when it listens."""
    asyncio.run(_serve(ip, port, up))


async def _serve(ip: str, port: int, up: Connection) -> None:
    stop, go = asyncio.Event(), asyncio.Event()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGUSR1, go)):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    backend = Backend(ip)
    runner = web.AppRunner(backend.app(), access_log=None, shutdown_timeout=5, max_field_size=65_536)
    await runner.setup()
    await web.TCPSite(runner, ip, port).start()
    up.send("up")
    await stop.wait()
    backend.drain()
    await go.wait()
    await asyncio.sleep(0.2)  # for what was on its way
    await runner.cleanup()
