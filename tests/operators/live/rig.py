"""The operator as a process of its own, on a real control plane with simulated nodes, asking a real Prometheus that
scrapes a synthetic exporter."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from aiohttp import web

from infra.local import toolchain
from operators.scaling.constraints import RAISE_FROM
from operators.scaling.policy import replicas_for
from operators.scaling.values import Capacity
from operators.signals.gateways import STATS_PORT
from operators.trials.exporter import Exporter, Service, scrape_config, statistics
from operators.trials.nodes import Fate, Node, Nodes
from operators.trials.volumes import STORAGE_CLASS, Volumes
from switchboard import labels
from switchboard.api.model_server import MODEL_SERVERS, Arm, fleet_of
from switchboard.informer import Informer
from switchboard.kinds import MODEL_RELEASES
from switchboard.kube import DEPLOYMENTS, EVENTS, NAMESPACES, PODS, ApiError, Kube, Object, Unreachable
from tests.conftest import free_subnets

log = logging.getLogger(__name__)

LONG_S = 240.0
"""Far more than anything here takes, on a busy machine too."""
LOOK_S = 0.5
"""Between two looks: dozens of waits go on at once, and each look takes milliseconds of two processes."""
PAGE_TIMEOUT = aiohttp.ClientTimeout(total=10)
IMAGE = "switchboard.dev/switchboard:0.1.0"


CAPACITY_RPS = 10


@functools.cache
def host() -> str:
    """An address that no other process has, so that a port which was free a moment ago still is."""
    return f"{next(free_subnets('127.34'))}.2"


def enough(rate: float) -> int:
    """How many replicas `rate` requests/s come to, once they have been seen for a whole window."""
    needed = float(replicas_for(np.asarray(rate), Capacity(CAPACITY_RPS, math.inf), 0.9))
    return math.ceil(needed - RAISE_FROM)


@dataclass
class Process:
    """A program that a test started, with its log."""

    process: asyncio.subprocess.Process
    log: Path
    url: str

    @property
    def runs(self) -> bool:
        """Whether it is there, and isn't frozen."""
        if self.process.returncode is not None:
            return False
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED
        return False

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
            if number in (signal.SIGTERM, signal.SIGKILL):
                await self.process.wait()


