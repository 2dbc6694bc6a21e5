"""A gateway as it is in its pod: `init`, a real Envoy, the agent as a process, and backends as processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from infra.local.toolchain import locate
from switchboard import envoy, labels
from switchboard.kinds import MODEL_RELEASES, MODEL_SERVERS, PODS, SERVICE_ACCOUNTS, Kind
from switchboard.kube import Credentials, Kube
from switchboard.paths import ROOT
from tests import pods
from tests.conftest import ControlPlane, free_subnets
from tests.definitions import define_model_releases, define_model_servers
from tests.pods import until

PORT = 8080
BACKEND = Path(__file__).with_name("backend.py")


ROLES = Kind("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")


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

    async def seen(self) -> list[tuple[str, str]]:
        """The host and the id of each request that came."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.ip}:{PORT}/seen") as answer,
        ):
            return [(host, request_id) for host, request_id in await answer.json()]

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
    _defined: bool = False

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
        self,
        name: str,
        *,
        ready: bool = True,
        tier: str = "core",
        region: str | None = None,
        fleet: str = "chat",
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
            labels={labels.MODEL_SERVER: fleet, labels.TIER: tier, **extra},
            ports={"http": PORT},
            ready=ready,
        )
        return Backend(ip, process)

    async def backends(self, *names: str, **options: Any) -> list[Backend]:
        made = await asyncio.gather(*(self.backend(name, **options) for name in names))
        await self.used({one.ip for one in made})
        return list(made)

    async def model_server(self, **values: Any) -> None:
        """A ModelServer `chat` that may have no replica; values at dotted places of its spec."""
        await define_model_servers(self.kube)
        spec: dict[str, Any] = {
            "model": {"name": "chat-intent", "alias": "champion"},
            "image": "switchboard.dev/switchboard:0.1.0",
            "dataRegions": ["cn-shenzhen"],
            "scaling": {"minReplicas": 0, "maxReplicas": 10},
        }
        for place, value in values.items():
            outer, _, inner = place.partition("__")
            spec[outer] = {**spec.get(outer, {}), inner: value} if inner else value
        meta = {"name": "chat", "namespace": self.space}
        await self.kube.apply(MODEL_SERVERS, {"metadata": meta, "spec": spec}, field_manager="test")

    async def stats(self, *names: str) -> dict[str, int]:
        async with envoy.Admin(self.directory / "admin.sock") as admin:
            found = await admin.stats(*names)
        return {name: int(found.get(name, "0")) for name in names}

    async def waiting(self, count: int) -> None:
        """Wait until so many requests are with the agent."""
        name = "cluster.chat@activator.upstream_rq_active"

        async def so_many() -> bool:
            return (await self.stats(name))[name] == count

        await until(so_many, what=f"{count} requests that wait")

    async def at_work(self, count: int) -> None:
        """Wait until replicas are at work on so many requests."""
        name = "cluster.chat.upstream_rq_active"

        async def so_many() -> bool:
            return (await self.stats(name))[name] == count

        await until(so_many, what=f"{count} requests at work")

    async def session_of(self, backend: Backend) -> str:
        """A session that stays with that one."""
        for i in range(1000):
            if (await self.ask(f"session-{i}"))[1]["from"] == backend.ip:
                return f"session-{i}"
        raise AssertionError(f"{backend.ip} gets no session")

    async def holding(self, holds: bool = True) -> None:
        """Wait until requests would be held, or no longer."""
        await self.routed(lambda table: ("chat@activator" in table) == holds)

    async def routed(self, condition: Callable[[str], bool]) -> None:
        """Wait until Envoy has a route table, as text, that is so."""
        file = self.directory / "routes.json"
        await until(lambda: condition(file.read_text()), what="such routes")
        async with envoy.Admin(self.directory / "admin.sock") as admin:
            version = {"http.gateway.rds.gateway.version_text": json.loads(file.read_text())["version_info"]}
            assert await admin.taken(version, timeout_s=10)

    async def release(self, *, wait: bool = True, phase: str = "Canary", **shares: int) -> None:
        """A release of `chat` with so much `weight` and `mirror`; waits until Envoy knows of the weight."""
        if not self._defined:
            await define_model_releases(self.kube)
            meta, spec = {"name": "r", "namespace": self.space}, {"server": "chat", "version": 2}
            await self.kube.apply(MODEL_RELEASES, {"metadata": meta, "spec": spec}, field_manager="test")
            self._defined = True
        status = {"service": "chat", "phase": phase, "weight": 0, "mirror": 0, **shares}
        await self.kube.patch(MODEL_RELEASES, "r", {"status": status}, self.space, subresource="status")
        if wait:
            await self.weighs(shares.get("weight", 0))

    async def weighs(self, weight: int) -> None:
        """Wait until the candidate gets so many percent."""
        await self.routed(lambda table: weight_of(table) == weight)

    async def only_pods(self) -> Path:
        """A kubeconfig that may see pods, and nothing else."""
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        meta = {"name": "only-pods", "namespace": self.space}
        await self.kube.create(SERVICE_ACCOUNTS, {"metadata": meta})
        await self.kube.create(ROLES, {"metadata": meta, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": "only-pods", "namespace": self.space}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "only-pods"}
        await self.kube.create(ROLE_BINDINGS, {"metadata": meta, "roleRef": role, "subjects": [subject]})
        token = await self.kube.create(
            SERVICE_ACCOUNTS, {"spec": {}}, self.space, name="only-pods", subresource="token"
        )
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token["status"]["token"]}
        path = self.directory / "only-pods"
        path.write_text(yaml.safe_dump(config))
        return path

    async def mark(self, name: str) -> None:
        """As the operator does with a pod that is to go."""
        await self.kube.patch(
            PODS, name, {"metadata": {"annotations": {labels.DRAINING: "2026-01-01T00:00:00Z"}}}, self.space
        )

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


def weight_of(table: str) -> int:
    """The candidate's in a route table."""
    for route in json.loads(table)["resources"][0]["virtual_hosts"][0]["routes"]:
        for part in route.get("route", {}).get("weighted_clusters", {}).get("clusters", ()):
            if part["name"] == "chat_candidate":
                return int(part["weight"])
    return 0


class Relay:
    """TCP from `ip:port` on to `ip:target`, that can be cut with all its connections."""

    def __init__(self, ip: str, target: int, port: int) -> None:
        self._ip, self._target, self._port = ip, target, port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._ip, self._port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._ip, self._target)
        self._writers |= {writer, far_writer}

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


def relay_to(control_plane: ControlPlane, directory: Path) -> tuple[Relay, Path]:
    """A relay to the API server, not open yet, and the kubeconfig that goes by it."""
    api, port = str(control_plane.layout.control_plane_ip), 16443
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{api}:{port}"
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return Relay(api, 6443, port), kubeconfig


@pytest.fixture(scope="session")
def subnets() -> Iterator[str]:
    """Loopback networks for one gateway and its backends each, of nobody else's on the machine."""
    return free_subnets("127.35")


@pytest.fixture
def gateway_environ() -> dict[str, str]:
    return {"GATEWAY_TIER": "core", "GATEWAY_REGION": "cn-shenzhen"}


@pytest.fixture
async def world(
    control_plane: ControlPlane, tmp_path: Path, subnets: Iterator[str], gateway_environ: dict[str, str]
) -> AsyncIterator[World]:
    async with (
        Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        space = await pods.namespace(kube, f"gateway-{os.urandom(4).hex()}")
        subnet = next(subnets)
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
