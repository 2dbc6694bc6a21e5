"""The node's kubelet API over TLS: logs, exec, attach and port-forward, the pods, health. For the API server alone.

A client needs a certificate that the site's CA signed for the API server's kubelet client; the connection itself is
refused without a certificate of that CA.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from infra.local.node import crilogs, podspec, port_forward, remote_command
from infra.local.node.pod_worker import PodWorker
from infra.local.node.port_forward import PortForward
from infra.local.node.records import Container
from infra.local.node.remote_command import RemoteCommand, Wanted
from infra.local.runtime import NoSuchContainer, Session
from infra.local.runtime.runtime import VIEWERS_MOST

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
        # A client that is refused as a WebSocket tries SPDY, by POST: it should hear the reason then.
        app.router.add_route("*", "/exec/{namespace}/{pod}/{container}", self._exec)
        app.router.add_route("*", "/attach/{namespace}/{pod}/{container}", self._attach)
        app.router.add_route("*", "/portForward/{namespace}/{pod}", self._port_forward)
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

    def _pod(self, request: web.Request) -> PodWorker:
        """Whom the request is about. Raises HTTPNotFound."""
        wanted = request.match_info
        worker = self._find(wanted["namespace"], wanted["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{wanted["pod"]}" does not exist\n')
        return worker

    def _container(self, request: web.Request) -> tuple[PodWorker, Container]:
        worker, name = self._pod(request), request.match_info["container"]
        container = worker.record.containers.get(name)
        if container is None:
            raise web.HTTPNotFound(text=f'container "{name}" not found in pod\n')
        return worker, container

    def _running(self, request: web.Request) -> tuple[PodWorker, str]:
        """The container that is asked for, by its run. Raises HTTPNotFound, HTTPBadRequest, HTTPServiceUnavailable."""
        worker, container = self._container(request)
        if container.phase == "running" and container.run_id is not None:
            if not worker.context.runtime.has_room(container.run_id):
                raise web.HTTPServiceUnavailable(
                    text=f'container "{container.name}" in pod "{request.match_info["pod"]}" has {VIEWERS_MOST} '
                    "commands and viewers already: wait until one has ended\n"
                )
            return worker, container.run_id
        why = container.problem.reason if container.problem else container.phase
        raise web.HTTPBadRequest(
            text=f'container "{container.name}" in pod "{request.match_info["pod"]}" is not running: {why}\n'
        )

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        worker, run_id = self._running(request)
        wanted = Wanted.of(request.query)
        ws = _web_socket(request, remote_command.PROTOCOLS)
        runtime = worker.context.runtime
        return await _stream(
            request,
            ws,
            wanted,
            lambda: runtime.open(
                run_id, wanted.command, stdin=wanted.stdin, stderr=wanted.stderr, tty=wanted.tty
            ),
        )

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, run_id = self._running(request)
        wanted, one = Wanted.of(request.query), podspec.container(worker.pod, request.match_info["container"])
        ws = _web_socket(request, remote_command.PROTOCOLS)
        runtime, tty = worker.context.runtime, bool((one or {}).get("tty"))
        return await _stream(
            request, ws, wanted, lambda: runtime.attach(run_id, stdin=wanted.stdin, tty=tty), attached=True
        )

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._pod(request)
        if worker.record.ip is None or worker.record.outcome is not None:
            raise web.HTTPBadRequest(text=f'pod "{podspec.name(worker.pod)}" is not running\n')
        ws = _web_socket(request, (port_forward.PROTOCOL,))
        with contextlib.suppress(ConnectionError):  # the client has gone
            await ws.prepare(request)
            await PortForward(ws, podspec.label(worker.pod), worker.record.ip).run()
            await ws.close()
        return ws

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info
        try:
            options = crilogs.Options.of(request.query, datetime.now(UTC))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        worker, container = self._container(request)
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


def _web_socket(request: web.Request, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """The answer that begins a WebSocket. Raises HTTPBadRequest for a client that asks for something else."""
    ws = web.WebSocketResponse(protocols=protocols, compress=False, heartbeat=None)
    offered = ws.can_prepare(request)
    if not offered.ok or offered.protocol is None:
        wants = request.headers.get("Sec-WebSocket-Protocol") or request.headers.get("Upgrade") or "nothing"
        raise web.HTTPBadRequest(
            text=f"this node speaks WebSocket with {' or '.join(protocols)} here, the client {wants}: "
            "use a kubectl ≥ 1.31\n"
        )
    return ws


async def _stream(
    request: web.Request,
    ws: web.WebSocketResponse,
    wanted: Wanted,
    begin: Callable[[], Session],
    *,
    attached: bool = False,
) -> web.StreamResponse:
    """Begin a session and join it to the WebSocket."""
    try:
        session = begin()
    except (NoSuchContainer, ValueError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
    except OSError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    try:
        with contextlib.suppress(ConnectionError):  # the client has gone
            await ws.prepare(request)
            await RemoteCommand(ws, session, wanted, request.match_info["container"]).run(attached=attached)
            await ws.close()
    finally:
        session.close()
    return ws
