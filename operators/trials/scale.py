"""`python -m operators.trials.scale`: how the operator fares with 2,000 ModelServers and 20,000 pods.

On a control plane of its own, with simulated nodes, a synthetic exporter and a real Prometheus:

    nice -n 19 python -m infra.local.lend python -m operators.trials.scale

Only the operator's own process is measured: its ticks, its processor time, its memory, what it writes; and beside it
how many requests a second the API server answers, for everybody. A site's control plane has machines of its own: here
`nice` has it take what the rest leaves. The rest, which gets the usual priority back (root may do so), is the operator,
its Prometheus, and this process, since an exporter that is late is a gap in what is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from operators.trials.exporter import Exporter, Service, scrape_config
from operators.trials.nodes import Fate, Node, Nodes
from operators.trials.volumes import STORAGE_CLASS, Volumes
from switchboard.api.model_server import MODEL_SERVERS, crd
from switchboard.kinds import CUSTOM_RESOURCE_DEFINITIONS
from switchboard.kube import NAMESPACES, ApiError, Credentials, Kube

NAMESPACE = "operator-scale"
RPS = 10.0
"""What a replica is said to take."""
PER_SERVER = 10
"""Replicas that a server begins with, and that its traffic asks for."""
TRAFFIC_RPS = 6.0 * PER_SERVER
AT_ONCE = 64
"""So many servers are on their way up at a time: customers come to one when its replicas are there."""
TARGETS = 4
"""Exporters' targets: one scrape of all would be too long for its two seconds."""
PATIENCE_S = 5400.0
STEP = 2.0
TOLD_S = 15.0
KEPT_S = 300.0
"""The operator keeps its last 300 ticks: they are fetched in time."""
SETTLE_S, QUIET_RPS = 60.0, 10.0
"""With fewer requests to the API server for so long, from everybody, all have settled."""


@dataclass
class Figures:
    """What a phase showed, over its length."""

    phase: str
    seconds: float = 0.0
    ticks: int = 0
    tick_p50_s: float = 0.0
    tick_p99_s: float = 0.0
    tick_most_s: float = 0.0
    look_p50_s: float = 0.0
    look_most_s: float = 0.0
    cores: float = 0.0
    most_rss_mb: float = 0.0
    writes: int = 0
    writes_per_s: float = 0.0
    api_requests_per_s: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """What is tried: the parts, and how the operator is asked."""

    kube: Kube
    exporters: list[Exporter]
    nodes: Nodes
    operator: psutil.Process
    url: str
    session: aiohttp.ClientSession

    async def metrics(self) -> dict[str, float]:
        """The operator's own samples that have no labels."""
        async with self.session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        plain = (line.partition(" ") for line in lines if "{" not in line and not line.startswith("#"))
        return {name: float(value) for name, _, value in plain}

    async def ticks(self) -> list[dict[str, float]]:
        async with self.session.get(f"{self.url}/ticks") as response:
            found: list[dict[str, float]] = (await response.json())["ticks"]
            return found

    async def api_requests(self) -> float:
        """How many requests the API server has answered, watches apart."""
        text = await self.kube.request("GET", "/metrics")
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith("apiserver_request_total{") and 'verb="WATCH"' not in line
        )


async def measure(
    world: World, phase: str, length_s: float, until: Callable[[], Awaitable[bool]] | None = None
) -> Figures:
    """Watch for `length_s`, or until something holds (at most PATIENCE_S)."""
    begun, cpu = time.monotonic(), sum(world.operator.cpu_times()[:2])
    told = fetched = begun
    ticks: list[dict[str, float]] = []
    before, requests, most = await world.metrics(), await world.api_requests(), 0.0

    async def fetch() -> None:
        nonlocal fetched
        now = time.monotonic()
        ticks.extend(one for one in await world.ticks() if one["age_s"] <= now - fetched)
        fetched = now

    while True:
        most = max(most, world.operator.memory_info().rss / 2**20)
        past = time.monotonic() - begun
        if (until is None and past >= length_s) or past > PATIENCE_S or (until is not None and await until()):
            break
        if time.monotonic() - told >= TOLD_S:
            told = time.monotonic()
            print(f"{phase}: {past:.0f} s, {len(world.nodes.ready)} pods serve", file=sys.stderr, flush=True)
        if time.monotonic() - fetched >= KEPT_S:
            await fetch()
        await asyncio.sleep(1.0)
    past = time.monotonic() - begun
    after = await world.metrics()
    await fetch()
    took = sorted(one["look_s"] + one["decide_s"] for one in ticks) or [0.0]
    looks = sorted(one["look_s"] for one in ticks) or [0.0]
    writes = after["switchboard_operator_writes_total"] - before["switchboard_operator_writes_total"]
    return Figures(
        phase=phase,
        seconds=round(past, 1),
        ticks=len(ticks),
        tick_p50_s=_quantile(took, 0.5),
        tick_p99_s=_quantile(took, 0.99),
        tick_most_s=_quantile(took, 1.0),
        look_p50_s=_quantile(looks, 0.5),
        look_most_s=_quantile(looks, 1.0),
        cores=round((sum(world.operator.cpu_times()[:2]) - cpu) / past, 3),
        most_rss_mb=round(most, 1),
        writes=int(writes),
        writes_per_s=round(writes / past, 2),
        api_requests_per_s=round((await world.api_requests() - requests) / past, 1),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)


