"""Serves the application in this process, and stops without a customer noticing.

BentoML's own server is a supervisor and a worker, two processes that each import everything; a replica is one worker,
so this runs the service's ASGI application in one process: half the memory, half the start.

Stopping, on SIGTERM: `/readyz` says 503 at once and answers carry `Connection: close`; for `drain_delay_s` requests
are still taken, until the gateways have seen it; then no more connections are, and what is under way is finished. Exit
code 0. A second signal stops at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

import uvicorn

from serving.chat.front import App, Front
from serving.chat.replica import Replica
from serving.chat.settings import Settings

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Longer than a gateway keeps an idle connection (a few seconds), so that it is the gateway that closes."""


class DrainingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, replica: Replica, delay_s: float) -> None:
        super().__init__(config)
        self._replica = replica
        self._delay_s = delay_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().serve(None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in place of uvicorn's own, which would stop listening at once and end by the signal."""
        if self._replica.draining:
            self.should_exit = self.force_exit = True
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain, 0.0 if sig == signal.SIGINT else self._delay_s)

    def _drain(self, delay_s: float) -> None:
        if self._replica.draining or self._loop is None:
            return
        log.info("draining: %d requests under way", self._replica.in_flight)
        self._replica.drain()
        # Nobody sends requests to a replica that was never ready.
        self._loop.call_later(delay_s if self._replica.serving else 0.0, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def run(app: App, replica: Replica, settings: Settings) -> int:
    """Serve until told to stop; the exit code."""
    config = uvicorn.Config(
        Front(app, replica),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = DrainingServer(config, replica, settings.drain_delay_s)
    server.run()
    log.info("stopped")
    return 0 if server.started else 1
