"""Simulated volumes: each claim of the class `simulated` gets one that holds nothing, as a file server's would be there
on every node.

Both are bound to each other here: a busy control plane's own controller binds one claim a second, and all replicas wait
for that.
"""

from __future__ import annotations

import asyncio
import logging

from switchboard.informer import Informer, Key
from switchboard.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    ApiError,
    Kube,
    Object,
    Unreachable,
)

log = logging.getLogger(__name__)

STORAGE_CLASS = "simulated"
_RETRY_S = 1.0
_BOUND = {"pv.kubernetes.io/bind-completed": "yes"}


class Volumes:
    """Provisions for the claims of `namespace`."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers = asyncio.Semaphore(16)

    async def run(self) -> None:
        """Until cancelled."""
        made = {"metadata": {"name": STORAGE_CLASS}, "provisioner": "kubernetes.io/no-provisioner"}
        await self._kube.apply(STORAGE_CLASSES, made, field_manager="trials")
        try:
            await Informer(
                self._kube, PERSISTENT_VOLUME_CLAIMS, namespace=self._namespace, on_change=self._changed
            ).run()
        finally:
            for task in self._tasks:
                task.cancel()

    def _changed(self, _: Key, old: Object | None, new: Object | None) -> None:
        if old is None and new is not None and new["spec"].get("storageClassName") == STORAGE_CLASS:
            task = asyncio.create_task(self._provision(new))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _provision(self, claim: Object) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        volume = {
            "metadata": {"name": f"simulated-{meta['uid']}"},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/nowhere"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        while True:
            try:
                async with self._writers:
                    await self._kube.apply(PERSISTENT_VOLUMES, volume, field_manager="trials")
                    await self._bind(claim, volume)
                return
            except ApiError as error:
                log.warning("a simulated volume: %s", error)
                return
            except Unreachable as error:
                log.info("a simulated volume: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def _bind(self, claim: Object, volume: Object) -> None:
        name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
        bound = {"metadata": {"annotations": _BOUND}, "spec": {"volumeName": volume["metadata"]["name"]}}
        await self._kube.patch(PERSISTENT_VOLUME_CLAIMS, name, bound, namespace)
        of_claim = {key: volume["spec"][key] for key in ("capacity", "accessModes")} | {"phase": "Bound"}
        await self._kube.patch(
            PERSISTENT_VOLUME_CLAIMS, name, {"status": of_claim}, namespace, subresource="status"
        )
        await self._kube.patch(
            PERSISTENT_VOLUMES,
            volume["metadata"]["name"],
            {"status": {"phase": "Bound"}},
            subresource="status",
        )
