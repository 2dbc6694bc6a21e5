"""The node's kubelet API over TLS: logs for `kubectl logs`, the pods, health. For the API server alone.

A client needs a certificate that the site's CA signed for the API server's kubelet client; the connection itself is
refused without a certificate of that CA.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from infra.local.node import crilogs, podspec
from infra.local.node.pod_worker import PodWorker

log = logging.getLogger(__name__)

# As `infra.local.pki` has it (a test holds them together): importing that would cost each agent 8 MB.
KUBELET_CLIENT = "kube-apiserver-kubelet-client"

Workers = Callable[[], Iterable[PodWorker]]


def tls(cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """A server's context that asks for a client certificate of that CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def common_name(request: web.Request) -> str | None:
    """Whom the client's certificate names."""
    transport = request.transport
    peer = transport.get_extra_info("peercert") if transport else None
    for part in (peer or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None


@web.middleware
async def only_the_api_server(
    request: web.Request, handler: Callable[[web.Request], object]
) -> web.StreamResponse:
    if common_name(request) != KUBELET_CLIENT:
        return web.Response(status=403, text=f"only {KUBELET_CLIENT} may ask this\n")
    return await handler(request)  # type: ignore[misc]


class KubeletServer:
    """Serves from the pods' workers; `start` and `stop`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        app = web.Application(middlewares=[only_the_api_server])
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen. Raises OSError where the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context, reuse_address=True).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _pods(self, request: web.Request) -> web.Response:
        items = [worker.pod for worker in self._workers()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of that name; where an old one is still ending, the newer."""
        found = [
            w
            for w in self._workers()
            if podspec.namespace(w.pod) == namespace and podspec.name(w.pod) == name
        ]
        return max(found, key=lambda w: podspec.version(w.pod), default=None)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info
        try:
            options = crilogs.Options.of(request.query, datetime.now(UTC))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        worker = self._find(wanted["namespace"], wanted["pod"])
        if worker is None:
            return web.Response(status=404, text=f'pod "{wanted["pod"]}" does not exist\n')
        container = worker.record.containers.get(wanted["container"])
        if container is None:
            return web.Response(status=404, text=f'container "{wanted["container"]}" not found in pod\n')
        attempt = container.attempt - 1 if options.previous else container.attempt
        if container.run_id is None or attempt < 0:
            what = "previous terminated container" if options.previous else "container"
            reason = container.problem.reason if container.problem else "ContainerCreating"
            return web.Response(
                status=400,
                text=f'{what} "{container.name}" in pod "{wanted["pod"]}" is not available: {reason}\n',
            )
        run_id = container.run_id
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)

        def runs() -> bool:
            return not options.previous and container.phase == "running" and container.run_id == run_id

        async for piece in crilogs.read(worker.directory.log(container.name, attempt), options, runs):
            await response.write(piece)
        await response.write_eof()
        return response
