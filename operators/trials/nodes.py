"""Simulated nodes: they take the pods that a real scheduler gives them and report what kubelets would, and run nothing.

How a pod fares is said by a function of the pod: how long it takes to start and to stop, whether it ever gets ready, or
why it can't. A node renews its Lease, so that the control plane holds it for alive.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from switchboard import labels
from switchboard.informer import Informer, Key
from switchboard.kube import LEASES, NODES, PODS, ApiError, Kube, Object, Unreachable

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
RENEW_S = 10.0
WRITERS = 32
_TRIES = 20
_RETRY_S = 1.0


@dataclass(frozen=True)
class Fate:
    """How a pod fares: `start_s` until it is ready (None: never), `stop_s` until it has ended; `waiting` is the reason
    why its container doesn't start, as a kubelet gives it."""

    start_s: float | None = 1.0
    stop_s: float = 0.2
    waiting: str | None = None


@dataclass(frozen=True)
class Node:
    """A node's name and place."""

    name: str
    zone: str
    tier: str = "core"
    region: str = "cn-shenzhen"


class Nodes:
    """Simulates `nodes` of `kube`'s cluster for the pods of `namespace`."""

    def __init__(
        self,
        kube: Kube,
        nodes: Sequence[Node],
        namespace: str,
        fate: Callable[[Object], Fate],
        *,
        pods_per_node: int = 1000,
        network: str = "127.250",
    ) -> None:
        self._kube, self._nodes, self._namespace, self._fate = kube, nodes, namespace, fate
        self._most, self._network = pods_per_node, network
        self._addresses = itertools.count(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writers = asyncio.Semaphore(WRITERS)
        self.ready: set[str] = set()
        """Names of the pods that are ready."""
        self.draining: set[str] = set()
        """Names of those that are told to go: gateways send them nothing."""

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._register(node) for node in self._nodes))
        informer = Informer(
            self._kube, PODS, namespace=self._namespace, on_change=self._changed, compact=_compact
        )
        try:
            await asyncio.gather(informer.run(), self._renew())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _register(self, node: Node) -> None:
        own = {
            labels.HOSTNAME: node.name,
            labels.ZONE: node.zone,
            labels.REGION: node.region,
            labels.TIER: node.tier,
        }
        await self._kube.apply(
            NODES, {"metadata": {"name": node.name, "labels": own}, "spec": {}}, field_manager="trials"
        )
        room = {"cpu": "100000", "memory": "100Ti", "pods": str(self._most), "ephemeral-storage": "100Ti"}
        conditions = [
            {"type": "Ready", "status": "True", "reason": "Simulated", "lastHeartbeatTime": _now()},
        ]
        status = {"capacity": room, "allocatable": room, "conditions": conditions}
        await self._kube.patch(NODES, node.name, {"status": status}, subresource="status")

    async def _renew(self) -> None:
        while True:
            for node in self._nodes:
                await self._say_ready(node)
                spec = {
                    "holderIdentity": node.name,
                    "leaseDurationSeconds": 40,
                    "renewTime": _now(micro=True),
                }
                meta = {"name": node.name, "namespace": LEASE_NAMESPACE}
                try:
                    await self._kube.apply(LEASES, {"metadata": meta, "spec": spec}, field_manager="trials")
                except (ApiError, Unreachable) as error:
                    log.info("lease of %s: %s", node.name, error)
            await asyncio.sleep(RENEW_S)

    async def _say_ready(self, node: Node) -> None:
        """Again, as a kubelet does, where it was taken for lost: it was late, or the API server was away."""
        try:
            if not _is_ready(await self._kube.get(NODES, node.name)):
                await self._register(node)
        except (ApiError, Unreachable) as error:
            log.info("%s: %s", node.name, error)

    def _changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        name = key[1]
        drains = new is not None and labels.DRAINING in (new["metadata"].get("annotations") or {})
        (self.draining.add if drains else self.draining.discard)(name)
        if new is None:
            self.ready.discard(name)
            if task := self._tasks.pop(name, None):
                task.cancel()
            return
        if not new["spec"].get("nodeName"):
            return
        ending = bool(new["metadata"].get("deletionTimestamp"))
        was_ending = bool(old and old["metadata"].get("deletionTimestamp"))
        if name in self._tasks and ending == was_ending:
            if (
                name in self.ready and not ending and not _is_ready(new)
            ):  # it went with its node, and is still there
                self._tasks[name] = asyncio.create_task(
                    self._report(new, new["status"]["podIP"], ready=True, waiting=None)
                )
            return
        if name in self._tasks:
            self._tasks[name].cancel()
        work = self._stop(new) if ending else self._start(new)
        self._tasks[name] = asyncio.create_task(work)

    async def _start(self, pod: Object) -> None:
        fate = self._fate(pod)
        if _is_ready(pod):  # of an earlier run
            self.ready.add(pod["metadata"]["name"])
            return
        number = next(self._addresses)
        address = f"{self._network}.{number // 250 % 250}.{number % 250 + 1}"
        if fate.waiting is not None or fate.start_s is None:
            await self._report(pod, address, ready=False, waiting=fate.waiting)
            return
        await asyncio.sleep(fate.start_s)
        await self._report(pod, address, ready=True, waiting=None)
        self.ready.add(pod["metadata"]["name"])

    async def _stop(self, pod: Object) -> None:
        self.ready.discard(pod["metadata"]["name"])
        await asyncio.sleep(self._fate(pod).stop_s)
        meta = pod["metadata"]
        await self._insist(
            lambda: self._kube.delete(PODS, meta["name"], self._namespace, grace_period_s=0, uid=meta["uid"])
        )

    async def _report(self, pod: Object, address: str, *, ready: bool, waiting: str | None) -> None:
        now, flag = _now(), "True" if ready else "False"
        state: Object = {"running": {"startedAt": now}}
        if waiting is not None:
            state = {"waiting": {"reason": waiting, "message": f"simulated: {waiting}"}}
        containers = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": one["image"],
                "ready": ready,
                "restartCount": 0,
                "state": state,
            }
            for one in pod["spec"]["containers"]
        ]
        kinds = {"Initialized": "True", "PodScheduled": "True", "ContainersReady": flag, "Ready": flag}
        status = {
            "phase": "Pending" if waiting is not None else "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "containerStatuses": containers,
            "conditions": [
                {"type": kind, "status": said, "lastTransitionTime": now} for kind, said in kinds.items()
            ],
        }
        name = pod["metadata"]["name"]
        await self._insist(
            lambda: self._kube.patch(
                PODS,
                name,
                {"status": status},
                self._namespace,
                patch_type="strategic",
                subresource="status",
            )
        )

    async def _insist(self, work: Callable[[], Any]) -> None:
        """Do it, again while there is no answer; a pod that has gone meanwhile needs nothing."""
        for _ in range(_TRIES):
            try:
                async with self._writers:
                    await work()
                return
            except ApiError as error:
                if error.not_found or error.conflict:
                    return
                log.info("a simulated node: %s", error)
            except Unreachable as error:
                log.info("a simulated node: %s", error)
            await asyncio.sleep(_RETRY_S)


def _compact(pod: Object) -> Object:
    """What is kept of a pod, and what tells whether it has to be looked at again."""
    meta = pod["metadata"]
    return {
        "metadata": {
            key: meta[key]
            for key in ("namespace", "name", "resourceVersion", "deletionTimestamp")
            if key in meta
        }
    }


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _now(*, micro: bool = False) -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