@dataclass
class Rig:
    """One namespace with the operator's world in it."""

    kube: Kube
    kubeconfig: Path
    namespace: str
    folder: Path
    exporter: Exporter
    prometheus: Process
    fates: dict[str, Fate] = field(default_factory=dict)
    """How the pods of a ModelServer fare, by its name."""
    operators: list[Process] = field(default_factory=list)
    nodes: Nodes | None = None
    pods: Informer | None = None
    prometheus_command: Sequence[str] = ()

    async def kill_prometheus(self) -> None:
        """It dies, and is started anew with what it has on disk, as its pod would be."""
        await self.prometheus.stop(signal.SIGKILL)
        log = self.folder / "prometheus-again.log"
        self.prometheus = await start(list(self.prometheus_command), log, self.prometheus.url)

    def service(self, name: str, **values: Any) -> Service:
        made = self.exporter.services[name] = Service(name, **values)
        return made

    async def server(self, name: str, spec: Object | None = None, **scaling: Any) -> Object:
        """Make or change a ModelServer; `scaling` in the API's words. Its number follows from its traffic alone: what
        a history asks for changes while there is little of it."""
        body = {
            "model": {"name": "chat-intent", "alias": "champion"},
            "image": IMAGE,
            "dataClass": "internal",
            "cache": {"storageClass": STORAGE_CLASS},
            "capacity": {"requestsPerSecond": CAPACITY_RPS, "startSeconds": 5},
            "scaling": {
                "maxReplicas": 20,
                "stabilizationSeconds": 10,
                "headroom": {"price": 0},
                **scaling,
            },
            **(spec or {}),
        }
        meta = {"name": name, "namespace": self.namespace}
        return await self.kube.apply(MODEL_SERVERS, {"metadata": meta, "spec": body}, field_manager="test")

    async def operator(self, name: str = "operator-0", *, prometheus: bool = True) -> Process:
        with socket.socket() as probe:
            probe.bind((host(), 0))
            port = probe.getsockname()[1]
        env = {
            **os.environ,
            "POD_NAME": name,
            "POD_IP": host(),
            "POD_NAMESPACE": self.namespace,
            "PORT": str(port),
            "KUBECONFIG": str(self.kubeconfig),
        }
        if prometheus:
            env["PROMETHEUS_URL"] = self.prometheus.url
        made = await start(
            [sys.executable, "-m", "operators"],
            self.folder / f"{name}-{len(self.operators)}.log",
            f"http://{host()}:{port}",
            env,
        )
        self.operators.append(made)
        return made

    async def status(self, name: str) -> Object:
        found = await self.kube.get(MODEL_SERVERS, name, self.namespace)
        return found.get("status") or {}

    async def condition(self, name: str, kind: str) -> Object:
        conditions = (await self.status(name)).get("conditions") or ()
        return next((one for one in conditions if one["type"] == kind), {})

    async def until_condition(self, name: str, kind: str, reason: str) -> None:
        async def look() -> bool:
            return (await self.condition(name, kind)).get("reason") == reason

        await self.until(f"{kind} of {name} is {reason}", look)

    async def replicas(self, name: str) -> int:
        """What its Deployment is told; -1 where there is none."""
        found = await self.kube.get_or_none(DEPLOYMENTS, name, self.namespace)
        return found["spec"]["replicas"] if found is not None else -1

    async def pods_of(self, name: str) -> list[Object]:
        return await self.kube.list(PODS, self.namespace, label_selector=f"app.kubernetes.io/name={name}")

    async def events(self, reason: str, name: str) -> list[Object]:
        chosen = f"reason={reason},involvedObject.name={name}"
        return await self.kube.list(EVENTS, self.namespace, field_selector=chosen)

    async def gateway(self, name: str) -> None:
        """A pod that looks like a gateway which serves."""
        own = {"app.kubernetes.io/component": "gateway", labels.TIER: "core"}
        spec = {"containers": [{"name": "envoy", "image": "envoy"}], "automountServiceAccountToken": False}
        meta = {"name": name, "namespace": self.namespace, "labels": own}
        await self.kube.create(PODS, {"metadata": meta, "spec": spec})

    @asynccontextmanager
    async def counting_gateway(self, name: str) -> AsyncIterator[None]:
        """A gateway's pod, at whose address its own counters are: of all the traffic that the exporter tells of."""
        await self.gateway(name)

        async def address() -> str | None:
            status = (await self.kube.get(PODS, name, self.namespace)).get("status") or {}
            found: str | None = status.get("podIP")
            return found

        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=statistics(self.exporter, time.monotonic()))

        app = web.Application()
        app.router.add_get("/stats/prometheus", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, await self.until(f"{name} has an address", address), STATS_PORT).start()
            yield
        finally:
            await runner.cleanup()
            await self.kube.delete(PODS, name, self.namespace, grace_period_s=0)

    async def leads(self, operator: Process) -> bool:
        """Whether it says so itself; one that doesn't answer doesn't."""
        try:
            return operator.runs and await self.page(operator, "/readyz") == "leads\n"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def leader(self) -> Process:
        """The operator that leads; waits until there is one."""

        async def look() -> Process | None:
            for one in self.operators:
                if await self.leads(one):
                    return one
            return None

        found: Process = await self.until("one leads", look)
        return found

    async def ticks(self) -> dict[str, int]:
        """How often each operator that answers has decided: who leads may change."""
        name, found = "switchboard_operator_decide_seconds_count ", {}
        for one in self.operators:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                text = await self.page(one, "/metrics") if one.runs else ""
                for line in text.splitlines():
                    if line.startswith(name):
                        found[one.url] = int(float(line.removeprefix(name)))
        return found

    async def ticked(self, ticks: int, meanwhile: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Until so many decisions have followed, whoever led; `meanwhile` is done again and again, once at the end."""
        begun, passed = await self.ticks(), 0
        deadline = time.monotonic() + LONG_S
        while passed < ticks:
            assert time.monotonic() < deadline, f"{passed} ticks, not {ticks}, in {LONG_S:g} s"
            passed = sum(count - begun.setdefault(url, count) for url, count in (await self.ticks()).items())
            await meanwhile()
            await asyncio.sleep(0.2)

    async def until(self, what: str, holds: Callable[[], Any], timeout_s: float = LONG_S) -> Any:
        """The first true answer of `holds`, asked again and again; who can't be asked just now gives none."""
        deadline = time.monotonic() + timeout_s
        answer: Any = None
        while time.monotonic() < deadline:
            try:
                answer = await holds()
            except (aiohttp.ClientError, TimeoutError, Unreachable) as error:
                answer = None
                log.info("%s: %r", what, error)
            if answer:
                return answer
            await asyncio.sleep(LOOK_S)
        logs = "\n".join(one.log.read_text()[-3000:] for one in self.operators)
        for one in self.operators:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                if await self.leads(one):
                    logs += f"\n{await self.page(one, '/decisions')}"
        raise AssertionError(f"{what}: not in {timeout_s:g} s, last {answer!r}\n{logs}")

    async def until_replicas(
        self, name: str, wanted: Callable[[int], bool], timeout_s: float = LONG_S
    ) -> int:
        async def look() -> int | None:
            found = await self.replicas(name)
            return found + 1 if wanted(found) else None  # 0 is an answer

        return int(await self.until(f"replicas of {name}", look, timeout_s)) - 1

    async def until_ready(self, name: str, timeout_s: float = LONG_S) -> None:
        async def look() -> bool:
            return (await self.condition(name, "Ready")).get("status") == "True"

        await self.until(f"{name} is ready", look, timeout_s)

    async def until_all_serve(self, name: str, timeout_s: float = LONG_S) -> int:
        """Until as many replicas serve as are wanted; how many."""

        async def look() -> int:
            status, deployed = await self.status(name), await self.replicas(name)
            counts = {status.get("readyReplicas", -1), status.get("desiredReplicas", -2), deployed}
            return deployed if len(counts) == 1 else 0

        return int(await self.until(f"all of {name} serve", look, timeout_s))

    async def page(self, operator: Process, path: str) -> Any:
        async with (
            aiohttp.ClientSession(timeout=PAGE_TIMEOUT) as session,
            session.get(operator.url + path) as response,
        ):
            response.raise_for_status()
            return await (response.json() if path.startswith("/decisions") else response.text())


def _fleet(server: str) -> str:
    """By which name gateways know the replicas of a ModelServer without `spec.service`, or of an arm of its release."""
    name, _, arm = server.rpartition("-")
    return fleet_of(name, Arm(arm)) if arm in list(Arm) else server


async def start(command: list[str], log: Path, url: str, env: dict[str, str] | None = None) -> Process:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file, env=env)
    return Process(process, log, url)


