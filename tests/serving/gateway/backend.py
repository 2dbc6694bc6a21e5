"""A stand-in for a model server as a process: answers with its own address, and fails in the ways that servers do.

    python backend.py IP PORT

`POST /mode {"status": 503}`, `{"delay_s": 5}`, `{"reset": true}`, `{"ready": false}` or `{}` (well again).
An answer says what came (`body`, `headers`), as the how manyth (`number`), and how many at most were at work at once
(`peak`). `GET /seen` has the host and the id of each request that came. SIGTERM drains as the contract says: not ready,
what runs is finished, then the end.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from aiohttp import web

mode: dict[str, Any] = {}
seen = {"number": 0, "active": 0, "peak": 0}
came: list[tuple[str, str]] = []


async def chat(request: web.Request) -> web.StreamResponse:
    seen["number"] += 1
    came.append((request.headers.get("Host", ""), request.headers.get("X-Request-Id", "")))
    seen["active"] += 1
    seen["peak"] = max(seen["peak"], seen["active"])
    try:
        return await answer(request, {"number": seen["number"], "peak": seen["peak"]})
    finally:
        seen["active"] -= 1


async def answer(request: web.Request, numbers: dict[str, Any]) -> web.StreamResponse:
    text = await request.text()
    now = dict(mode)
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
    said = {"from": sys.argv[1], "session": request.headers.get("X-Session-Id"), "body": text} | numbers
    return web.json_response(said | {"headers": dict(request.headers)}, status=now.get("status", 200))


async def readyz(_: web.Request) -> web.Response:
    return web.Response(status=200 if mode.get("ready", True) else 503)


async def what_came(_: web.Request) -> web.Response:
    return web.json_response(came)


async def set_mode(request: web.Request) -> web.Response:
    mode.clear()
    mode.update(await request.json())
    return web.Response()


async def main() -> None:
    app = web.Application()
    app.add_routes([web.post("/v1/chat", chat), web.get("/readyz", readyz)])
    app.add_routes([web.post("/mode", set_mode), web.get("/seen", what_came)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5, max_field_size=65_536)
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
