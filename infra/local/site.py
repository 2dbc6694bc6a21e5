"""One embedded site, brought up: control plane, first objects, Service proxy, node agents and their supervisor.

`up` starts what doesn't run, restarts what runs with other arguments, keys or code, and returns when all of it works;
it can be called at any time and repairs what was cut off or killed. It relies on one caller at a time (the lock of
`infra.local.cloud`). Taking a site down is `infra.local.teardown`, looking at it is `infra.local.health`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from infra import config
from infra.local import bootstrap_objects, controlplane, health, pki, ports, processes, supervisor, teardown
from infra.local.layout import KUBELET_PORT, NodeLayout, SiteLayout
from infra.local.node import provisioner
from infra.local.processes import Program
from infra.local.toolchain import lookup
from switchboard.errors import SwitchboardError
from switchboard.kube import NODES, PERSISTENT_VOLUMES, ApiError, Credentials, Kube, Unreachable
from switchboard.paths import ROOT
from switchboard.progress import Progress, Step

CONTROL_PLANE_TIMEOUT_S = 120.0
AGENTS_TIMEOUT_S = 120.0
POLL_S = 0.05

_INHERITED = ("HOME", "USER", "XDG_CACHE_HOME", "SWITCHBOARD_CACHE", "SWITCHBOARD_TOOLS")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_AGENTS_TOOLS = ("envoy", "prometheus", "alertmanager")
"""What the Service proxy and the pods run; the rest is only for `up` itself."""


@dataclass(frozen=True)
class EmbeddedSite:
    """A site of a stack, with what it takes to run it."""

    stack: str
    layout: SiteLayout

    @property
    def name(self) -> str:
        return self.layout.name

    def proxy_program(self) -> Program:
        """The Service proxy's process. At TERM it stops its Envoy; killed, it leaves it, and no connection breaks."""
        credentials = (self.layout.proxy_kubeconfig,)
        program = self._python(
            "proxy", "infra.local.proxy", (), self.layout.logs / "proxy.log", (), credentials
        )
        return replace(program, restart_signal=signal.SIGKILL)

    def node_program(self, node: NodeLayout) -> Program:
        """A node agent's process."""
        listens = ((str(node.ip), KUBELET_PORT),)
        argv = ("--node", node.name)
        credentials = (node.kubeconfig, node.serving_cert)
        return self._python(f"node-{node.name}", "infra.local.node", argv, node.log, listens, credentials)

    def supervisor_program(self) -> Program:
        """Who starts the site's processes again when they die."""
        return Program(
            name=supervisor.NAME,
            argv=(sys.executable, "-m", "infra.local.supervisor", "--site", str(self.layout.directory)),
            env=self.environment(),
            cwd=ROOT,
            log=self.layout.logs / "supervisor.log",
            record=self.layout.run / f"{supervisor.NAME}.json",
            fingerprint=_code_digest(),
        )

    def agent_programs(self, *, nodes: bool = True, proxy: bool = True) -> list[Program]:
        programs = [self.proxy_program()] if proxy else []
        return programs + ([self.node_program(node) for node in self.layout.nodes] if nodes else [])

    def _python(
        self,
        name: str,
        module: str,
        extra: tuple[str, ...],
        log: Path,
        listens: tuple[processes.Address, ...],
        credentials: tuple[Path, ...],
    ) -> Program:
        where = ("--stack", self.stack, "--site", self.name)
        return Program(
            name=name,
            argv=(sys.executable, "-m", module, *where, *extra),
            env=self.environment(),
            cwd=ROOT,
            log=log,
            record=self.layout.run / f"{name}.json",
            listens=listens,
            fingerprint=" ".join(
                (
                    _code_digest(),
                    _site_digest(self.layout),
                    *map(_digest, (self.layout.ca_cert, *credentials)),
                )
            ),
        )

    def environment(self) -> dict[str, str]:
        """That of the site's Python processes: the same whatever shell `up` is called from."""
        env = {name: value for name in _INHERITED if (value := os.environ.get(name))}
        return env | {
            "PATH": self._path,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "SWITCHBOARD_STATE": str(self.layout.state.parent),
            "SWITCHBOARD_STACK_FILE": str(config.stack_file(self.stack)),
        }

    @functools.cached_property
    def _path(self) -> str:
        """The standard folders, and those where a tool was found on the PATH of whoever calls `up`."""
        found, _ = lookup.search(_AGENTS_TOOLS)
        folders = [str(tool.path.parent) for tool in found.values() if tool.source == lookup.ON_PATH]
        return os.pathsep.join(dict.fromkeys([*_PATH.split(os.pathsep), *folders]))


def ready_file(layout: SiteLayout, program: Program) -> Path:
    """Written by a node agent or the proxy when it works."""
    return layout.run / f"{program.name}.ready"