async def _end(kube: Kube, namespace: str) -> None:
    """Its pods first, which end on the simulated nodes: those of a node that has gone are stuck for a while.

    At once, since a namespace's own deletion lets each have its time, and looks again after half a minute only.
    """
    with suppress(ApiError):  # their definition may not be in force
        for one in await kube.list(
            MODEL_RELEASES, namespace
        ):  # the operator that would let go of them is gone
            name = one["metadata"]["name"]
            await kube.patch(MODEL_RELEASES, name, {"metadata": {"finalizers": None}}, namespace)
    for kind in (MODEL_SERVERS, DEPLOYMENTS):
        await kube.request("DELETE", kind.path(namespace))
    deadline = time.monotonic() + LONG_S
    while await kube.list(PODS, namespace):
        assert time.monotonic() < deadline, f"namespace {namespace} still has pods"
        await kube.request("DELETE", PODS.path(namespace), params={"gracePeriodSeconds": "0"})
        await asyncio.sleep(0.2)
    await kube.delete(NAMESPACES, namespace)
    while await kube.get_or_none(NAMESPACES, namespace) is not None:
        assert time.monotonic() < deadline, f"namespace {namespace} is still there"
        await asyncio.sleep(0.2)


@asynccontextmanager
async def rig(kube: Kube, kubeconfig: Path, folder: Path) -> AsyncIterator[Rig]:
    """A namespace, nodes, an exporter and a Prometheus; all that a test started ends with it."""
    namespace = f"operator-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
    made: Rig | None = None

    def fate(pod: Object) -> Fate:
        owner = pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", "")
        return made.fates.get(owner, Fate()) if made is not None else Fate()

    places = [Node(f"{namespace}-{number}", f"zone-{number % 2}") for number in range(2)]
    nodes = Nodes(kube, places, namespace, fate)

    def ready() -> dict[str, str]:
        """The service of each pod that is ready."""
        return {name: _fleet(name.rsplit("-", 2)[0]) for name in nodes.ready}

    exporter = Exporter((), ready, draining=lambda: nodes.draining)
    with socket.socket() as one, socket.socket() as two:
        one.bind((host(), 0))
        two.bind((host(), 0))
        port, metrics = one.getsockname()[1], two.getsockname()[1]
    runner = await exporter.start(host(), metrics)
    config = folder / "prometheus.yml"
    config.write_text(scrape_config([f"{host()}:{metrics}"]))
    program = toolchain.locate(["prometheus"]).path("prometheus")
    arguments = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={host()}:{port}",
    ]
    prometheus = await start(arguments, folder / "prometheus.log", f"http://{host()}:{port}")
    tasks = [asyncio.create_task(nodes.run()), asyncio.create_task(Volumes(kube, namespace).run())]
    made = Rig(
        kube, kubeconfig, namespace, folder, exporter, prometheus, nodes=nodes, prometheus_command=arguments
    )
    try:
        yield made
    finally:
        for one in (*made.operators, made.prometheus):
            one.process.send_signal(signal.SIGCONT) if one.process.returncode is None else None
            await one.stop()
        await runner.cleanup()
        await _end(kube, namespace)
        for task in tasks:
            task.cancel()
        for place in places:
            await kube.request("DELETE", f"/api/v1/nodes/{place.name}")


async def watch_replicas(world: Rig, *names: str, ticks: int) -> dict[str, tuple[int, int]]:
    """The fewest and the most replicas of each within so many ticks of the leader."""
    found: dict[str, tuple[int, int]] = {}

    async def look() -> None:
        for name in names:
            count = await world.replicas(name)
            least, most = found.get(name, (count, count))
            found[name] = min(least, count), max(most, count)

    await world.ticked(ticks, look)
    return found
