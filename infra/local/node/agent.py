"""The node agent: wires the watches of the API server to the pods' workers.

It relies on the node's folder (credential, checkpoint) alone to start: while the site can't be reached it runs what
the checkpoint says, and catches up when the site is back. Cancelling `Agent.run` leaves the pods running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from infra.local.layout import KUBELET_PORT, NodeLayout, SiteLayout
from infra.local.node import bind_watch, hosts, podspec
from infra.local.node.checkpoint import Checkpoint, ObjectCache
from infra.local.node.container_spec import parse_run_id
from infra.local.node.context import Context, Settings
from infra.local.node.ips import Addresses
from infra.local.node.objects import Objects
from infra.local.node.pod_worker import PodWorker
from infra.local.node.provisioner import Provisioner
from infra.local.node.records import PodRecord
from infra.local.node.registration import Registration
from infra.local.node.server import KubeletServer, tls
from infra.local.runtime import ContainerState, Runtime
from switchboard.events import Events
from switchboard.informer import Informer, Key
from switchboard.kube import PODS, SERVICES, Credentials, Kube, Object

log = logging.getLogger(__name__)

_NAMES_DELAY_S = 0.1
_AGAIN_S = 1.0


class Agent:
    """One node's agent."""

    def __init__(
        self, stack: str, site: SiteLayout, node: NodeLayout, settings: Settings | None = None
    ) -> None:
        self.site = site
        self.node = node
        self.workers: dict[str, PodWorker] = {}
        self.ready = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unread: dict[str, OSError] = {}
        """Pods whose files can't be read now: nothing is done about them."""
        self._names: dict[str, str] = {}
        self._kept_services: list[Object] = []
        self._names_stale = asyncio.Event()
        self._has_headless = asyncio.Event()
        kube = Kube(Credentials.from_kubeconfig(node.kubeconfig), user_agent="switchboard-node")
        checkpoint = Checkpoint(node.pods_dir)
        checkpoint.make()
        self._cache = ObjectCache(node.directory / "objects")
        self.context = Context(
            stack=stack,
            site=site,
            node=node,
            kube=kube,
            runtime=Runtime(runtime_dir(node)),
            checkpoint=checkpoint,
            objects=Objects(kube, self._cache),
            events=Events(kube, "kubelet", node.name),
            addresses=Addresses(node.pod_cidr),
            names=lambda: self._names,
            services=self._known_services,
            settings=settings or Settings(),
        )
        self._pods = Informer(
            kube, PODS, field_selector=f"spec.nodeName={node.name}", on_change=self._pod_changed
        )
        self._services = Informer(kube, SERVICES, on_change=self._service_changed)
        # Pods of the whole site: for the names of pods behind headless Services, and only where there are some.
        self._all_pods = Informer(kube, PODS, on_change=self._pod_named)
        self.registration = Registration(self.context, on_back=self._site_is_back)
        self._server = KubeletServer(lambda: self.workers.values())

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            OSError: the kubelet API's address is taken.
        """
        context = tls(self.node.serving_cert, self.node.serving_key, self.site.ca_cert)
        await self._server.start(str(self.node.ip), KUBELET_PORT, context)
        try:
            async with self.context.kube, asyncio.TaskGroup() as tasks:
                await self._restore(tasks)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._server.stop()
            await self.context.runtime.close()

    async def _restore(self, tasks: asyncio.TaskGroup) -> None:
        """Take over what runs, then start watching; the checkpoint counts until the API server has answered."""
        self._names = self._cache.load("names") or {}
        self._kept_services = self._cache.load("services") or []
        states = {state.id: state for state in await self.context.runtime.adopt()}
        loaded = self.context.checkpoint.load()
        self._unread = dict(loaded.unread)
        for uid, error in loaded.unread.items():
            log.error("pod %s can't be read and is left as it is until it can: %s", uid, error)
        await self._remove_orphans(states, {podspec.uid(pod) for pod, _ in loaded.pods} | set(self._unread))
        adopted = [self._worker(pod, record) for pod, record in loaded.pods]
        for worker in adopted:
            worker.adopt(states)
        for work in (
            self._pods.run,
            self._services.run,
            self._name_pods,
            self._keep_names,
            self.context.events.run,
            self.registration.run,
            Provisioner(self.context).run,
            self._check_binds,
        ):
            tasks.create_task(_forever(work))
        # A pod that was deleted meanwhile should not be started again first: so the API server is waited for, a little.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.context.settings.sync_wait_s):
                await self._pods.synced.wait()
        if not self._pods.synced.is_set():
            log.warning("the site can't be reached: starting %d pods from the checkpoint", len(adopted))
            self.context.objects.site_is_away()
        for worker in adopted:
            self._run(worker)
        self.ready.set()
        tasks.create_task(self._read_again(states))
        await self._pods.synced.wait()
        self.context.objects.site_is_back()
        present = {podspec.uid(pod) for pod in self._pods.items.values()}
        for worker in list(self.workers.values()):
            if worker.uid not in present:
                log.info("pod %s was removed while this agent was away", podspec.label(worker.pod))
                worker.remove()

    async def _remove_orphans(self, states: dict[str, ContainerState], known: set[str]) -> None:
        """Containers and folders without a checkpoint: nobody can say what they are for."""
        for id in states:
            if parse_run_id(id)[0] not in known:
                log.warning("container %s belongs to no known pod and is removed", id)
                await self.context.runtime.remove(id)
        for path in self.node.pods_dir.iterdir():
            if path.is_dir() and path.name not in known:
                await asyncio.to_thread(self.context.checkpoint.pod(path.name).remove)

    async def _read_again(self, states: dict[str, ContainerState]) -> None:
        """Take over the pods that couldn't be read, each as soon as it can be."""
        while self._unread:
            await asyncio.sleep(_AGAIN_S)
            for uid in list(self._unread):
                try:
                    await self._take_over(uid, states)
                except OSError as error:
                    self._unread[uid] = error
                except Exception:
                    log.exception("pod %s can't be taken over", uid)

    async def _take_over(self, uid: str, states: dict[str, ContainerState]) -> None:
        loaded = self.context.checkpoint.pod(uid).load()
        if loaded is None:
            others = {path.name for path in self.node.pods_dir.iterdir()} - {uid}
            own = {id: state for id, state in states.items() if parse_run_id(id)[0] == uid}
            await self._remove_orphans(own, others)
            self.context.addresses.release(uid)
        del self._unread[uid]
        seen = next(((key, pod) for key, pod in self._pods.items.items() if podspec.uid(pod) == uid), None)
        if loaded is not None:
            log.info("pod %s can be read again", podspec.label(loaded[0]))
            worker = self._worker(*loaded)
            worker.adopt(states)
            self._run(worker)
            if seen is None and self._pods.synced.is_set():
                worker.remove()
        if seen is not None:
            self._pod_changed(seen[0], None, seen[1])

    # Pods

    def _worker(self, pod: Object, record: PodRecord | None = None) -> PodWorker:
        worker = PodWorker(self.context, pod, record)
        self.workers[worker.uid] = worker
        return worker

    def _run(self, worker: PodWorker) -> None:
        if worker.uid in self._tasks:
            return
        task = asyncio.create_task(worker.run(), name=f"pod {podspec.label(worker.pod)}")
        self._tasks[worker.uid] = task
        task.add_done_callback(lambda done: self._over(worker, done))

    def _over(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        self._tasks.pop(worker.uid, None)
        if task.cancelled():
            return
        self.workers.pop(worker.uid, None)
        if error := task.exception():
            log.error("the worker of pod %s failed", podspec.label(worker.pod), exc_info=error)
        kept = {key for other in self.workers.values() for key in other.objects()}
        for kind, namespace, name in worker.objects() - kept:
            self.context.objects.forget(namespace, [(kind, name)])

    def _pod_changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        replaced = old is not None and (new is None or podspec.uid(new) != podspec.uid(old))
        if replaced and old is not None and (before := self.workers.get(podspec.uid(old))) is not None:
            before.remove()
        if new is None:
            return
        if podspec.uid(new) in self._unread:  # it may run, and keeps its address meanwhile
            if address := (new.get("status") or {}).get("podIP"):
                self.context.addresses.hold(podspec.uid(new), address)
            return
        worker = self.workers.get(podspec.uid(new))
        if worker is None:
            self._run(self._worker(new))
        else:
            worker.update(new)

    def _site_is_back(self) -> None:
        self.context.objects.site_is_back()
        for worker in self.workers.values():
            worker.reconnected()

    # Names

    def _service_changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        if new is not None and new["spec"].get("clusterIP") == "None":
            self._has_headless.set()
        self._names_stale.set()

    def _pod_named(self, key: Key, old: Object | None, new: Object | None) -> None:
        if _name_parts(old) != _name_parts(new):
            self._names_stale.set()

    def _known_services(self) -> Iterable[Object]:
        """All Services of the site; those last seen while it is away."""
        return self._services.items.values() if self._services.synced.is_set() else self._kept_services

    async def _name_pods(self) -> None:
        """Watch all pods of the site from when there is a headless Service."""
        await self._has_headless.wait()
        await self._all_pods.run()

    async def _keep_names(self) -> None:
        await self._services.synced.wait()
        self._names_stale.set()
        while True:
            await self._names_stale.wait()
            self._names_stale.clear()
            names = hosts.entries(self._services.items.values(), self._all_pods.items.values())
            services = [
                {
                    "metadata": {key: found["metadata"][key] for key in ("namespace", "name")},
                    "spec": found["spec"],
                }
                for found in self._services.items.values()
            ]
            try:  # for a start while cut off
                if services != self._kept_services:
                    self._cache.save("services", services)
                    self._kept_services = services
                if names != self._names:
                    self._cache.save("names", names)
            except OSError as error:
                log.error("no copy of the Services can be kept: %s", error)
            if names != self._names:
                self._names = names
                for worker in self.workers.values():
                    try:
                        worker.write_hosts()
                    except OSError as error:
                        log.warning(
                            "pod %s: its hosts can't be written: %s", podspec.label(worker.pod), error
                        )
            await asyncio.sleep(_NAMES_DELAY_S)  # many changes at once are one rewrite

    # Listening on all addresses

    async def _check_binds(self) -> None:
        seen: set[int] = set()
        while True:
            await asyncio.sleep(self.context.settings.bind_check_s)
            listeners = await asyncio.to_thread(bind_watch.read_listeners)
            fresh = set(listeners) - seen
            seen = set(listeners)
            if not fresh:
                continue
            by_pid = {
                pid: (worker, name)
                for worker in self.workers.values()
                for name, pid in worker.runs.pids.items()
            }
            found = await asyncio.to_thread(bind_watch.owners, fresh, list(by_pid))
            for inode, pid in found.items():
                worker, name = by_pid[pid]
                self._warn_bind(worker, name, listeners[inode])

    def _warn_bind(self, worker: PodWorker, name: str, port: int) -> None:
        container = worker.record.containers[name]
        if port in container.warned_ports:
            return
        container.warned_ports.add(port)
        text = (
            f"Container {name} listens on all addresses at port {port}: here all pods share the machine's loopback, "
            f"so it takes the port from every other pod. Bind status.podIP ({worker.record.ip}) instead"
        )
        worker.event("Warning", "BindsAllAddresses", text, name)


def runtime_dir(node: NodeLayout) -> Path:
    """Where the node's runtime keeps its containers."""
    return node.directory / "runtime"


def _name_parts(pod: Object | None) -> tuple[Any, ...] | None:
    """What of a pod its names depend on."""
    if pod is None:
        return None
    status = pod.get("status") or {}
    ready = [c["status"] for c in status.get("conditions") or [] if c["type"] == "Ready"]
    over = status.get("phase") in podspec.FINISHED
    return status.get("podIP"), over, ready, pod["metadata"].get("labels")


async def _forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it again when it fails: a fault in one duty must not take the others, and the pods' care, with it."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a duty of the agent failed and begins anew")
        await asyncio.sleep(_AGAIN_S)
