"""Waiting on a pod's program without losing sight of the client for whom it is done.

What a program doesn't take, holds up the reading of its client's WebSocket, and the end of a connection that isn't
read goes unseen; then only writing to it tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

LOOK_S = 1.0
"""How often to look. It takes some looks: whoever is between here and the client learns it by writing, too."""


async def while_there(ws: web.WebSocketResponse, waiting: Coroutine[Any, Any, Any]) -> None:
    """Wait for that as long as the client is there. Raises what it raises, and ConnectionError: the client has gone."""
    task = asyncio.ensure_future(waiting)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            await ws.ping()
        task.result()
    finally:
        task.cancel()
