"""The operator's own pages: probes, metrics, and the last decision of each ModelServer with all that it was made of.

Probes and metrics are each replica's own. Decisions and ticks are the leader's: another replica says who that is.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from operators.lease import NAME as LEASE
from operators.lease import Leader
from operators.loop import Loop
from operators.metrics import Metrics
from operators.servers.registry import Registry
from operators.servers.server import Server
from operators.settings import TICK_S, Settings
from operators.view import View

STUCK_S = 15 * TICK_S
"""A leader whose last tick is so long ago hangs."""


class Pages:
    """Answers on the pod's own address."""

    def __init__(
        self, settings: Settings, registry: Registry, view: View, leader: Leader, loop: Loop, metrics: Metrics
    ) -> None:
        self._settings, self._registry, self._view = settings, registry, view
        self._leader, self._loop, self._metrics = leader, loop, metrics

    async def start(self) -> web.AppRunner:
        """Listen; the caller cleans up what is returned."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/decisions", self._decisions)
        app.router.add_get("/ticks", self._ticks)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self._settings.pod_ip, self._settings.port).start()
        return runner

    @staticmethod
    def _now() -> float:
        """By the clock of `Loop.ticked_at`."""
        return asyncio.get_running_loop().time()

    async def _live(self, _: web.Request) -> web.Response:
        """Whether the leader ticks. A term begins as with a tick, so that its first one may be the one that hangs."""
        now, ticked = self._now(), self._loop.ticked_at
        if self._leader.leads and ticked is not None and now - ticked > STUCK_S:
            return web.Response(status=503, text=f"the last tick was {now - ticked:.0f} s ago\n")
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        if not self._view.synced:
            return web.Response(status=503, text="not all objects are known yet\n")
        return web.Response(text="leads\n" if self._leader.leads else "stands by\n")

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _ticks(self, _: web.Request) -> web.Response:
        """The last ticks, newest last: how long ago each was, and how long it took."""
        self._only_the_leader()
        now = time.monotonic()
        ticks = [
            {"age_s": now - one.at, "look_s": one.look_s, "decide_s": one.decide_s, "source": one.source}
            for one in self._metrics.ticks
        ]
        return web.json_response({"ticks": ticks})

    def _only_the_leader(self) -> None:
        """Another's are old, or there are none: that isn't to be taken for an answer.

        Raises:
            web.HTTPServiceUnavailable: with who leads, as far as is known, and how to ask that one.
        """
        if self._leader.leads:
            return
        own, holder, namespace = self._leader.identity, self._leader.holder, self._settings.namespace
        if holder in (None, own):  # its own lease that it can't renew may be another's by now
            lease = f"kubectl get lease {LEASE} -n {namespace} -o jsonpath={{.spec.holderIdentity}}"
            said = f"it doesn't know who leads: {lease}"
        else:
            said = f"{holder} leads: kubectl port-forward -n {namespace} pod/{holder} {self._settings.port}"
        raise web.HTTPServiceUnavailable(text=f"{own} stands by; {said}\n")

    async def _decisions(self, request: web.Request) -> web.Response:
        """The last decision of each ModelServer, or of one (`?name=chat`)."""
        self._only_the_leader()
        name = request.query.get("name")
        found = [one for one in self._registry.servers.values() if name in (None, one.name)]
        if name is not None and not found:
            return web.json_response({"error": f"there is no ModelServer {name!r} here"}, status=404)
        return web.json_response({"decisions": [show(one) for one in found]})


def show(server: Server) -> dict[str, Any]:
    """A server's last decision, as JSON has it: what was seen, what it asked for, what moved it, what came of it."""
    decision = server.decision
    made: dict[str, Any] = {"name": server.name, "target": server.target}
    if server.spec is not None:
        made |= {"mode": server.spec.scaling.mode, "capacity": asdict(server.capacity())}
    if decision is not None:
        made |= {**asdict(decision), "sentence": decision.sentence()}
    return {key: _finite(value) for key, value in made.items()}


def _finite(value: Any) -> Any:
    """JSON has no infinity: what isn't known is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
