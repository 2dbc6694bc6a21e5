"""A site whose every part is a process that may be killed, and whose nodes' lines to it may be cut.

Its controller manager gives a silent node up after `GRACE_S`, not after most of a minute, and its agents renew their
leases every second, so that what takes minutes elsewhere takes seconds here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from infra import config
from infra.local import cloud, controlplane, processes, site, teardown
from infra.local.health import api_server_ready
from infra.local.layout import API_PORT, NodeLayout, SiteLayout
from infra.local.node import podspec
from infra.local.node.agent import runtime_dir
from infra.local.node.container_spec import parse_run_id
from infra.local.processes import Program, Record
from infra.local.runtime.record import Folder
from switchboard import paths
from switchboard.kube import CONFIG_MAPS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, Credentials, Kube, Object
from switchboard.paths import ROOT
from switchboard.progress import Progress
from tests.conftest import free_networks, shared_networks, stack_document
from tests.infra.local.node.conftest import Space, condition, wait

CORE, EDGE = "public-1", "edge-1"
GRACE_S = 8
SHORT = (
    "--node-monitor-period=1s",
    f"--node-monitor-grace-period={GRACE_S}s",
    "--node-eviction-rate=10",
    "--secondary-node-eviction-rate=10",
)


class Line:
    """The line between a node and its API server. Cut, it carries nothing, and nobody is told: what is sent waits."""

    def __init__(self) -> None:
        self._whole = asyncio.Event()
        self._whole.set()
        self._work: set[asyncio.Task[None]] = set()
        self.address = ""

    async def open(self, host: str) -> None:
        def taken(from_node: asyncio.StreamReader, to_node: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._carry(host, from_node, to_node))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

        self._server = await asyncio.start_server(taken, host, 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())

    def cut(self) -> None:
        self._whole.clear()

    def join(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        self._server.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _carry(self, host: str, from_node: asyncio.StreamReader, to_node: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            from_server, to_server = await asyncio.open_connection(host, API_PORT)
            with contextlib.closing(to_server):
                pumps = {
                    asyncio.create_task(self._pump(from_node, to_server)),
                    asyncio.create_task(self._pump(from_server, to_node)),
                }
                try:
                    await asyncio.wait(pumps, return_when="FIRST_COMPLETED")
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # no API server
        finally:
            to_node.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._whole.wait()
            target.write(data)
            await target.drain()


@dataclass
class Site:
    """The site, each of its processes by its name."""

    layout: SiteLayout
    programs: dict[str, Program]
    kube: Kube
    lines: dict[str, Line] = field(default_factory=dict)

    def record(self, name: str) -> Record:
        found = processes.read(self.layout.run / f"{name}.json")
        assert found is not None, f"{name} was never started"
        return found

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is gone."""
        record = self.record(name)
        processes.end(record.pid, record.started_ticks, first=signal.SIGKILL)

    async def start(self, name: str, *, ready: bool = True) -> None:
        program = self.programs[name]
        node = name.startswith("node-")
        if node:
            site.ready_file(self.layout, program).unlink(missing_ok=True)
        processes.start(program)
        if node and ready:
            await wait(self._is_there(site.ready_file(self.layout, program)), f"{name} isn't ready")
        elif ready and name == controlplane.API_SERVER:
            await wait(lambda: api_server_ready(self.kube), "the API server doesn't serve")

    def _is_there(self, path: Path) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return path.exists()  # noqa: ASYNC240 - no time at all

        return look

    def node(self, name: str) -> NodeLayout:
        return self.layout.node(name)

    def pids(self, pod: Object) -> dict[str, int]:
        """The first processes of the pod's running containers, by container."""
        found = {}
        for layout in self.layout.nodes:
            folder = runtime_dir(layout)
            for path in folder.iterdir() if folder.is_dir() else ():
                uid, name, _ = parse_run_id(path.name)
                state = Folder(path).state()
                if uid == podspec.uid(pod) and state.phase == "running" and state.pid is not None:
                    found[name] = state.pid
        return found

    async def node_condition(self, name: str, kind: str = "Ready") -> str:
        return condition(await self.kube.get(NODES, name), kind)

    async def until_node(self, name: str, status: str, kind: str = "Ready") -> None:
        async def so() -> bool:
            return await self.node_condition(name, kind) == status

        await wait(so, f"node {name}: {kind} is not {status}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, name = tmp_path_factory.mktemp("shaky"), f"shaky{os.getpid()}"
    file = root / f"Pulumi.{name}.yaml"
    file.write_text(yaml.safe_dump(stack_document([*shared_networks()[:2], *free_networks(2)])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWITCHBOARD_STACK_FILE", str(file))
        patch.setenv("SWITCHBOARD_STATE", str(root / "state"))
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shaky(stack: str) -> AsyncIterator[Site]:
    """The site with two nodes, `CORE` and `EDGE`, ready for pods."""
    layout = SiteLayout(config.load(stack).site("public"), paths.state_dir(stack))
    embedded = site.EmbeddedSite(stack, layout)
    programs = site.prepare(embedded, cloud.tools(), nodes=False, proxy=False)
    programs = controlplane.with_options(programs, controlplane.CONTROLLER_MANAGER, *SHORT)
    try:
        await site.run(embedded, programs, Progress(io.StringIO()), nodes=False, proxy=False)
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            found = Site(layout, programs, kube)
            for name in (CORE, EDGE):
                line = found.lines[name] = Line()
                await line.open(str(layout.control_plane_ip))
                program = embedded.node_program(layout.node(name))
                where = ("--stack", stack, "--site", layout.name, "--node", name, "--server", line.address)
                argv = (sys.executable, "-m", "tests.infra.local.survival.agent", *where)
                programs[program.name] = replace(program, argv=argv)
            await asyncio.gather(*(found.start(f"node-{name}") for name in (CORE, EDGE)))
            yield found
            for line in found.lines.values():
                await line.close()
    finally:
        with Progress(io.StringIO()).step("stop") as step:
            await asyncio.to_thread(teardown.down, layout.directory, stack, step)


@pytest_asyncio.fixture(loop_scope="session")
async def space(shaky: Site) -> AsyncIterator[Space]:
    """A namespace of its own; all parts work when a test begins."""
    for line in shaky.lines.values():
        line.join()
    for name in (controlplane.ETCD, controlplane.API_SERVER, f"node-{CORE}", f"node-{EDGE}"):
        if not processes.alive(shaky.record(name)):
            await shaky.start(name)
    for name in (CORE, EDGE):
        await shaky.until_node(name, "True")
    made = await shaky.kube.create(NAMESPACES, {"metadata": {"generateName": "shaky-"}})
    own = Space(shaky.kube, made["metadata"]["name"])
    await own.until("default", bool, SERVICE_ACCOUNTS)
    await own.until("kube-root-ca.crt", bool, CONFIG_MAPS)
    yield own
    for pod in await shaky.kube.list(PODS, own.name):
        await shaky.kube.delete(PODS, podspec.name(pod), own.name, grace_period_s=0)
    await shaky.kube.delete(NAMESPACES, own.name)


SMALL, SIZE = "public-2", "24m"
_MOUNT = 'cp -a "$0" "$0.copy" && mount -t tmpfs -o size=$1,mode=700 disk "$0" && cp -a "$0.copy/." "$0"'
_CLEAN = "import asyncio, pathlib, sys; from infra.local import runtime\n"
_CLEAN += "asyncio.run(runtime.cleanup(pathlib.Path(sys.argv[1])))"


@dataclass
class SmallDisk:
    """A node's folder on a disk of its own; `inside` is how it is reached from here."""

    layout: NodeLayout
    holder: subprocess.Popen[bytes]

    @property
    def inside(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.layout.directory}")

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command is put behind to see the disk."""
        return (
            *("nsenter", "-t", str(self.holder.pid), "-m"),
            *("sh", "-c", 'cd "$0" && exec "$@"', str(ROOT)),
        )

    def fill(self) -> None:
        with (self.inside / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\1" * 4096)

    def empty(self) -> None:
        (self.inside / "ballast").unlink()


@pytest_asyncio.fixture(loop_scope="session")
async def disk(shaky: Site, stack: str) -> AsyncIterator[SmallDisk]:
    """The node `public-2`, ready, with its folder on a small disk."""
    layout = shaky.node(SMALL)
    holder = subprocess.Popen(  # noqa: ASYNC220 - no time at all
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            f"{_MOUNT} && echo ready && exec sleep inf",
            str(layout.directory),
            SIZE,
        ],
        stdout=subprocess.PIPE,
    )
    found = SmallDisk(layout, holder)
    try:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"ready\n"
        like = shaky.programs[f"node-{CORE}"]
        program = site.EmbeddedSite(stack, shaky.layout).node_program(layout)
        argv = [SMALL if word == CORE else word for word in like.argv]
        shaky.programs[program.name] = replace(program, argv=(*found.enter, *argv))
        await shaky.start(f"node-{SMALL}")
        yield found
        shaky.kill(f"node-{SMALL}")
    finally:
        clean = [*found.enter, sys.executable, "-c", _CLEAN, str(layout.directory / "runtime")]
        await asyncio.to_thread(subprocess.run, clean, check=True, timeout=60)
        holder.kill()
        holder.wait()
        await shaky.kube.delete(NODES, SMALL)
