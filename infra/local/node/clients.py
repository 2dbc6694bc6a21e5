"""Waiting on a pod's program without losing sight of the client for whom it is done.

What a program doesn't take, holds up the reading of its client's WebSocket, and the end of a connection that isn't
read goes unseen. Writing to it makes whoever is between here and the client notice, and hang up; that the socket
itself tells. (asyncio doesn't: of a TLS connection that ends while it isn't read it drops what is written, silently.)
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

LOOK_S = 1.0
"""How often to look. It takes some looks: whoever is between here and the client learns it by writing, too."""

_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


async def while_there(ws: web.WebSocketResponse, waiting: Coroutine[Any, Any, Any]) -> None:
    """Wait for that as long as the client is there. Raises what it raises, and ConnectionError: the client has gone."""
    task = asyncio.ensure_future(waiting)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            if _hung_up(ws):
                raise ConnectionResetError("the client has gone")
            await ws.ping()
        task.result()
    finally:
        task.cancel()


def _hung_up(ws: web.WebSocketResponse) -> bool:
    """Whether the other side has closed the connection, be there something to read before that or not."""
    try:
        socket = ws.get_extra_info("socket")
    except AttributeError:  # what asyncio says of a TLS connection that it has let go
        return True
    if socket is None or socket.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(socket.fileno(), _HUNG_UP)
    return bool(poll.poll(0))
