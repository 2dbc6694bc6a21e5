"""Persistent volumes of the StorageClass `local`: folders of the node that the scheduler chose.

A claim that waits for its first consumer gets the annotation `volume.kubernetes.io/selected-node`; that node's agent
makes a folder and a PersistentVolume with affinity to itself, and the control plane binds them. A released volume
whose policy is Delete is removed, folder and object. The size of a claim is not enforced.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
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
_RETRY_S = 2.0


def wants_volume(claim: Object, classes: set[str], node: str) -> bool:
    """Whether this node is to provision the claim; `classes` are the StorageClasses of our provisioner."""
    meta, spec = claim["metadata"], claim["spec"]
    return (
        not spec.get("volumeName")
        and not meta.get("deletionTimestamp")
        and spec.get("storageClassName") in classes
        and (meta.get("annotations") or {}).get(SELECTED_NODE) == node
    )


def volume_for(claim: Object, storage_class: Object, node: str, path: str) -> Object:
    """The PersistentVolume of a claim."""
    meta, spec = claim["metadata"], claim["spec"]
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
            "local": {"path": path},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": labels.HOSTNAME, "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }


def volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def node_of(volume: Object) -> str | None:
    """The node that provisioned the volume and has its folder; None where it isn't one of ours."""
    spec, meta = volume["spec"], volume["metadata"]
    terms = (spec.get("nodeAffinity") or {}).get("required", {}).get("nodeSelectorTerms") or []
    values = [v for term in terms for e in term.get("matchExpressions") or [] for v in e.get("values") or []]
    ours = (meta.get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER
    return values[0] if ours and len(values) == 1 else None


def to_delete(volume: Object, node: str) -> bool:
    """Whether a volume is released, ours, and to be deleted."""
    spec, meta = volume["spec"], volume["metadata"]
    return (
        node_of(volume) == node
        and (volume.get("status") or {}).get("phase") == "Released"
        and spec.get("persistentVolumeReclaimPolicy") == "Delete"
        and not meta.get("deletionTimestamp")
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
                try:
                    await self._look()
                except (ApiError, Unreachable, OSError) as error:
                    log.warning("volumes: %s; trying again", error)
                    await asyncio.sleep(_RETRY_S)
                    self._wake.set()

    async def _look(self) -> None:
        node = self._context.node.name
        classes = {
            item["metadata"]["name"]: item
            for item in self._classes.items.values()
            if item.get("provisioner") == PROVISIONER
        }
        for claim in list(self._claims.items.values()):
            if wants_volume(claim, set(classes), node):
                await self._provision(claim, classes[claim["spec"]["storageClassName"]])
        for volume in list(self._volumes.items.values()):
            if to_delete(volume, node):
                await self._delete(volume)

    async def _provision(self, claim: Object, storage_class: Object) -> None:
        name = volume_name(claim)
        if ("", name) in self._volumes.items:
            return
        path = self._context.node.volumes_dir / name
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o777)
        body = volume_for(claim, storage_class, self._context.node.name, str(path))
        try:
            await self._context.kube.create(PERSISTENT_VOLUMES, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return  # made a moment ago, and the watch hasn't told yet
        meta = claim["metadata"]
        log.info("volume %s provisioned for claim %s/%s", name, meta["namespace"], meta["name"])

    async def _delete(self, volume: Object) -> None:
        name = volume["metadata"]["name"]
        path = self._context.node.volumes_dir / name
        await asyncio.to_thread(shutil.rmtree, path, True)
        await self._context.kube.delete(PERSISTENT_VOLUMES, name, uid=volume["metadata"]["uid"])
        log.info("volume %s deleted", name)
