"""Claims and their volumes: where they are, who may have them at once, what outlives a pod, what is deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from switchboard.kube import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, Object
from tests.infra.local.behaviours.cluster import Cluster, Space
from tests.infra.local.behaviours.manifests import FOREVER, claim, mount, phase, pod, ready, sh
from tests.infra.local.behaviours.scenario import behaviour, behaviours

MULTI_VOLUME = (
    "[Testpattern: Dynamic PV (default fs)] multiVolume [Slow] should concurrently access the single volume"
)
FS_GROUP = (
    "[sig-storage] In-tree Volumes [Driver: nfs] [Testpattern: Dynamic PV (default fs)] fsgroupchangepolicy "
    "({})[LinuxOnly], pod created with an initial fsgroup, {}"
)
SHARED = ["ReadWriteMany"]


def using(name: str, script: str, claimed: str = "c", **spec: Any) -> Object:
    """A pod with the claim at `/v`."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claimed}}]
    return pod(name, sh(script, volumeMounts=[mount("v", "/v")]), volumes=volumes, **spec)


def on(node: str) -> Object:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


async def volume_of(space: Space, claimed: str = "c") -> Object:
    """The volume that the claim is bound to."""
    bound = await space.until(claimed, lambda c: phase(c) == "Bound", PERSISTENT_VOLUME_CLAIMS)
    return await space.kube.get(PERSISTENT_VOLUMES, bound["spec"]["volumeName"])


async def until_gone(space: Space, volume: str) -> None:
    seen = space.cluster.watch(PERSISTENT_VOLUMES)
    await seen.until(lambda: seen.get("", volume) is None, lambda: f"{volume} is still there")


def folder_of(cluster: Cluster, volume: Object) -> Path:
    return cluster.plane.layout.volumes_dir / volume["metadata"]["name"]


TALK = (
    "echo {me} > /v/{me}; while ! grep -q {other} /v/{other} 2>/dev/null; do sleep 0.1; done; cat /v/{other}"
)
"""Write a word into the volume and wait for that of another pod."""


@behaviour(f"[sig-storage] In-tree Volumes [Driver: nfs] {MULTI_VOLUME} from pods on different node")
async def test_shared(space: Space, cluster: Cluster) -> None:
    """One folder of the site, made once though every agent saw the claim; it goes with the claim."""
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("c", accessModes=SHARED))
    pods = {"a": "node-a", "b": "node-b"}
    said = await asyncio.gather(
        space.output(using("a", TALK.format(me="a", other="b"), **on("node-a"))),
        space.output(using("b", TALK.format(me="b", other="a"), **on("node-b"))),
    )
    assert said == ["b\n", "a\n"]
    assert {name: (await space.get(name))["spec"]["nodeName"] for name in pods} == pods
    volume = await volume_of(space)
    assert "nodeAffinity" not in volume["spec"]
    folder = folder_of(cluster, volume)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    uid = (await space.get("c", PERSISTENT_VOLUME_CLAIMS))["metadata"]["uid"]
    made = await space.kube.list(PERSISTENT_VOLUMES)
    assert [v["metadata"]["name"] for v in made if v["spec"].get("claimRef", {}).get("uid") == uid] == [
        folder.name
    ]
    for name in pods:
        await space.delete(name)
        await space.gone(name)
    await space.delete("c", PERSISTENT_VOLUME_CLAIMS)
    await until_gone(space, folder.name)
    assert not folder.exists()


@behaviour(f"[sig-storage] CSI Volumes [Driver: csi-hostpath] {MULTI_VOLUME} from pods on the same node")
async def test_several_pods_of_a_node(space: Space) -> None:
    """ReadWriteOnce is of one node, not of one pod."""
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("c"))
    said = await asyncio.gather(
        space.output(using("a", TALK.format(me="a", other="b"))),
        space.output(using("b", TALK.format(me="b", other="a"))),
    )
    assert said == ["b\n", "a\n"]
    assert (await space.get("a"))["spec"]["nodeName"] == (await space.get("b"))["spec"]["nodeName"]


