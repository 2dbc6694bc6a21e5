"""A gateway as it is in its pod: `init`, a real Envoy, the agent as a process, and backends as processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra.local.toolchain import locate
from switchboard import envoy, labels
from switchboard.kube import PODS, Credentials, Kube
from switchboard.paths import ROOT
from tests import pods
from tests.conftest import ControlPlane
from tests.pods import until

PORT = 8080
BACKEND = Path(__file__).with_name("backend.py")


@dataclass
class Load:
    """What a load saw: answers by status, failures in words."""

    answers: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    by: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.answers.values()) + len(self.errors)

    @property
    def failed(self) -> int:
        return self.total - self.answers.get(200, 0)

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} failed: {self.answers}, {self.errors[:3]}"


@dataclass
class Backend:
    ip: str
    process: subprocess.Popen[bytes]

    async def mode(self, **mode: Any) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{self.ip}:{PORT}/mode", json=mode) as answer,
        ):
            assert answer.status == 200

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class World:
    """A namespace with model servers, and one gateway before it."""

    kube: Kube
    space: str
    kubeconfig: Path
    directory: Path
    subnet: str
    environ: dict[str, str]
    session: aiohttp.ClientSession
    envoy: subprocess.Popen[bytes] | None = None
    agent: subprocess.Popen[bytes] | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _next: int = 10

    @property
    def ip(self) -> str:
        return f"{self.subnet}.2"

    @property
    def url(self) -> str:
        return f"http://{self.ip}:{PORT}"

    def _start(self, *argv: str, name: str, **options: Any) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stderr=log, **({"stdout": log} | options))
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    async def init(self) -> None:
        process = self._start(
            *(sys.executable, "-m", "serving.gateway", "init"), name="init", env=os.environ | self.environ
        )
        await until(lambda: process.poll() is not None, what="init")
        assert process.returncode == 0, self.log("init")

    def start_envoy(self) -> None:
        binary = str(locate(["envoy"]).path("envoy"))
        config = str(self.directory / "bootstrap.yaml")
        self.envoy = self._start(binary, "-c", config, *envoy.ARGUMENTS, name="envoy")

    def start_agent(self, kubeconfig: Path | None = None) -> None:
        environ = os.environ | self.environ | {"KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        self.agent = self._start(sys.executable, "-m", "serving.gateway", "run", name="agent", env=environ)

    async def start(self) -> None:
        await self.init()
        self.start_envoy()
        self.start_agent()
        await until(self.ready, what="the gateway ready")

    def explain(self, load: Load) -> str:
        """A load's failures, and Envoy's reasons (its log is flushed every 10 s, or at its end)."""
        assert self.envoy is not None
        self.envoy.terminate()
        self.envoy.wait()
        lines = [json.loads(line) for line in self.log("envoy").splitlines() if line.startswith("{")]
        reasons = Counter(
            str({key: line[key] for key in ("status", "details", "flags", "attempts", "upstream")})
            for line in lines
        )
        return "\n".join([str(load), *(f"{count} x {reason}" for reason, count in reasons.most_common(5))])

    async def ready(self) -> bool:
        return await self.ops("/ready") == 200

    async def ops(self, path: str) -> int:
        try:
            async with self.session.get(f"http://{self.ip}:9902{path}") as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def backend(
        self, name: str, *, ready: bool = True, tier: str = "core", region: str | None = None
    ) -> Backend:
        """A model server's process and its pod."""
        ip = f"{self.subnet}.{self._next}"
        self._next += 1
        process = self._start(sys.executable, str(BACKEND), ip, str(PORT), name=name, stdout=subprocess.PIPE)
        out = process.stdout
        assert out is not None
        await asyncio.to_thread(out.readline)
        extra = {labels.REGION: region} if region else {}
        await pods.pod(
            self.kube,
            self.space,
            name,
            ip=ip,
            labels={labels.MODEL_SERVER: "chat", labels.TIER: tier, **extra},
            ports={"http": PORT},
            ready=ready,
        )
        return Backend(ip, process)

    async def backends(self, *names: str, **options: Any) -> list[Backend]:
        made = await asyncio.gather(*(self.backend(name, **options) for name in names))
        await self.used({one.ip for one in made})
        return list(made)

    async def remove(self, name: str, backend: Backend) -> None:
        """As Kubernetes does it: the pod is terminating, its process is told to stop, then the pod is gone."""
        await self.kube.delete(PODS, name, self.space)
        backend.process.terminate()
        await until(lambda: backend.process.poll() is not None, what=f"the end of {name}")
        await pods.gone(self.kube, self.space, name)

    async def ask(self, session: str | None = None, **options: Any) -> tuple[int, Any, Mapping[str, str]]:
        headers = {"X-Session-Id": session or os.urandom(4).hex()} | options.pop("headers", {})
        options.setdefault("json", {"text": "hello"})
        async with self.session.post(
            f"{self.url}{options.pop('path', '/v1/chat')}", headers=headers, **options
        ) as answer:
            return answer.status, await answer.json(), answer.headers

    async def used(self, ips: set[str]) -> None:
        """Wait until exactly these answer."""

        found: set[Any] = set()

        async def seen() -> bool:
            found.clear()
            for _ in range(16):
                status, body, _ = await self.ask()
                found.add(body["from"] if status == 200 else status)
            return found == ips

        try:
            await until(seen)
        except AssertionError:
            async with envoy.Admin(self.directory / "admin.sock") as admin:
                _, clusters = await admin.request("/clusters")
            health = "\n".join(line for line in clusters.splitlines() if "health_flags" in line)
            raise AssertionError(f"answers from {found}, not from {ips}; to Envoy:\n{health}") from None

    @contextlib.asynccontextmanager
    async def load(self, *, workers: int = 6, at_least: int = 1000) -> AsyncIterator[Load]:
        """Requests all the time, one after the other for each worker, and at least so many in all."""
        load, stop = Load(), asyncio.Event()

        async def work() -> None:
            while not stop.is_set() or load.total < at_least:
                try:
                    status, body, _ = await self.ask()
                except Exception as error:
                    load.errors.append(repr(error))
                    continue
                load.answers[status] = load.answers.get(status, 0) + 1
                if status == 200:
                    load.by[body["from"]] = load.by.get(body["from"], 0) + 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(work())
            try:
                yield load
            finally:
                stop.set()


@pytest.fixture(scope="session")
def subnets() -> list[str]:
    """Loopback networks for one gateway and its backends each."""
    start = os.getpid() % 200
    return [f"127.35.{(start + i) % 250 + 1}" for i in range(40)]


@pytest.fixture
def gateway_environ() -> dict[str, str]:
    return {"GATEWAY_TIER": "core", "GATEWAY_REGION": "cn-shenzhen"}


@pytest.fixture
async def world(
    control_plane: ControlPlane, tmp_path: Path, subnets: list[str], gateway_environ: dict[str, str]
) -> AsyncIterator[World]:
    async with (
        Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        space = await pods.namespace(kube, f"gateway-{os.urandom(4).hex()}")
        subnet = subnets.pop()
        environ = {
            "POD_IP": f"{subnet}.2",
            "POD_NAME": "gateway-0",
            "POD_NAMESPACE": space,
            "CONFIG_DIR": str(tmp_path),
            **gateway_environ,
        }
        made = World(kube, space, control_plane.kubeconfig, tmp_path, subnet, environ, session)
        try:
            yield made
        finally:
            for process in made.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()


@pytest.fixture
async def gateway(world: World) -> World:
    """A world whose gateway runs."""
    await world.start()
    return world
