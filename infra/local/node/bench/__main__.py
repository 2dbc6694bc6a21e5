"""`python -m infra.local.node.bench`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from infra import config
from infra.local import cloud, site, teardown
from infra.local.layout import SiteLayout
from infra.local.node.bench import measure
from infra.local.node.bench.measure import Cost, Meter, Report, Start, now
from switchboard.errors import SwitchboardError
from switchboard.informer import Informer, Key
from switchboard.kube import NAMESPACES, PODS, SERVICE_ACCOUNTS, Credentials, Kube, Object
from switchboard.paths import state_dir
from switchboard.progress import Progress

PROBES = ("none", "exec", "http", "tcp")
PERIOD_S = 10
SETTLE_S = 15.0
_STACK = "bench"
_NODE = "public-1"
_NAMESPACE = "bench"
_NETWORKS = ("127.244.0.0/16", "127.245.0.0/16", "127.246.0.0/16", "127.247.0.0/16")
_SERVER_PORT = 9090
_EXEC = ["true"]
_WAIT_S = 300.0


@contextmanager
def node_of_its_own(progress: Progress) -> Iterator[tuple[SiteLayout, Meter]]:
    """A fresh control plane with one node, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as folder:
        file = Path(folder) / f"Pulumi.{_STACK}.yaml"
        file.write_text(yaml.safe_dump({"config": _document()}))
        os.environ |= {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(Path(folder) / "state")}
        layout = SiteLayout(config.load(_STACK).site("public"), state_dir(_STACK))
        meter = None
        try:
            asyncio.run(site.up(site.EmbeddedSite(_STACK, layout), cloud.tools(), progress, proxy=False))
            meter = Meter(json.loads((layout.run / f"node-{_NODE}.json").read_text())["pid"])
            yield layout, meter
        finally:
            with progress.step("stop the control plane and the node") as step:
                teardown.down(layout.directory, _STACK, step)
            if meter is not None:
                meter.close()


def _document() -> dict[str, object]:
    sites = []
    for index, role in ((0, "private"), (2, "public")):
        node = {"name": f"{role}-1", "zone": "a"}
        embedded = {"network": _NETWORKS[index], "services": _NETWORKS[index + 1], "nodes": [node]}
        sites.append({"name": role, "role": role, "region": "cn-shanghai", "embedded": embedded})
    return {
        "switchboard:sites": sites,
        "switchboard:images": {
            "switchboard": "switchboard.dev/switchboard:0.1.0",
            "envoy": "envoyproxy/envoy:v1.40.0",
            "prometheus": "prom/prometheus:v3.13.0",
            "alertmanager": "prom/alertmanager:v0.25.0",
        },
        "switchboard:modelServers": [
            {"name": "chat", "model": "chat-intent", "dataRegions": ["cn-shanghai"]}  # there has to be one
        ],
    }