def prepare(site: EmbeddedSite, tools: Mapping[str, Path], *, nodes: bool, proxy: bool) -> dict[str, Program]:
    """Keys and folders; then the control plane's programs. Starts nothing.

    Raises:
        SwitchboardError: the site's ranges changed under its data, or somebody else holds one of its addresses.
    """
    layout = site.layout
    for directory in (layout.directory, layout.run, layout.logs, layout.proxy_dir):
        directory.mkdir(parents=True, exist_ok=True)
    layout.directory.chmod(0o700)
    _same_ranges(layout)
    keys = pki.ensure(layout)
    programs = controlplane.programs(layout, keys, tools)
    processes.check_addresses([*programs.values(), *site.agent_programs(nodes=nodes, proxy=proxy)])
    if nodes or proxy:
        ports.check(layout)
    return programs


async def up(
    site: EmbeddedSite,
    tools: Mapping[str, Path],
    progress: Progress,
    *,
    nodes: bool = True,
    proxy: bool = True,
) -> None:
    """Bring the site up, or what of it isn't up: `prepare` and `run`.

    Raises:
        SwitchboardError: a part didn't start or didn't become ready; names it, with the end of its log.
    """
    programs = await asyncio.to_thread(prepare, site, tools, nodes=nodes, proxy=proxy)
    await run(site, programs, progress, nodes=nodes, proxy=proxy)


async def run(
    site: EmbeddedSite,
    programs: Mapping[str, Program],
    progress: Progress,
    *,
    nodes: bool = True,
    proxy: bool = True,
) -> None:
    """`up` after `prepare`, whose answer `programs` is. A site with all its parts gets a supervisor at the end."""
    with supervisor.held(site.layout.directory):
        await _run(site, programs, progress, nodes=nodes, proxy=proxy)
        if nodes and proxy:
            supervisor.write(site.layout.directory, [*programs.values(), *site.agent_programs()])
            await asyncio.to_thread(processes.ensure, site.supervisor_program())


async def _run(
    site: EmbeddedSite, programs: Mapping[str, Program], progress: Progress, *, nodes: bool, proxy: bool
) -> None:
    serving = asyncio.Event()
    agents = site.agent_programs(nodes=nodes, proxy=proxy)

    async def control_plane() -> None:
        with progress.step(f"{site.name}: control plane") as step:
            await _control_plane_up(site.layout, programs, serving, step)

    async def nodes_and_proxy() -> None:
        await serving.wait()  # the agents come up beside the controllers
        if nodes:
            await _drop_removed_nodes(site.layout)
        if agents:
            with progress.step(f"{site.name}: nodes and Service proxy") as step:
                await _agents_up(site, agents, step)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(control_plane())
            tasks.create_task(nodes_and_proxy())
    except* SwitchboardError as failures:
        raise failures.exceptions[0] from None


async def _control_plane_up(
    layout: SiteLayout, programs: Mapping[str, Program], serving: asyncio.Event, step: Step
) -> None:
    """Sets `serving` when the API server serves and knows the site's own roles; returns when all of it works."""
    first = [programs[controlplane.ETCD], programs[controlplane.API_SERVER]]
    rest = [programs[controlplane.CONTROLLER_MANAGER], programs[controlplane.SCHEDULER]]
    bootstrap = pki.ensure(layout).bootstrap_kubeconfig(datetime.now(UTC))
    try:
        async with (
            asyncio.timeout(CONTROL_PLANE_TIMEOUT_S),
            Kube(Credentials.from_kubeconfig(bootstrap)) as kube,
        ):
            await _start_api_server(first, rest)
            await wait_until(lambda: health.api_server_ready(kube), layout, first)
            for program in rest:
                processes.ensure(program)
            await wait_until(lambda: _bootstrapped(kube, step), layout, first)
            serving.set()
            step.detail("controllers, scheduler")
            await wait_until(lambda: health.controllers_work(layout, kube), layout, [*first, *rest])
    except TimeoutError:
        raise SwitchboardError(
            f"site {layout.name}: the control plane isn't ready after {CONTROL_PLANE_TIMEOUT_S:.0f} s",
            f"its logs are in {layout.logs}; `make up` again goes on from here",
        ) from None


async def _start_api_server(first: list[Program], rest: list[Program]) -> None:
    # Stopping what doesn't fit goes from the last to the first, so that nobody misses what it stands on.
    for program in [*reversed(rest), *reversed(first)]:
        await asyncio.to_thread(processes.stop_unfit, program)
    etcd, api_server = first
    if processes.ensure(etcd)[1]:
        # An API server that has been without etcd for a while tries it again only every so often, for up to two
        # minutes: a new one is ready in three seconds.
        await asyncio.to_thread(processes.stop, api_server.record, grace_s=3.0)
    processes.ensure(api_server)


