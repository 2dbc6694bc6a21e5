"""A gateway as it is in its pod (a real Envoy, the agent as a process) with backends as processes, and a load on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from infra.local.toolchain import locate
from serving.gateway import __main__ as program
from serving.gateway import agent
from serving.gateway.settings import Settings
from switchboard import envoy, labels
from switchboard.kinds import MODEL_RELEASES, MODEL_SERVERS, PODS, SERVICE_ACCOUNTS, Kind
from switchboard.kube import Kube
from switchboard.paths import ROOT
from tests import pods
from tests.definitions import define_model_releases, define_model_servers
from tests.pods import until
from tests.serving.gateway.backend import serve
from tests.serving.gateway.forks import Fork
from tests.serving.gateway.load import Load

PORT = 8080
ADMIN_S = 60.0
"""How long an answer of Envoy's admin face may take on a busy machine."""

ROLES = Kind("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")


@dataclass
class Backend:
    ip: str
    process: Fork

    async def mode(self, **mode: Any) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{self.ip}:{PORT}/mode", json=mode) as answer,
        ):
            assert answer.status == 200

    async def seen(self) -> list[tuple[str, str]]:
        """The host and the id of each request that came."""
        return [(host, request_id) for host, request_id in await self._tell("seen")]

    async def checks(self) -> int:
        """How many health checks came."""
        return int(await self._tell("checks"))

    async def _tell(self, what: str) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.ip}:{PORT}/{what}") as answer,
        ):
            return await answer.json()

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
    agent: Fork | None = None
    processes: list[subprocess.Popen[bytes] | Fork] = field(default_factory=list)
    _next: int = 10
    _defined: bool = False

    @property
    def ip(self) -> str:
        return f"{self.subnet}.2"

    @property
    def url(self) -> str:
        return f"http://{self.ip}:{PORT}"

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def init(self) -> None:
        agent.init(Settings.from_environ(self.environ))

    def start_envoy(self) -> None:
        argv = [str(locate(["envoy"]).path("envoy")), "-c", str(self.directory / "bootstrap.yaml")]
        with (self.directory / "envoy.log").open("ab") as log:
            self.envoy = subprocess.Popen([*argv, *envoy.ARGUMENTS], cwd=ROOT, stdout=log, stderr=log)
        self.processes.append(self.envoy)

    def start_agent(self, kubeconfig: Path | None = None) -> None:
        environ = {**os.environ, **self.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        self.agent = Fork(run_agent, environ, log=self.directory / "agent.log")
        self.processes.append(self.agent)

    async def start(self) -> None:
        self.init()
        self.start_envoy()
        self.start_agent()
        await until(self.ready, what="the gateway ready")

    def failures(self) -> list[dict[str, Any]]:
        """What Envoy has noted, one for each. It flushes its log every 10 s, or at its end: this is its end."""
        assert self.envoy is not None
        self.envoy.terminate()
        self.envoy.wait()
        return [json.loads(line) for line in self.log("envoy").splitlines() if line.startswith("{")]

    def explain(self, load: Load) -> str:
        """A load's failures, and Envoy's reasons."""
        lines = self.failures()
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
        except (aiohttp.ClientError, TimeoutError):
            return 0

    def admin(self) -> envoy.Admin:
        return envoy.Admin(self.directory / "admin.sock", timeout_s=ADMIN_S)

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
        up, its_end = multiprocessing.Pipe(duplex=False)
        process = Fork(serve, ip, PORT, its_end, log=self.directory / f"{name}.log")
        its_end.close()
        self.processes.append(process)
        with up:
            assert await asyncio.to_thread(up.recv) == "up"
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
        async with self.admin() as admin:
            found = await admin.stats(*names)
        return {name: int(found.get(name, "0")) for name in names}

    async def waiting(self, count: int) -> None:
        """Wait until so many requests are with the agent."""
        name = "cluster.chat@activator.upstream_rq_active"

        async def so_many() -> bool:
            return (await self.stats(name))[name] == count

        await until(so_many, what=f"{count} requests that wait")

    async def session_of(self, backend: Backend) -> str:
        """A session that stays with that one."""
        for i in range(1000):
            if (await self.ask(f"session-{i}"))[1]["from"] == backend.ip:
                return f"session-{i}"
        raise AssertionError(f"{backend.ip} gets no session")

    async def holding(self, holds: bool = True) -> None:
        """Wait until requests would be held, or no longer."""
        await self.routed(lambda table: ("chat@activator" in table) == holds)

    async def routed(self, condition: Callable[[str], bool], table: str = "gateway") -> None:
        """Wait until Envoy has a route table, as text, that is so."""
        file = {"gateway": "routes.json", "released": "released-routes.json"}[table]
        await self._in_force(file, f"http.{table}.rds.{table}.version_text", condition)

    async def given(self, cluster: str, ips: Iterable[str]) -> None:
        """Wait until these are the cluster's endpoints for Envoy."""
        expected = " ".join(f"{ip}:{PORT}" for ip in sorted(ips)) or "none"
        await self._in_force(
            f"endpoints-{cluster}.json",
            f"cluster.{cluster}.version_text",
            lambda text: envoy.describe(json.loads(text)) == expected,
        )

    async def _in_force(self, file: str, statistic: str, condition: Callable[[str], bool]) -> None:
        """Wait until Envoy has the file as it is at that time, since the agent may write it again meanwhile."""
        path = self.directory / file

        async def taken() -> bool:
            text = path.read_text() if path.exists() else ""
            if not text or not condition(text):
                return False
            async with self.admin() as admin:
                return (await admin.stats(statistic)).get(statistic) == json.loads(text)["version_info"]

        await until(taken, what=f"such a {file}, in force")

    async def hosts(self) -> dict[str, str]:
        """The replicas that Envoy has, each with what Envoy's health checks say of it."""
        async with self.admin() as admin:
            _, clusters = await admin.request("/clusters")
        return dict(re.findall(rf"::([0-9.]+):{PORT}::health_flags::(\S+)", clusters))

    async def healthy(self, *ips: str) -> None:
        """Wait until Envoy has found these well. Before it has found any so, it tries all alike."""

        async def well() -> bool:
            found = await self.hosts()
            return all(found.get(ip) == "healthy" for ip in ips)

        await until(well, what=f"{', '.join(ips)} healthy")

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

    async def bounded(self, most: int) -> None:
        """Wait until so many requests of `chat` may be under way."""

        async def so_many() -> bool:
            async with self.admin() as admin:
                _, text = await admin.request("/runtime")
            found = json.loads(text)["entries"].get("circuit_breakers.chat.default.max_requests") or {}
            return bool(found.get("final_value") == str(most))

        await until(so_many, what=f"at most {most} under way")

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

        async def left() -> bool:
            return backend.ip not in await self.hosts()

        await until(left, what=f"{name} is left alone")
        backend.process.send_signal(signal.SIGUSR1)
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
        """Wait until exactly these answer, and are healthy."""

        found: set[Any] = set()

        async def seen() -> bool:
            found.clear()
            for _ in range(16):
                status, body, _ = await self.ask()
                found.add(body["from"] if status == 200 else status)
            return found == ips

        await self.healthy(*ips)
        try:
            await until(seen)
        except AssertionError:
            raise AssertionError(f"answers from {found}, not from {ips}; {await self.hosts()}") from None

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


def run_agent(environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["serving.gateway", "run"]
    sys.exit(program.main())


def weight_of(table: str) -> int:
    """The candidate's in a route table."""
    for route in json.loads(table)["resources"][0]["virtual_hosts"][0]["routes"]:
        for part in route.get("route", {}).get("weighted_clusters", {}).get("clusters", ()):
            if part["name"] == "chat_candidate":
                return int(part["weight"])
    return 0