class Pods:
    """Pods of the benchmark as they are seen by a watch: when each became ready."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.ready: dict[str, float] = {}
        self._changed = asyncio.Event()
        self.informer = Informer(kube, PODS, namespace=_NAMESPACE, on_change=self._on_change)

    def _on_change(self, key: Key, old: Object | None, new: Object | None) -> None:
        conditions = ((new or {}).get("status") or {}).get("conditions") or []
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            self.ready.setdefault(key[1], now())
        self._changed.set()

    async def _until(self, holds: Any, what: str) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SwitchboardError(f"after {_WAIT_S:.0f} s not all pods are {what}") from None

    async def start(self, names: list[str], container: Object) -> dict[str, float]:
        """Create them, bound to the node; seconds until each was ready."""
        self.ready.clear()
        bound: dict[str, float] = {}

        async def create(name: str) -> None:
            spec = {"nodeName": _NODE, "terminationGracePeriodSeconds": 0, "containers": [container]}
            bound[name] = now()
            await self._kube.create(PODS, {"metadata": {"name": name}, "spec": spec}, _NAMESPACE)

        await asyncio.gather(*(create(name) for name in names))
        await self._until(lambda: set(names) <= set(self.ready), "ready")
        return {name: self.ready[name] - bound[name] for name in names}

    async def remove_all(self) -> None:
        await asyncio.gather(
            *(self._kube.delete(PODS, name, _NAMESPACE, grace_period_s=0) for _, name in self.informer.items)
        )
        await self._until(lambda: not self.informer.items, "gone")


@asynccontextmanager
async def pods_of(layout: SiteLayout) -> AsyncIterator[Pods]:
    async with Kube(Credentials.from_kubeconfig(layout.kubeconfig), timeout_s=60) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": _NAMESPACE}})
        async with asyncio.timeout(_WAIT_S):
            while await kube.get_or_none(SERVICE_ACCOUNTS, "default", _NAMESPACE) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        pods = Pods(kube)
        watching = asyncio.create_task(pods.informer.run())
        try:
            await pods.informer.synced.wait()
            yield pods
        finally:
            watching.cancel()


def _sleeper(probe: str, server: str) -> Object:
    """An idle container; HTTP and TCP probes ask a server beside it, which is no part of the cost."""
    actions: dict[str, Object] = {
        "exec": {"exec": {"command": _EXEC}},
        "http": {"httpGet": {"host": server, "port": _SERVER_PORT, "path": "/"}},
        "tcp": {"tcpSocket": {"host": server, "port": _SERVER_PORT}},
    }
    container: Object = {"name": "main", "image": "debian:bookworm", "command": ["sleep", "inf"]}
    if probe in actions:
        container["readinessProbe"] = {**actions[probe], "periodSeconds": PERIOD_S, "timeoutSeconds": 5}
    return container


async def cost(layout: SiteLayout, meter: Meter, pods: Pods, probe: str, count: int, window_s: float) -> Cost:
    """The CPU of that many idle pods."""
    idle, began = meter.read(), now()
    await pods.start([f"{probe}-{n}" for n in range(count)], _sleeper(probe, str(layout.control_plane_ip)))
    ready_after_s, started = now() - began, meter.read()
    await asyncio.sleep(SETTLE_S)
    before, start = meter.read(), now()
    await asyncio.sleep(window_s)
    after, took_s = meter.read(), now() - start
    own_s, all_s = after[0] - before[0], after[1] - before[1]
    asked = count / PERIOD_S if probe != "none" else 0.0
    found = Cost(
        probe=probe,
        pods=count,
        window_s=took_s,
        probes_per_s=asked,
        agent=100 * own_s / took_s,
        rest=100 * (all_s - own_s) / took_s,
        programs=100 * asked * measure.program_cpu_s(_EXEC) if probe == "exec" else 0.0,
        agent_mib=measure.resident_mib(meter.agent),
        ready_after_s=ready_after_s,
        agent_ms_a_start=1000 * (started[0] - idle[0]) / count,
    )
    await pods.remove_all()
    return found


_SERVE = """
import http.server, sys
http.server.ThreadingHTTPServer((sys.argv[1], 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


async def start_times(layout: SiteLayout, pods: Pods, count: int) -> list[Start]:
    """Pods one after the other: one that sleeps, and an HTTP server with a readiness probe."""
    server: Object = {
        "name": "main",
        "image": "debian:bookworm",
        "command": ["python3", "-c", _SERVE, "$(IP)"],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}},
    }
    found = []
    for program, container, own_s in (
        ("sleep", _sleeper("none", ""), 0.0),
        ("http", server, await _server_start_s(str(layout.control_plane_ip))),
    ):
        seconds = []
        for n in range(count):
            seconds += list((await pods.start([f"{program}-{n}"], container)).values())
        await pods.remove_all()
        found.append(measure.starts(program, own_s, seconds))
    return found


async def _server_start_s(ip: str) -> float:
    """How long that server takes until it answers, started by hand: the middle one of five."""
    times = []
    for _ in range(5):
        began = now()
        process = await asyncio.create_subprocess_exec("python3", "-c", _SERVE, ip)
        while True:
            try:
                _, writer = await asyncio.open_connection(ip, 8080)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.002)
        times.append(now() - began)
        writer.close()
        process.kill()
        await process.wait()
    return sorted(times)[2]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.CancelledError, ConnectionError):  # the benchmark is over, or the asker has gone
        await reader.read(4096)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def run(layout: SiteLayout, meter: Meter, args: argparse.Namespace, progress: Progress) -> Report:
    costs, starts = [], []
    server = await asyncio.start_server(_answer, str(layout.control_plane_ip), _SERVER_PORT)
    async with server, pods_of(layout) as pods:
        if args.starts:
            with progress.step(f"start {args.starts} pods of each program, one by one"):
                starts = await start_times(layout, pods, args.starts)
        for probe in args.probes if args.pods else ():
            with progress.step(f"{args.pods} pods, probe: {probe}"):
                costs.append(await cost(layout, meter, pods, probe, args.pods, args.window))
    return Report(costs=costs, starts=starts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.node.bench", description=__doc__)
    parser.add_argument("--pods", type=int, default=100, help="idle pods (a node holds 110); 0 for none")
    parser.add_argument("--window", type=float, default=60.0, help="seconds to measure for")
    parser.add_argument("--probes", nargs="+", choices=PROBES, default=list(PROBES))
    parser.add_argument("--starts", type=int, default=20, help="pods to start one by one; 0 for none")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    args = parser.parse_args()
    try:
        with Progress() as progress, node_of_its_own(progress) as (layout, meter):
            report = asyncio.run(run(layout, meter, args, progress))
    except SwitchboardError as error:
        sys.exit(str(error))
    print(report.model_dump_json(indent=2) if args.output == "json" else measure.table(report))


if __name__ == "__main__":
    main()
