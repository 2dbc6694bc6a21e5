"""Persistent volumes of the StorageClass `local`: folders of a node, or of the site where a claim may be shared.

A claim that waits for its first consumer gets the annotation `volume.kubernetes.io/selected-node`; that node's agent
makes a folder and a PersistentVolume with affinity to itself, and the control plane binds them.

A claim of ReadWriteMany or ReadOnlyMany is what a file server would give: its folder is the site's, and pods of all
nodes mount it at once. Its PersistentVolume has no affinity, so it is of the kind `hostPath`, and is known by who
provisioned it and where; somebody else's is mounted by no agent. Every agent of the site provisions and deletes such
volumes, since any of them may be away: the API server takes one object of a name, and removing is the same twice.

A released volume whose policy is Delete is removed, folder and object. The size of a claim is not enforced.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from infra.local.node.context import Context
from switchboard import labels
from switchboard.informer import Informer
from switchboard.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    ApiError,
    Object,
    Unreachable,
)

log = logging.getLogger(__name__)

# As in `infra.local.bootstrap_objects` (a test holds them together): importing that would cost each agent 8 MB.
PROVISIONER = f"{labels.DOMAIN}/local"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
_RETRY_S = 2.0


def wants_volume(claim: Object, classes: Mapping[str, Object], node: str) -> bool:
    """Whether this node is to provision the claim; `classes` are the StorageClasses of our provisioner by name."""
    meta, spec = claim["metadata"], claim["spec"]
    storage_class = classes.get(spec.get("storageClassName") or "")
    if storage_class is None or spec.get("volumeName") or meta.get("deletionTimestamp"):
        return False
    selected = (meta.get("annotations") or {}).get(SELECTED_NODE)
    if is_shared(claim):
        # The node that was selected may be away, and the claim's other pods would wait for it.
        return selected is not None or storage_class.get("volumeBindingMode") != "WaitForFirstConsumer"
    return selected == node


def is_shared(claim: Object) -> bool:
    """Whether pods of several nodes may have the claim's volume at once."""
    return not SHARED_MODES.isdisjoint(claim["spec"].get("accessModes") or ())


def volume_for(claim: Object, storage_class: Object, node: str, path: str) -> Object:
    """The PersistentVolume of a claim; `node` is where the folder is, if the volume isn't shared."""
    meta, spec = claim["metadata"], claim["spec"]
    where: Object = {"hostPath": {"path": path}} if is_shared(claim) else _on_node(node, path)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": spec["storageClassName"],
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            **where,
        },
    }


def _on_node(node: str, path: str) -> Object:
    term = {"matchExpressions": [{"key": labels.HOSTNAME, "operator": "In", "values": [node]}]}
    return {"local": {"path": path}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}


def volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def node_of(volume: Object) -> str | None:
    """The node that provisioned the volume and has its folder; None where no node has, or it isn't one of ours."""
    terms = (volume["spec"].get("nodeAffinity") or {}).get("required", {}).get("nodeSelectorTerms") or []
    values = [v for term in terms for e in term.get("matchExpressions") or [] for v in e.get("values") or []]
    return values[0] if _is_ours(volume) and len(values) == 1 else None


def shared_folder(volume: Object, folders: Path) -> Path | None:
    """The volume's folder below the site's `folders`; None where it isn't a shared volume of ours.

    The annotation alone says nothing: whoever may write a volume may write that too.
    """
    path = (volume["spec"].get("hostPath") or {}).get("path")
    folder = folders / volume["metadata"]["name"]
    return folder if _is_ours(volume) and path == str(folder) else None


def _is_ours(volume: Object) -> bool:
    return (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER


def to_delete(volume: Object) -> bool:
    """Whether a volume is ours, released, and to be deleted by who can reach its folder."""
    return (
        _is_ours(volume)
        and (volume.get("status") or {}).get("phase") == "Released"
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        and not volume["metadata"].get("deletionTimestamp")
    )


class Provisioner:
    """Watches claims, volumes and classes; one change at a time, each tried until it works."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()
        kube = context.kube

        def changed(*_: Any) -> None:
            self._wake.set()

        self._claims = Informer(kube, PERSISTENT_VOLUME_CLAIMS, on_change=changed)
        self._volumes = Informer(kube, PERSISTENT_VOLUMES, on_change=changed)
        self._classes = Informer(kube, STORAGE_CLASSES, on_change=changed)

    async def run(self) -> None:
        """Until cancelled."""
        informers = (self._claims, self._volumes, self._classes)
        async with asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run())
            for informer in informers:
                await informer.synced.wait()
            self._wake.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                if not await self._look():
                    await asyncio.sleep(_RETRY_S)
                    self._wake.set()

    async def _look(self) -> bool:
        """Do what there is to do; False where some of it failed. One volume's failure doesn't hold up the others."""
        node = self._context.node.name
        classes = {
            item["metadata"]["name"]: item
            for item in self._classes.items.values()
            if item.get("provisioner") == PROVISIONER
        }
        due: list[Callable[[], Awaitable[None]]] = [
            functools.partial(self._provision, claim, classes[claim["spec"]["storageClassName"]])
            for claim in self._claims.items.values()
            if wants_volume(claim, classes, node) and ("", volume_name(claim)) not in self._volumes.items
        ]
        due += [
            functools.partial(self._delete, volume, folder)
            for volume in self._volumes.items.values()
            if to_delete(volume) and (folder := self._folder(volume)) is not None
        ]
        all_done = True
        for work in due:
            try:
                await work()
            except (ApiError, Unreachable, OSError) as error:
                log.warning("volumes: %s; trying again", error)
                all_done = False
        return all_done

    def _folder(self, volume: Object) -> Path | None:
        """The folder of a volume that this agent can remove."""
        own = self._context.node
        if node_of(volume) == own.name:
            return own.volumes_dir / volume["metadata"]["name"]
        return shared_folder(volume, self._context.site.volumes_dir)

    async def _provision(self, claim: Object, storage_class: Object) -> None:
        name = volume_name(claim)
        own = self._context.node
        path = (self._context.site if is_shared(claim) else own).volumes_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            pass  # made before, or by the agent of another node
        else:
            path.chmod(0o777)
        body = volume_for(claim, storage_class, own.name, str(path))
        try:
            await self._context.kube.create(PERSISTENT_VOLUMES, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return  # made a moment ago, and the watch hasn't told yet
        meta = claim["metadata"]
        log.info("volume %s provisioned for claim %s/%s", name, meta["namespace"], meta["name"])

    async def _delete(self, volume: Object, folder: Path) -> None:
        meta = volume["metadata"]
        await asyncio.to_thread(remove_tree, folder)
        gone = await self._context.kube.delete(PERSISTENT_VOLUMES, meta["name"], uid=meta["uid"])
        if gone is not None:
            log.info("volume %s deleted", meta["name"])


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; agents of several nodes may be at it at once.

    Raises:
        OSError: some of it is still there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise OSError(f"{folder} isn't removed yet")
