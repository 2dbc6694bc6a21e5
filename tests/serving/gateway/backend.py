"""A stand-in for a model server as a process: answers with its own address, and fails in the ways that servers do.

    python backend.py IP PORT

`POST /mode {"status": 503}`, `{"delay_s": 5}`, `{"reset": true}`, `{"ready": false}` or `{}` (well again).
SIGTERM drains as the contract says: not ready, what runs is finished, then the end.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from aiohttp import web

mode: dict[str, Any] = {}


async def chat(request: web.Request) -> web.StreamResponse:
    await request.read()
    now = dict(mode)
    if delay_s := now.get("delay_s"):
        await asyncio.sleep(delay_s)
    if now.get("reset") and request.transport is not None:
        request.transport.abort()
    await asyncio.sleep(0.002)
    answer = {"from": sys.argv[1], "session": request.headers.get("X-Session-Id")}
    return web.json_response(answer, status=now.get("status", 200))


async def readyz(_: web.Request) -> web.Response:
    return web.Response(status=200 if mode.get("ready", True) else 503)


async def set_mode(request: web.Request) -> web.Response:
    mode.clear()
    mode.update(await request.json())
    return web.Response()


async def main() -> None:
    app = web.Application()
    app.add_routes([web.post("/v1/chat", chat), web.get("/readyz", readyz), web.post("/mode", set_mode)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, sys.argv[1], int(sys.argv[2])).start()
    print("up", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    mode["ready"] = False
    await asyncio.sleep(0.2)
    await runner.cleanup()


asyncio.run(main())
