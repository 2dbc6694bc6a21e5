"""The API server dies while Pulumi is at work: nothing is lost, nothing is made twice, and the next run finishes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from infra.local import cloud, controlplane, processes, site
from switchboard.kube import CONFIG_MAPS, NAMESPACES, Credentials, Kube, Object
from switchboard.progress import Progress
from tests.conftest import ControlPlane, run_apart
from tests.infra.plugin.project import Project

OBJECTS = 60
LABEL = "survival"


class Cluster:
    """The session's control plane, and a way to kill its API server and have it again."""

    def __init__(self, control_plane: ControlPlane, patch: pytest.MonkeyPatch) -> None:
        self.layout = control_plane.layout
        self.namespace = ""
        for name, value in control_plane.env.items():
            patch.setenv(name, value)
        self._site = site.EmbeddedSite(control_plane.stack, control_plane.layout)

    def kill(self) -> None:
        record = processes.read(self.layout.run / f"{controlplane.API_SERVER}.json")
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)

    def start(self) -> None:
        run_apart(site.up(self._site, cloud.tools(), Progress(io.StringIO()), nodes=False, proxy=False))

    def ask(self, work: Callable[[Kube], Awaitable[Any]]) -> Any:
        async def asked() -> Any:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                return await work(kube)

        return run_apart(asked())

    def objects(self) -> dict[str, Object]:
        """Ours, by name."""
        found = self.ask(lambda kube: kube.list(CONFIG_MAPS, self.namespace, label_selector=LABEL))
        return {item["metadata"]["name"]: item for item in found}

    def until(self, wanted: Callable[[list[Object]], bool]) -> None:
        """Watches until our objects are so."""

        async def look(kube: Kube) -> None:
            async with asyncio.timeout(120):
                while not wanted(await kube.list(CONFIG_MAPS, self.namespace, label_selector=LABEL)):
                    await asyncio.sleep(0.02)

        self.ask(look)


def settings(generation: int) -> list[dict[str, Any]]:
    """Objects whose names are made up: what is made twice shows."""
    metadata = {"labels": {LABEL: str(generation)}}
    return [
        {"kind": "ConfigMap", "name": f"c{i}", "args": {"metadata": metadata, "data": {"i": str(i)}}}
        for i in range(OBJECTS)
    ]


def in_state(project: Project) -> set[str]:
    return {
        item["id"].rpartition("/")[2]
        for item in project.state().values()
        if item["type"] == "kubernetes:core/v1:ConfigMap"
    }


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=500)
    assert "Traceback" not in out
    return out


def generation(item: Object) -> str:
    return str(item["metadata"]["labels"][LABEL])


GATE = {
    "kind": "ConfigMap",
    "name": "gate",
    "args": {
        "metadata": {"annotations": {"pulumi.com/waitFor": "jsonpath={.data.open}=yes"}},
        "data": {"open": "no"},
    },
}
UP = ("up", "--yes", "--skip-preview", "--stack", "t")


def test_the_api_server_dies_in_mid_update(
    tmp_path: Path, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(control_plane, monkeypatch)
    project = Project(tmp_path, control_plane)
    cluster.namespace = project.wanted["namespace"]
    cluster.ask(lambda kube: kube.create(NAMESPACES, {"metadata": {"name": cluster.namespace}}))
    project.run("stack", "init", "t")

    # It comes back soon: the run waits for it and goes on.
    project.want(objects=settings(1))
    running = project.start(*UP)
    cluster.until(lambda found: len(found) >= 10)
    cluster.kill()
    cluster.start()
    out = ended(running)
    assert running.returncode == 0, out
    assert f"+ {OBJECTS + 2} created" in out
    assert set(cluster.objects()) == in_state(project)
    assert len(in_state(project)) == OBJECTS

    # It doesn't, and the user breaks off: the next run takes up what this one left.
    before = set(cluster.objects())
    changed, more = settings(2)[10:], [{**item, "name": f"n{item['name']}"} for item in settings(2)[:20]]
    # Some of it comes behind an object that is never ready: however slowly this looks on, it isn't done.
    behind = [{**item, "options": {"depends_on": ["gate"]}} for item in changed[-10:]]
    project.want(objects=[GATE, *changed[:-10], *behind, *more])
    running = project.start(*UP)
    cluster.until(lambda found: any(generation(item) == "2" for item in found))
    cluster.kill()
    try:
        said = _until_it_waits(running)
        running.send_signal(signal.SIGINT)
        said += ended(running)
    finally:
        cluster.start()
    assert running.returncode != 0, said
    now = cluster.objects()
    assert any(generation(item) == "1" for item in now.values())  # it was in mid-update indeed
    # What is there and new is known: nobody would ever delete it otherwise.
    assert set(now) - before <= in_state(project)
    project.want(objects=changed + more)
    assert "updated" in project.up()
    final = cluster.objects()
    assert {generation(item) for item in final.values()} == {"2"}
    assert len(final) == OBJECTS + 10
    assert set(final) == in_state(project)
    assert len(before & set(final)) == OBJECTS - 10
    cluster.ask(lambda kube: kube.delete(NAMESPACES, cluster.namespace))


def _until_it_waits(running: subprocess.Popen[str]) -> str:
    """Until Pulumi shows by a line of dots that nothing has happened for a while."""
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if line.startswith("@ updating") and "...." in line:
            break
    return said
