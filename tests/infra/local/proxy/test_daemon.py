"""The Service proxy as a process, beside a real control plane and with a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from infra.local import processes
from infra.local.layout import SiteLayout
from infra.local.proxy import report
from switchboard import labels
from switchboard.kube import PODS, SERVICES, Credentials, Kube
from switchboard.paths import ROOT
from tests import pods
from tests.conftest import ControlPlane
from tests.pods import until


@dataclass
class Site:
    """A Service proxy that can be started, killed and stopped."""

    control_plane: ControlPlane
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def layout(self) -> SiteLayout:
        return self.control_plane.layout

    @property
    def ready(self) -> bool:
        return (self.layout.run / "proxy.ready").exists()

    @property
    def refused(self) -> dict[str, str]:
        told = report.read(self.layout.run / "proxy.ready")
        return told.refused if told else {}

    @property
    def envoy(self) -> processes.Record | None:
        record = processes.read(self.layout.run / "proxy-envoy.json")
        return record if record and processes.alive(record) else None

    async def start(self) -> subprocess.Popen[bytes]:
        (self.layout.run / "proxy.ready").unlink(missing_ok=True)
        plane = self.control_plane
        with (self.layout.logs / "proxy.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it takes milliseconds
                [
                    *(sys.executable, "-m", "infra.local.proxy"),
                    *("--stack", plane.stack, "--site", self.layout.name),
                ],
                cwd=ROOT,
                env={**os.environ, **plane.env},
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        await until(lambda: self.ready or process.poll() is not None, 120, "proxy ready")
        assert process.poll() is None, processes.tail(self.layout.logs / "proxy.log")
        return process


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane) -> Iterator[Site]:
    made = Site(control_plane)
    try:
        yield made
    finally:
        for process in made.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        processes.stop(control_plane.layout.run / "proxy-envoy.json")


@pytest.fixture
async def running(site: Site) -> Site:
    if not site.started or site.started[-1].poll() is not None:
        await site.start()
    return site


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as made:
        yield made


@pytest.fixture
async def space(kube: Kube) -> str:
    return await pods.namespace(kube, f"proxy-{os.urandom(4).hex()}")


@contextlib.asynccontextmanager
async def backend(ip: str, port: int = 8080) -> AsyncIterator[str]:
    """A server that answers each line with its own address before it."""
    clients: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(f"{ip} ".encode() + line)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, ip, port)
    try:
        yield ip
    finally:
        server.close()
        for writer in clients:
            writer.close()


@contextlib.asynccontextmanager
async def checked(ip: str, port: int = 9902) -> AsyncIterator[asyncio.Event]:
    """A server that says over HTTP that it lives, while the event is set: else it keeps whoever asks waiting."""
    lives = asyncio.Event()
    lives.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while b"GET /livez" in await reader.readuntil(b"\r\n\r\n"):
                await lives.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, ip, port)
    try:
        yield lives
    finally:
        lives.set()
        server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self) -> str:
        """The address of the backend that answers; empty where the connection is gone."""
        self.writer.write(b"hello\n")
        try:
            line = await asyncio.wait_for(self.reader.readline(), 60)
        except ConnectionError:
            return ""
        return line.decode().split(" ")[0]

    def close(self) -> None:
        self.writer.close()


async def connect(ip: str, port: int) -> Client:
    return Client(*await asyncio.open_connection(ip, port))


async def answer(ip: str, port: int) -> str:
    """Who answers a new connection; `refused` where nobody listens, or just stopped to."""
    try:
        client = await connect(ip, port)
    except ConnectionError:
        return "refused"
    try:
        return await client.ask()
    finally:
        client.close()


async def answers(ip: str, port: int, expected: set[str]) -> None:
    async def seen() -> bool:
        return {await answer(ip, port) for _ in range(12)} == expected

    await until(seen, what=f"answers from {expected}")


def addresses(layout: SiteLayout, count: int) -> list[str]:
    start = int.from_bytes(os.urandom(1), "big") % 200 + 10
    return [str(layout.nodes[0].pod_cidr.network_address + start + i) for i in range(count)]


WEB = {"app": "web"}
HTTP = {"http": 8080}


async def test_a_service_leads_to_its_ready_pods(running: Site, kube: Kube, space: str) -> None:
    one, two = addresses(running.layout, 2)
    async with backend(one), backend(two):
        ip = await pods.service(kube, space, "web", selector=WEB, port=80, target="http")
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP, ready=False)
        await pods.pod(kube, space, "two", ip=two, labels=WEB, ports=HTTP)
        await answers(ip, 80, {two})
        await pods.set_ready(kube, space, "one", True)
        await answers(ip, 80, {one, two})

        client = await connect(ip, 80)
        held = await client.ask()
        name = "one" if held == one else "two"
        await kube.delete(PODS, name, space)
        await answers(ip, 80, {one, two} - {held})
        assert await client.ask() == held, "an open connection to a terminating pod goes on"

        other = "two" if name == "one" else "one"
        await kube.delete(PODS, other, space)
        await answers(ip, 80, {"refused"})
        assert await client.ask() == held, "and does so when the Service has no pod left"

        await pods.pod(kube, space, "three", ip=two, labels=WEB, ports=HTTP)
        await answers(ip, 80, {two})
        assert await client.ask() == held
        client.close()

        await kube.delete(SERVICES, "web", space)
        await answers(ip, 80, {"refused"})


async def test_a_dead_pod_costs_no_connection(running: Site, kube: Kube, space: str) -> None:
    """It is in the endpoints until its node says otherwise: meanwhile connections to it are tried elsewhere."""
    one, dead = addresses(running.layout, 2)
    async with backend(one):
        ip = await pods.service(kube, space, "web", selector=WEB, port=80, target=8080)
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP)
        await answers(ip, 80, {one})
        await pods.pod(kube, space, "dead", ip=dead, labels=WEB, ports=HTTP)
        # 8 in 10 connections of a random choice of three attempts would fail by now if they were not repeated.
        await answers(ip, 80, {one})


async def test_a_client_stays_with_its_pod(running: Site, kube: Kube, space: str) -> None:
    one, two = addresses(running.layout, 2)
    async with backend(one), backend(two):
        ip = await pods.service(
            kube, space, "web", selector=WEB, port=80, target="http", sessionAffinity="ClientIP"
        )
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP)
        await pods.pod(kube, space, "two", ip=two, labels=WEB, ports=HTTP)

        async def one_only() -> bool:
            return len({await answer(ip, 80) for _ in range(12)} - {"refused"}) == 1

        await until(one_only)


async def test_the_kubernetes_service_is_the_api_server(running: Site, control_plane: ControlPlane) -> None:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    credentials.server = f"https://{running.layout.kubernetes_service_ip}:443"
    async with Kube(credentials) as through:
        assert await through.get_or_none(SERVICES, "kubernetes", "default")


async def test_a_load_balancer_gets_its_address(running: Site, kube: Kube, space: str) -> None:
    ip = await pods.service(kube, space, "lb", selector=WEB, port=80, target=8080, type="LoadBalancer")

    async def ingress() -> list[dict[str, str]]:
        return (await kube.get(SERVICES, "lb", space))["status"]["loadBalancer"].get("ingress", [])

    assert await until(ingress) == [{"ip": ip, "ipMode": "VIP"}]


async def test_a_load_balancer_leaves_whom_it_gets_no_answer_from(
    running: Site, kube: Kube, space: str
) -> None:
    """A machine that is lost stays ready for the API server for most of a minute."""
    one, two = addresses(running.layout, 2)
    probe = {"livenessProbe": {"httpGet": {"path": "/livez", "port": "stats"}}}
    ports = {**HTTP, "stats": 9902}
    async with backend(one), backend(two), checked(one) as lives, checked(two):
        for name, where in (("one", one), ("two", two)):
            await pods.pod(kube, space, name, ip=where, labels=WEB, ports=ports, **probe)
        ip = await pods.service(kube, space, "lb", selector=WEB, port=80, target="http", type="LoadBalancer")
        await answers(ip, 80, {one, two})
        held = await connect(ip, 80)
        while await held.ask() != one:
            held.close()
            held = await connect(ip, 80)
        lives.clear()
        assert await asyncio.wait_for(held.reader.read(), 60) == b"", "its connections are closed"
        await answers(ip, 80, {two})
        lives.set()
        await answers(ip, 80, {one, two})


async def test_clients_with_somewhere_else_to_go_are_refused(running: Site, kube: Kube, space: str) -> None:
    """An edge's machine is lost, and its gateway is the only one."""
    (one,) = addresses(running.layout, 1)
    probe = {"livenessProbe": {"httpGet": {"path": "/livez", "port": "stats"}}}
    async with backend(one), checked(one) as lives:
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports={**HTTP, "stats": 9902}, **probe)
        ip = await pods.service(
            kube,
            space,
            "lb",
            selector=WEB,
            port=80,
            target="http",
            annotations={labels.REFUSES: "true"},
            type="LoadBalancer",
        )
        await answers(ip, 80, {one})
        held = await connect(ip, 80)
        assert await held.ask() == one
        lives.clear()
        assert await asyncio.wait_for(held.reader.read(), 60) == b"", "its connections are closed"
        another = await connect(ip, 80)
        assert await another.ask() == "", "nobody is left to wait"
        lives.set()
        await answers(ip, 80, {one})