async def _bootstrapped(kube: Kube, step: Step) -> bool:
    try:
        await bootstrap_objects.apply(kube)
    except (ApiError, Unreachable) as error:  # in its first second the API server may still say no
        step.detail(str(error))
        return False
    return True


async def _agents_up(site: EmbeddedSite, agents: list[Program], step: Step) -> None:
    layout = site.layout
    for program in agents:
        if await asyncio.to_thread(_needs_start, program):
            ready_file(layout, program).unlink(missing_ok=True)
            processes.start(program)
    waiting = {program.name for program in agents}

    async def all_ready() -> bool:
        for program in agents:
            if ready_file(layout, program).exists():
                waiting.discard(program.name)
        step.detail(
            f"waiting for {', '.join(sorted(waiting))}" if waiting else "waiting for the nodes to be ready"
        )
        return not waiting

    names = {node.name for node in layout.nodes if any(p.name == f"node-{node.name}" for p in agents)}
    try:
        async with asyncio.timeout(AGENTS_TIMEOUT_S):
            await wait_until(all_ready, layout, agents)
            async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
                await wait_until(lambda: _nodes_ready(kube, names), layout, agents)
    except TimeoutError:
        late = ", ".join(sorted(waiting)) or "the nodes' Ready condition"
        raise SwitchboardError(
            f"site {layout.name}: still waiting for {late} after {AGENTS_TIMEOUT_S:.0f} s",
            f"logs are in {layout.logs} and {layout.directory / 'nodes'}",
        ) from None


async def _drop_removed_nodes(layout: SiteLayout) -> None:
    """Nodes that are no longer in the stack file: their agents and pods stop, and the API server forgets them.

    Their released volumes go too, since there is no agent to do it; those that claims still hold stay (`status` names
    them). The folder of a node goes with its last volume.
    """
    kept = {node.name for node in layout.nodes}
    folders = layout.directory / "nodes"
    left = {path.name for path in folders.iterdir() if path.is_dir()} if folders.is_dir() else set()
    if not (gone := sorted((left | teardown.recorded_nodes(layout.directory)) - kept)):
        return
    async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
        for name in gone:
            await asyncio.to_thread(teardown.stop_node, layout.directory, name)
            await kube.delete(NODES, name)
        holding: set[str | None] = set()
        for volume in await kube.list(PERSISTENT_VOLUMES):
            owner = provisioner.node_of(volume)
            if owner in gone and provisioner.to_delete(volume):
                folder = folders / owner / "volumes" / volume["metadata"]["name"]
                await asyncio.to_thread(shutil.rmtree, folder, True)
                await kube.delete(PERSISTENT_VOLUMES, folder.name, uid=volume["metadata"]["uid"])
            else:
                holding.add(owner)
    for name in gone:
        if name not in holding:
            await asyncio.to_thread(shutil.rmtree, folders / name, True)


def _needs_start(program: Program) -> bool:
    processes.stop_unfit(program)
    found = processes.find(program)
    if found is not None:
        processes.wake(found)
    return found is None


async def _nodes_ready(kube: Kube, names: set[str]) -> bool:
    try:
        nodes = await kube.list(NODES)
    except Unreachable:
        return False
    return names <= {node["metadata"]["name"] for node in nodes if health.node_is_ready(node)}


async def wait_until(
    condition: Callable[[], Awaitable[bool]], layout: SiteLayout, programs: list[Program]
) -> None:
    """Until the condition holds; ends at once where one of the programs has died.

    Raises:
        SwitchboardError: names the program that died, with the end of its log.
    """
    while not await condition():
        for program in programs:
            if processes.find(program) is None:
                raise SwitchboardError(
                    f"site {layout.name}: {program.name} ended; its log says\n{processes.tail(program.log)}",
                    f"the whole log is {program.log}",
                )
        await asyncio.sleep(POLL_S)


def _same_ranges(layout: SiteLayout) -> None:
    """The ranges are in the API server's data (Services, PersistentVolumes' nodes): they can't change under it."""
    path = layout.directory / "ranges.json"
    now = {"network": str(layout.embedded.network), "services": str(layout.embedded.services)}
    try:
        then = json.loads(path.read_text())
    except (OSError, ValueError):
        then = None
    if then is not None and then != now and (layout.directory / "etcd").exists():
        raise SwitchboardError(
            f"site {layout.name} was made with {then['network']} and {then['services']}; "
            f"the stack file now says {now['network']} and {now['services']}",
            "put the ranges back, or remove the site's state with `make clean` (its data and volumes too)",
        )
    path.write_text(json.dumps(now))


@functools.cache
def _code_digest() -> str:
    """Of the code that the agents run: a change of it restarts them (their pods go on)."""
    digest = hashlib.sha256()
    for folder in ("switchboard", "infra/config", "infra/local"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _site_digest(layout: SiteLayout) -> str:
    return hashlib.sha256(layout.site.model_dump_json().encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""