@behaviour(
    f"[sig-storage] CSI Volumes [Driver: csi-hostpath] {MULTI_VOLUME.replace('single', 'single read-only')} from pods "
    "on the same node"
)
async def test_shared_for_reading(space: Space) -> None:
    """A claim that the class binds at once, before there is a pod; who mounts it to read can't write."""
    at_once = f"at-once-{space.name}"
    body = {"provisioner": "switchboard.dev/local", "volumeBindingMode": "Immediate"}
    await space.kube.create(STORAGE_CLASSES, {"metadata": {"name": at_once}, **body})
    modes = ["ReadOnlyMany", "ReadWriteOnce"]
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("c", accessModes=modes, storageClassName=at_once))
    await volume_of(space)
    await space.output(using("writes", "echo word > /v/f", **on("node-a")))
    readers = [
        using(f"reads-{name}", "cat /v/f; touch /v/g 2>/dev/null || echo refused", **on(name))
        for name in ("node-b", "node-c")
    ]
    for reader in readers:
        reader["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = True
    said = await asyncio.gather(*map(space.output, readers))
    assert said == ["word\nrefused\n"] * 2
    await space.kube.delete(STORAGE_CLASSES, at_once)


@behaviours(
    {
        FS_GROUP.format("Always", "new pod fsgroup applied to volume contents"): (
            "Always",
            2000,
            "2000 2000",
        ),
        FS_GROUP.format("OnRootMismatch", "new pod fsgroup applied to volume contents"): (
            "OnRootMismatch",
            2000,
            "2000 2000",
        ),
        FS_GROUP.format(
            "Always",
            "volume contents ownership changed via chgrp in first pod, new pod with same fsgroup applied to the volume "
            "contents",
        ): ("Always", 1000, "1000 1000"),
        FS_GROUP.format(
            "OnRootMismatch",
            "volume contents ownership changed via chgrp in first pod, new pod with same fsgroup skips ownership "
            "changes to the volume contents",
        ): ("OnRootMismatch", 1000, "1000 3000"),
    }
)
async def test_groups(space: Space, case: tuple[str, int, str]) -> None:
    """A shared volume is its pods' group's, on whichever node they are."""
    policy, group, found = case
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("c", accessModes=SHARED))

    def owned_by(number: int) -> Object:
        return {"securityContext": {"fsGroup": number, "fsGroupChangePolicy": policy}}

    first = "mkdir /v/d && echo x > /v/d/f && chgrp 3000 /v/d/f && stat -c %g /v"
    assert await space.output(using("first", first, **owned_by(1000), **on("node-a"))) == "1000\n"
    script = "echo $(stat -c %g /v /v/d/f)"
    assert await space.output(using("second", script, **owned_by(group), **on("node-b"))) == f"{found}\n"
    user = {"runAsUser": 1001, "runAsGroup": 1001, **owned_by(group)["securityContext"]}
    written = using("third", "echo y > /v/g && stat -c %g /v/g", securityContext=user, **on("node-c"))
    assert await space.output(written) == f"{group}\n"


@behaviour(
    "[sig-storage] PVC Protection Verify that PVC in active use by a pod is not removed immediately",
)
async def test_claim(space: Space) -> None:
    """It waits for its first pod, stays there, outlives it, is protected in use, and goes with its claim."""
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("c"))
    assert phase(await space.get("c", PERSISTENT_VOLUME_CLAIMS)) == "Pending"
    await space.pod(using("first", f"echo kept > /v/f; {FOREVER}"))
    first = await space.until("first", ready)
    bound = await space.get("c", PERSISTENT_VOLUME_CLAIMS)
    assert bound["status"]["phase"] == "Bound"
    volume = bound["spec"]["volumeName"]
    await space.delete("c", PERSISTENT_VOLUME_CLAIMS)
    protected = await space.get("c", PERSISTENT_VOLUME_CLAIMS)
    assert "kubernetes.io/pvc-protection" in protected["metadata"]["finalizers"]
    assert await space.kube.get(PERSISTENT_VOLUMES, volume)
    await space.delete("first")
    await space.gone("c", PERSISTENT_VOLUME_CLAIMS)
    await until_gone(space, volume)
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("d"))
    await space.output(using("second", "echo kept > /v/f", "d"))
    node = (await space.get("second"))["spec"]["nodeName"]
    assert await space.output(using("third", "cat /v/f", "d")) == "kept\n"
    assert (await space.get("third"))["spec"]["nodeName"] == node
    assert first["spec"]["nodeName"]