async def test_an_address_in_use_harms_nobody_else_and_is_taken_once_it_is_free(
    running: Site, kube: Kube, space: str
) -> None:
    (one,) = addresses(running.layout, 1)
    await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP)
    taken = str(
        running.layout.embedded.services.network_address + 0x4000 + int.from_bytes(os.urandom(1), "big")
    )
    async with backend(one):
        with socket.create_server((taken, 80)):
            await pods.service(kube, space, "a", selector=WEB, port=80, target=8080, clusterIP=taken)
            other = await pods.service(kube, space, "z", selector=WEB, port=80, target=8080)
            await answers(other, 80, {one})
            log = running.layout.logs / "proxy.log"
            await until(
                lambda: f"{space}/a:80 can't be served" in log.read_text(), what="a line that names it"
            )
            await until(lambda: f"{space}/a:80" in running.refused, what="a report that names it")
        await answers(taken, 80, {one})
        await until(lambda: not running.refused, what="a report without it")


async def test_the_proxy_dies_and_comes_back_and_connections_go_on(
    running: Site, kube: Kube, space: str
) -> None:
    one, two = addresses(running.layout, 2)
    async with backend(one), backend(two):
        ip = await pods.service(kube, space, "web", selector=WEB, port=80, target="http")
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP)
        await answers(ip, 80, {one})
        client = await connect(ip, 80)
        envoy = running.envoy

        running.started[-1].kill()
        running.started[-1].wait()
        assert await client.ask() == one
        assert await answer(ip, 80) == one
        await kube.delete(PODS, "one", space)
        await pods.pod(kube, space, "two", ip=two, labels=WEB, ports=HTTP)

        await running.start()
        assert running.envoy == envoy, "the running Envoy is adopted"
        await answers(ip, 80, {two})
        assert await client.ask() == one
        client.close()


async def test_envoy_dies_and_is_back_at_once(running: Site, kube: Kube, space: str) -> None:
    (one,) = addresses(running.layout, 1)
    async with backend(one):
        ip = await pods.service(kube, space, "web", selector=WEB, port=80, target="http")
        await pods.pod(kube, space, "one", ip=one, labels=WEB, ports=HTTP)
        await answers(ip, 80, {one})
        before = running.envoy
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        await until(lambda: running.envoy not in (None, before), what="a new Envoy")
        await answers(ip, 80, {one})


async def test_sigterm_stops_envoy_too(running: Site) -> None:
    running.started[-1].send_signal(signal.SIGTERM)
    await until(lambda: running.started[-1].poll() is not None, what="the proxy's end")
    assert running.started[-1].returncode == 0
    assert running.envoy is None
    assert not running.ready