@asynccontextmanager
async def world(arguments: argparse.Namespace, folder: Path) -> AsyncIterator[World]:
    """Everything but the ModelServers; ends with it."""
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(
            Kube(Credentials.from_kubeconfig(arguments.kubeconfig), timeout_s=60)
        )
        await kube.apply(CUSTOM_RESOURCE_DEFINITIONS, crd(), field_manager="trials")
        await kube.apply(NAMESPACES, {"metadata": {"name": NAMESPACE}}, field_manager="trials")
        count = max(2, arguments.servers * PER_SERVER // 500)
        places = [Node(f"simulated-{number}", f"zone-{number % 3}") for number in range(count)]
        nodes = Nodes(kube, places, NAMESPACE, lambda _: Fate(start_s=1.0))
        exporters = [
            Exporter((), lambda n=number: _ready(nodes, n), draining=lambda: nodes.draining)  # type: ignore[misc]
            for number in range(TARGETS)
        ]
        for number in range(arguments.servers):
            name = f"server-{number}"
            exporters[_target(name)].services[name] = Service(name)
        ports = _ports(arguments.host, TARGETS + 2)
        for exporter, port in zip(exporters, ports, strict=False):
            runner = await exporter.start(arguments.host, port)
            stack.push_async_callback(runner.cleanup)
        config = folder / "prometheus.yml"
        config.write_text(scrape_config([f"{arguments.host}:{port}" for port in ports[:TARGETS]]))
        prometheus = f"{arguments.host}:{ports[TARGETS]}"
        await _process(
            stack,
            [
                arguments.prometheus,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={prometheus}",
            ],
            folder / "prometheus.log",
        )
        for work in (nodes.run(), Volumes(kube, NAMESPACE).run()):
            task = asyncio.create_task(work)
            stack.callback(task.cancel)
        own = {
            "POD_NAME": "operator-0",
            "POD_IP": arguments.host,
            "POD_NAMESPACE": NAMESPACE,
            "PORT": str(ports[TARGETS + 1]),
            "PROMETHEUS_URL": f"http://{prometheus}",
            "KUBECONFIG": str(arguments.kubeconfig),
        }
        operator = await _process(
            stack, [sys.executable, "-m", "operators"], folder / "operator.log", {**os.environ, **own}
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://{arguments.host}:{ports[TARGETS + 1]}"
        made = World(kube, exporters, nodes, psutil.Process(operator.pid), url, session)
        await _until(lambda: _leads(made), "the operator leads", 120)
        yield made


def _target(name: str) -> int:
    return int(name.rsplit("-", 1)[1]) % TARGETS


def _ready(nodes: Nodes, target: int) -> dict[str, str]:
    """The pods of the services of one exporter, by their names: <service>-<hash>-<random>."""
    owners = ((pod, pod.rsplit("-", 2)[0]) for pod in nodes.ready)
    return {pod: owner for pod, owner in owners if _target(owner) == target}


def _ports(host: str, count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


async def _process(
    stack: AsyncExitStack, command: list[str], log: Path, env: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    with log.open("wb") as out:
        made = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out, env=env)

    async def end() -> None:
        if made.returncode is None:
            made.send_signal(signal.SIGTERM)
            await made.wait()

    stack.push_async_callback(end)
    _unbind(made.pid)
    return made


def _unbind(pid: int) -> None:
    process = psutil.Process(pid)
    with suppress(psutil.AccessDenied):
        process.cpu_affinity([])  # all there are
        process.nice(0)


async def _leads(made: World) -> bool:
    try:
        async with made.session.get(f"{made.url}/readyz") as response:
            return await response.text() == "leads\n"
    except aiohttp.ClientError:
        return False


async def _until(holds: Callable[[], Awaitable[bool]], what: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience_s:.0f} s")
        await asyncio.sleep(0.5)


async def run(arguments: argparse.Namespace) -> list[Figures]:
    """All phases: they are made, nothing changes, a tenth of them gets twice the traffic, nothing changes again."""
    found: list[Figures] = []

    def tell(figures: Figures) -> None:
        found.append(figures)
        print(json.dumps(figures.__dict__), flush=True)

    async with world(arguments, arguments.folder) as made:
        creating = asyncio.create_task(_create(made, arguments.servers))

        async def grown() -> bool:
            return creating.done()

        tell(await measure(made, "all are made and get their replicas", 0, grown))
        await creating
        tell(await measure(made, "they settle", 0, _Settled(made)))
        quiet = await measure(made, "nothing changes", arguments.length)
        quiet.notes["pods"] = len(made.nodes.ready)
        tell(quiet)
        services = [one for exporter in made.exporters for one in exporter.services.values()]
        stepped = services[:: len(services) // max(1, arguments.servers // 10)]
        pods = len(made.nodes.ready)
        # What they need more at the utilisation that is the default.
        least = math.ceil(TRAFFIC_RPS * STEP / RPS / 0.9) - PER_SERVER
        for service in stepped:
            service.rate *= STEP

        async def answered() -> bool:
            return len(made.nodes.ready) >= pods + len(stepped) * least

        tell(await measure(made, f"{len(stepped)} servers get {STEP:g}x", 0, answered))
        tell(await measure(made, "they settle", 0, _Settled(made)))
        tell(await measure(made, "and after that", arguments.length))
    return found


class _Settled:
    """Whether the control plane is through with all that it was asked for: only leases are renewed for a while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: tuple[int, float] | None = None
        self._since = 0.0

    async def __call__(self) -> bool:
        now, requests = time.monotonic(), await self._world.api_requests()
        if self._seen is None:
            self._seen, self._since = (len(self._world.nodes.ready), requests), now
        pods, before = self._seen
        if now - self._since < SETTLE_S:
            return False
        quiet = len(self._world.nodes.ready) == pods and requests - before < QUIET_RPS * (now - self._since)
        self._seen = None
        return quiet


async def _create(world: World, count: int) -> None:
    """All servers, a few at a time; each has its traffic from when its replicas serve."""
    gate = asyncio.Semaphore(AT_ONCE)
    serving: Counter[str] = Counter()

    async def look() -> None:
        while True:
            serving.clear()
            serving.update(pod.rsplit("-", 2)[0] for pod in world.nodes.ready)
            await asyncio.sleep(0.5)

    async def one(number: int) -> None:
        name = f"server-{number}"
        spec = {
            "model": {"name": "chat-intent", "alias": "champion"},
            "image": "switchboard.dev/switchboard:0.1.0",
            "dataClass": "internal",
            "resources": {"cpu": "10m", "memory": "16Mi", "memoryLimit": "32Mi"},
            "cache": {"storageClass": STORAGE_CLASS},
            "capacity": {"requestsPerSecond": RPS, "startSeconds": 5},
            "replicas": PER_SERVER,
            "scaling": {"minReplicas": 1, "maxReplicas": 5 * PER_SERVER},
        }
        async with gate:
            for attempt in range(20):
                try:
                    body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
                    await world.kube.apply(MODEL_SERVERS, body, field_manager="trials")
                    break
                except ApiError as error:
                    if error.status not in {404, 429} or attempt == 19:  # the definition isn't served yet
                        raise
                    await asyncio.sleep(0.5)
            await _until(lambda: _serve(serving, name), f"{name} has its replicas", PATIENCE_S)
            world.exporters[_target(name)].services[name].rate = TRAFFIC_RPS

    looking = asyncio.create_task(look())
    try:
        await asyncio.gather(*(one(number) for number in range(count)))
    finally:
        looking.cancel()


async def _serve(serving: Counter[str], name: str) -> bool:
    return serving[name] >= PER_SERVER


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m operators.trials.scale", description=__doc__.partition("\n")[0]
    )
    lent = {
        name: os.environ.get(name) for name in ("KUBECONFIG", "SWITCHBOARD_PROMETHEUS", "SWITCHBOARD_FOLDER")
    }
    for option, name, kind, what in (
        ("--kubeconfig", "KUBECONFIG", Path, "of a control plane that is there for this"),
        ("--prometheus", "SWITCHBOARD_PROMETHEUS", str, "Prometheus' program"),
        ("--folder", "SWITCHBOARD_FOLDER", Path, "for logs and data"),
    ):
        parser.add_argument(option, type=kind, default=lent[name], required=lent[name] is None, help=what)
    parser.add_argument("--host", default="127.38.0.3", help="the loopback address that is listened at")
    parser.add_argument("--servers", type=int, default=2000)
    parser.add_argument(
        "--length", type=float, default=120.0, help="seconds of each phase in which nothing changes"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _unbind(os.getpid())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as at Ctrl-C: what it has started ends first
    asyncio.run(run(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