@behaviour(
    "[sig-storage] PersistentVolumes Default StorageClass [LinuxOnly] pods that use multiple volumes should "
    "be reschedulable [Slow]"
)
async def test_retain(space: Space) -> None:
    """Several claims of one pod, one of a class that retains: its volume stays, Released, with its data."""
    keep = f"keep-{space.name}"
    body = {
        "provisioner": "switchboard.dev/local",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }
    await space.kube.create(STORAGE_CLASSES, {"metadata": {"name": keep}, **body})
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("a"))
    await space.create(PERSISTENT_VOLUME_CLAIMS, claim("b", storageClassName=keep))
    volumes = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in ("a", "b")]
    container = sh("echo data > /b/f; ls -d /a /b", volumeMounts=[mount("a", "/a"), mount("b", "/b")])
    assert await space.output(pod("p", container, volumes=volumes)) == "/a\n/b\n"
    await space.output(pod("again", container, volumes=volumes))
    volume = (await space.get("b", PERSISTENT_VOLUME_CLAIMS))["spec"]["volumeName"]
    for name in ("p", "again"):
        await space.delete(name)
        await space.gone(name)
    await space.delete("b", PERSISTENT_VOLUME_CLAIMS)
    seen = space.cluster.watch(PERSISTENT_VOLUMES)
    await seen.until(
        lambda: phase(seen.get("", volume) or {}) == "Released", lambda: str(seen.get("", volume))
    )
    await space.kube.delete(PERSISTENT_VOLUMES, volume)
    await space.kube.delete(STORAGE_CLASSES, keep)


@behaviour(
    "[sig-storage] In-tree Volumes [Driver: hostPath] [Testpattern: Pre-provisioned PV (default fs)] volumes should "
    "store data",
    refused="Event `FailedMount`: the machine's folders are not the pods'; only the class's own provisioner makes such "
    "volumes",
)
async def test_a_folder_of_the_machine(space: Space, cluster: Cluster) -> None:
    """Whatever the volume says of who made it."""
    ours = {"pv.kubernetes.io/provisioned-by": "switchboard.dev/local"}
    beside = str(cluster.plane.layout.volumes_dir / "other")
    cases: dict[str, tuple[dict[str, str], str]] = {
        "plain": ({}, "/etc"),
        "etc": (ours, "/etc"),
        "beside": (ours, beside),
    }
    for name, (notes, path) in cases.items():
        volume = f"{name}-{space.name}"
        spec = {
            "capacity": {"storage": "1Mi"},
            "accessModes": SHARED,
            "storageClassName": "",
            "hostPath": {"path": path},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        await space.kube.create(
            PERSISTENT_VOLUMES, {"metadata": {"name": volume, "annotations": notes}, "spec": spec}
        )
        given = claim(name, accessModes=SHARED, storageClassName="", volumeName=volume)
        await space.create(PERSISTENT_VOLUME_CLAIMS, given)
        await space.pod(using(name, FOREVER, name))
    for name in cases:
        event = await space.event(name, "FailedMount")
        assert "only local volumes" in event["message"]
        assert phase(await space.get(name)) == "Pending"
        await space.kube.delete(PERSISTENT_VOLUMES, f"{name}-{space.name}")
