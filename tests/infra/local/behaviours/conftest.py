"""A cluster for the behaviours: a control plane of its own, three nodes in three zones, and three to be hard on."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from infra import config
from infra.local.layout import SiteLayout
from switchboard import paths
from switchboard.kube import NODES, PODS, Credentials, Kube
from switchboard.paths import ROOT
from switchboard.progress import Progress
from tests.conftest import ControlPlane, free_networks, run_apart, shared_networks, stack_document
from tests.infra.local.behaviours.agents import READY
from tests.infra.local.behaviours.cluster import Cluster
from tests.infra.local.behaviours.scenario import Together, is_long, is_scenario

GENERAL = ("node-a", "node-b", "node-c")
LAB = ("lab-a", "lab-b", "lab-c")
"""Tainted, so that nothing comes there but what tolerates it: for drains, evictions and a node that is full."""

START_S = 120.0


def write_stack(root: Path, stack: str) -> dict[str, str]:
    """The stack file of the cluster, and the environment in which it is found."""
    document = stack_document([*shared_networks()[:2], *free_networks(2)])
    site = next(s for s in document["config"]["switchboard:sites"] if s["name"] == "public")
    site.pop("edges")
    site["embedded"]["nodes"] = [
        {"name": name, "zone": f"zone-{name[-1]}", "cpu": "8" if name in GENERAL else "2", "memory": "16Gi"}
        for name in (*GENERAL, *LAB)
    ]
    file = root / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(document))
    return {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}


@pytest.fixture(scope="session")
def behaviours_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane with its Service proxy, without nodes."""
    from infra.local import cloud, site, teardown

    root = tmp_path_factory.mktemp("behaviours")
    stack = f"behave{os.getpid()}"
    env = write_stack(root, stack)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        layout = SiteLayout(config.load(stack).site("public"), paths.state_dir(stack))
        embedded = site.EmbeddedSite(stack, layout)
        try:
            run_apart(site.up(embedded, cloud.tools(), Progress(io.StringIO()), nodes=False))
            patch.undo()
            yield ControlPlane(stack, layout, env)
        finally:
            with Progress(io.StringIO()).step("stop") as step:
                teardown.down(layout.directory, stack, step)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(behaviours_plane: ControlPlane) -> AsyncIterator[Cluster]:
    """The cluster, all nodes ready."""
    plane = behaviours_plane
    log = plane.layout.logs / "agents.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.infra.local.behaviours.agents", plane.stack, plane.layout.name),
            cwd=ROOT,
            env={**os.environ, **plane.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=out,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with Kube(Credentials.from_kubeconfig(plane.kubeconfig)) as kube:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
            assert line.decode().strip() == READY, log.read_text()[-2000:]
            for name in LAB:
                taint = {"key": "lab", "value": name, "effect": "NoSchedule"}
                await kube.patch(NODES, name, {"spec": {"taints": [taint]}})
            made = Cluster(plane, kube, process)
            made.watch(PODS)
            nodes = made.watch(NODES)
            await nodes.until(
                lambda: (
                    len(nodes.items()) == 6
                    and all(
                        c["status"] == "True"
                        for node in nodes.items()
                        for c in node["status"]["conditions"]
                        if c["type"] == "Ready"
                    )
                    and not any(
                        t["key"].startswith("node.kubernetes.io")
                        for node in nodes.items()
                        for t in node["spec"].get("taints") or []
                    )
                ),
                lambda: f"nodes: {[(n['metadata']['name'], n['spec']) for n in nodes.items()]}",
            )
            try:
                yield made
            finally:
                await made.close()
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(START_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def under_way(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Together]:
    """What is shared by all modules; the long behaviours begin here."""
    running = Together(cluster)
    running.start([item for item in request.session.items if is_scenario(item) and is_long(item)])
    try:
        await running.begun()
        yield running
    finally:
        await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def together(under_way: Together, request: pytest.FixtureRequest) -> Together:
    """All behaviours of the module that are to be run, started."""
    items = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    under_way.start([item for item in items if is_scenario(item)])
    return under_way


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=is_long)
