"""Who makes and who removes a claim's volume, with several agents that see it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.leftovers import detach
from infra.local.node.agent import Agent
from infra.local.node.pod_volumes import mount_memory
from infra.local.node.provisioner import (
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    Provisioner,
    node_of,
    shared_folder,
    to_delete,
    volume_for,
    wants_volume,
)
from switchboard.kube import (
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    Credentials,
    Kube,
    Object,
)
from tests.conftest import ControlPlane
from tests.infra.local.node.conftest import wait

LATE: Object = {"volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"}
CLASSES: dict[str, Object] = {"local": LATE, "at-once": {"volumeBindingMode": "Immediate"}}
RWO, RWX, ROX = "ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"


def claim(name: str, *modes: str, selected: str | None = None, **spec: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": "1-2",
            "annotations": {SELECTED_NODE: selected} if selected else {},
        },
        "spec": {
            "accessModes": list(modes),
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "local",
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("asked", "wanted", "why"),
    [
        (claim("c", RWO), False, "it waits for its first pod"),
        (claim("c", RWO, selected="here"), True, "its pod comes here"),
        (claim("c", RWO, selected="there"), False, "the folder is to be of another node"),
        (claim("c", RWO, selected="here", storageClassName="nfs"), False, "somebody else's class"),
        (claim("c", RWO, selected="here", volumeName="v"), False, "it has one"),
        (claim("c", RWO, storageClassName="at-once"), False, "a node's volume is of no node yet"),
        (claim("c", RWX), False, "it waits for its first pod"),
        (claim("c", RWX, selected="here"), True, "its pod comes here"),
        (claim("c", RWX, selected="there"), True, "the node there may be away"),
        (claim("c", RWO, ROX, selected="there"), True, "one mode is enough"),
        (claim("c", RWX, storageClassName="at-once"), True, "the class waits for no pod"),
        (claim("c", RWX, selected="here", volumeName="v"), False, "it has one"),
    ],
)
def test_which_claims_a_node_provisions(asked: Object, wanted: bool, why: str) -> None:
    assert wants_volume(asked, CLASSES, "here") is wanted, why


def test_a_shared_volume_is_of_no_node(tmp_path: Path) -> None:
    folder = str(tmp_path / "pvc-1-2")
    own = volume_for(claim("c", RWO), LATE, "here", folder)
    shared = volume_for(claim("c", RWX), LATE, "here", folder)
    assert (node_of(own), shared_folder(own, tmp_path)) == ("here", None)
    assert (node_of(shared), shared_folder(shared, tmp_path)) == (None, Path(folder))
    assert "nodeAffinity" not in shared["spec"]
    for volume in (own, shared):
        assert not to_delete({**volume, "status": {"phase": "Bound"}})
        assert to_delete({**volume, "status": {"phase": "Released"}})


@pytest.mark.parametrize(
    ("annotations", "path"),
    [
        ({}, "{}/pvc-1-2"),
        ({PROVISIONED_BY: "somebody.else/local"}, "{}/pvc-1-2"),
        ({PROVISIONED_BY: PROVISIONER}, "/etc"),
        ({PROVISIONED_BY: PROVISIONER}, "{}/pvc-1-2/../pvc-3-4"),
        ({PROVISIONED_BY: PROVISIONER}, "{}"),
    ],
)
def test_a_folder_of_the_machine_is_no_shared_volume(
    tmp_path: Path, annotations: dict[str, str], path: str
) -> None:
    volume = volume_for(claim("c", RWX), LATE, "here", path.format(tmp_path))
    volume["metadata"]["annotations"] = annotations
    assert shared_folder(volume, tmp_path) is None


class Site:
    """A namespace of its own, and the provisioners of the site's nodes: those that run, and no more of their agents."""

    def __init__(self, plane: ControlPlane, kube: Kube, namespace: str) -> None:
        self.plane, self.kube, self.namespace = plane, kube, namespace
        self.folders = plane.layout.volumes_dir

    @contextlib.asynccontextmanager
    async def provisioners(self, *nodes: str) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            tasks = []
            for name in nodes:
                context = Agent(self.plane.stack, self.plane.layout, self.plane.layout.node(name)).context
                await stack.enter_async_context(context.kube)
                tasks.append(asyncio.create_task(Provisioner(context).run()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, name: str, *modes: str, selected: str) -> None:
        body = claim(name, *modes, selected=selected)
        body["metadata"] = {"name": name, "annotations": body["metadata"]["annotations"]}
        await self.kube.create(PERSISTENT_VOLUME_CLAIMS, body, self.namespace)

    async def volumes(self) -> list[Object]:
        """Of this namespace's claims, whether those are there or not."""
        found = await self.kube.list(PERSISTENT_VOLUMES)
        return [v for v in found if v["spec"].get("claimRef", {}).get("namespace") == self.namespace]

    async def bound(self, *names: str) -> None:
        async def so() -> bool:
            claims = await self.kube.list(PERSISTENT_VOLUME_CLAIMS, self.namespace)
            return {c["metadata"]["name"] for c in claims if c["status"]["phase"] == "Bound"} >= set(names)

        await wait(so, f"not bound: {names}")

    async def released(self, name: str) -> Object:
        """The volume of a claim that is deleted now."""
        (volume,) = [v for v in await self.volumes() if v["spec"]["claimRef"]["name"] == name]
        await self.kube.delete(PERSISTENT_VOLUME_CLAIMS, name, self.namespace)

        async def so() -> bool:
            found = await self.kube.get_or_none(PERSISTENT_VOLUMES, volume["metadata"]["name"])
            return found is None or found["status"]["phase"] == "Released"

        await wait(so, f"the volume of {name} is not released")
        return volume

    async def gone(self, volume: Object) -> None:
        async def so() -> bool:
            return await self.kube.get_or_none(PERSISTENT_VOLUMES, volume["metadata"]["name"]) is None

        await wait(so, "the volume is still there")


@pytest.fixture
async def site(control_plane: ControlPlane) -> AsyncIterator[Site]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        made = await kube.create(NAMESPACES, {"metadata": {"generateName": "volumes-"}})
        yield Site(control_plane, kube, made["metadata"]["name"])
        await kube.delete(NAMESPACES, made["metadata"]["name"])


ALL = ("public-1", "public-2", "edge-1")


async def test_one_of_all_agents_provisions(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Each sees each claim at the same time; the node that the scheduler chose is none of them."""
    caplog.set_level(logging.INFO, "infra.local.node.provisioner")
    names = [f"c-{number}" for number in range(8)]
    async with site.provisioners(*ALL):
        await asyncio.gather(*(site.create(name, RWX, selected="away") for name in names))
        await site.bound(*names)
        volumes = await site.volumes()
        assert sorted(v["spec"]["claimRef"]["name"] for v in volumes) == names
        folders = [site.folders / v["metadata"]["name"] for v in volumes]
        assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o777] * len(names)
        for name in names:
            told = [r for r in caplog.messages if r.endswith(f"claim {site.namespace}/{name}")]
            assert len(told) == 1, "provisioned once"
        for volume in await asyncio.gather(*map(site.released, names)):
            await site.gone(volume)
        assert not any(folder.exists() for folder in folders)
    ours = [record for record in caplog.records if record.name == "infra.local.node.provisioner"]
    assert not [record for record in ours if record.levelno >= logging.WARNING]


async def test_what_a_lost_node_provisioned_is_there_and_others_delete_it(site: Site) -> None:
    async with site.provisioners("public-1"):
        await site.create("c", RWX, selected="public-1")
        await site.create("own", RWO, selected="public-1")
        await site.bound("c", "own")
    (name,) = [v["metadata"]["name"] for v in await site.volumes() if "hostPath" in v["spec"]]
    folder = site.folders / name
    for number in range(300):
        (folder / f"{number % 7}").mkdir(exist_ok=True)
        (folder / f"{number % 7}" / f"file-{number}").write_text("data")
    shared, own = await site.released("c"), await site.released("own")
    async with site.provisioners("public-2", "edge-1"):
        await site.gone(shared)
        assert not folder.exists()
        assert await site.kube.get(PERSISTENT_VOLUMES, own["metadata"]["name"]), "it is another node's"
    async with site.provisioners("public-1"):
        await site.gone(own)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")
async def test_a_volume_that_cannot_be_removed_holds_up_no_other(site: Site) -> None:
    async with site.provisioners("public-1", "public-2"):
        await site.create("stuck", RWX, selected="public-1")
        await site.bound("stuck")
        (volume,) = await site.volumes()
        busy = site.folders / volume["metadata"]["name"] / "busy"
        busy.mkdir()
        mount_memory(busy, 4096)
        try:
            await site.released("stuck")
            await site.create("other", RWX, selected="public-1")
            await site.bound("other")
            await site.gone(await site.released("other"))
            assert busy.is_dir()
        finally:
            detach(busy)
        await site.gone(volume)
        assert not busy.parent.exists()
