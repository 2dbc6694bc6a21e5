"""The behaviours' cluster as a test sees it: a real control plane with a scheduler, and waits on what it shows.

Waits look at watches, not at the clock: each kind that a test waits for is watched once for all tests, and every
version of a pod that was seen is kept, so that a test can also say what a pod must never have been. A condition is
asked of every version that comes: what holds for a moment only is seen too, however busy the loop is. What a node
never reported (its agent reports what it finds when its last report is through) nobody can wait for.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from infra.local.toolchain import locate
from switchboard.informer import Informer, Key
from switchboard.kube import EVENTS, PODS, ApiError, Kind, Kube, Object
from tests.conftest import ControlPlane

WAIT_S = 120.0
TICK_S = 0.25


class Watched:
    """A live copy of all objects of a kind; `history` has every version that was seen, by uid."""

    def __init__(self, kube: Kube, kind: Kind) -> None:
        self.kind = kind
        self.history: dict[str, list[Object]] = defaultdict(list)
        self._informer = Informer(kube, kind, on_change=self._changed)
        self._asked: dict[asyncio.Future[Any], Callable[[], Any]] = {}
        self.task = asyncio.create_task(self._informer.run())

    def _changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        if new is not None and self.kind is PODS:
            self.history[new["metadata"]["uid"]].append(new)
        if self._informer.synced.is_set():
            for future, holds in self._asked.items():
                _ask(future, holds)

    def items(self, namespace: str = "") -> list[Object]:
        return [item for (space, _), item in self._informer.items.items() if namespace in ("", space)]

    def get(self, namespace: str, name: str) -> Object | None:
        return self._informer.items.get((namespace, name))

    async def until(
        self, holds: Callable[[], Any], what: Callable[[], str], timeout_s: float = WAIT_S
    ) -> Any:
        """What `holds` gives as soon as it is true; a field that isn't there yet is not true yet.

        The time is that in which the loop runs: it stands still between two tests.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[future] = holds
        left_s = timeout_s
        try:
            while left_s > 0:
                if self._informer.synced.is_set():
                    _ask(future, holds)
                done, _ = await asyncio.wait({future}, timeout=TICK_S)
                if done:
                    return future.result()
                left_s -= TICK_S
            raise AssertionError(f"not within {timeout_s:g} s: {what()}")
        finally:
            del self._asked[future]


def _ask(future: asyncio.Future[Any], holds: Callable[[], Any]) -> None:
    """Tell the future what the condition gives, if it is true (or fails)."""
    if future.done():
        return
    try:
        if found := holds():
            future.set_result(found)
    except (KeyError, IndexError, StopIteration, TypeError):
        pass
    except Exception as error:
        future.set_exception(error)


@dataclass
class Cluster:
    """The control plane with its nodes; `watch` is shared by all tests."""

    plane: ControlPlane
    kube: Kube
    agents: asyncio.subprocess.Process
    _watched: dict[str, Watched] = field(default_factory=dict)

    def watch(self, kind: Kind) -> Watched:
        if kind.plural not in self._watched:
            self._watched[kind.plural] = Watched(self.kube, kind)
        return self._watched[kind.plural]

    async def restart_node(self, name: str) -> None:
        """The node goes down with its pods and comes up again; its volumes stay."""
        assert self.agents.stdin is not None
        assert self.agents.stdout is not None
        self.agents.stdin.write(f"{name}\n".encode())
        async with asyncio.timeout(WAIT_S):
            await self.agents.stdout.readline()

    async def close(self) -> None:
        for watched in self._watched.values():
            watched.task.cancel()
        await asyncio.gather(*(watched.task for watched in self._watched.values()), return_exceptions=True)

    async def _start_kubectl(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(locate(["kubectl"]).path("kubectl")),
            f"--kubeconfig={self.plane.kubeconfig}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(self.plane.layout.directory)},
        )

    @asynccontextmanager
    async def kubectl_running(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A kubectl that goes on until it is ended."""
        process = await self._start_kubectl(*arguments)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def kubectl(self, *arguments: str, stdin: str = "", ok: bool = True) -> str:
        """What the real kubectl says (both streams); with `ok` it must succeed."""
        process = await self._start_kubectl(*arguments)
        output, _ = await process.communicate(stdin.encode())
        text = output.decode()
        assert not ok or process.returncode == 0, f"kubectl {' '.join(arguments)}: {text}"
        return text


@dataclass(frozen=True)
class Space:
    """A namespace of a test's own, and waits in it."""

    cluster: Cluster
    name: str

    @property
    def kube(self) -> Kube:
        return self.cluster.kube

    async def create(self, kind: Kind, body: Object) -> Object:
        return await self.kube.create(kind, body, self.name)

    async def pod(self, body: Object) -> Object:
        return await self.create(PODS, body)

    async def get(self, name: str, kind: Kind = PODS) -> Object:
        return await self.kube.get(kind, name, self.name)

    async def patch(self, name: str, body: Object, kind: Kind = PODS, **more: Any) -> Object:
        return await self.kube.patch(kind, name, body, self.name, **more)

    async def delete(self, name: str, kind: Kind = PODS, **more: Any) -> None:
        await self.kube.delete(kind, name, self.name, **more)

    async def until(
        self, name: str, holds: Callable[[Object], Any], kind: Kind = PODS, timeout_s: float = WAIT_S
    ) -> Object:
        """The object as soon as the condition holds of it."""
        watched = self.cluster.watch(kind)

        def check() -> Object | None:
            item = watched.get(self.name, name)
            return item if item is not None and holds(item) else None

        def what() -> str:
            item = watched.get(self.name, name)
            return f"{kind.kind} {name}: {'not there' if item is None else item.get('status')}"

        found: Object = await watched.until(check, what, timeout_s)
        return found

    async def gone(self, name: str, kind: Kind = PODS, timeout_s: float = WAIT_S) -> None:
        watched = self.cluster.watch(kind)
        await watched.until(
            lambda: watched.get(self.name, name) is None,
            lambda: f"{kind.kind} {name} is still there",
            timeout_s,
        )

    def all(self, kind: Kind = PODS, **labels: str) -> list[Object]:
        """The namespace's objects that carry all these labels, by name, as last seen."""
        items = self.cluster.watch(kind).items(self.name)
        found = [i for i in items if labels.items() <= (i["metadata"].get("labels") or {}).items()]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    async def until_all(
        self,
        holds: Callable[[list[Object]], Any],
        kind: Kind = PODS,
        timeout_s: float = WAIT_S,
        **labels: str,
    ) -> list[Object]:
        """The objects as soon as the condition holds of all of them together."""
        watched = self.cluster.watch(kind)

        def check() -> list[Object] | None:
            items = self.all(kind, **labels)
            return (items or [{}]) if holds(items) else None

        def what() -> str:
            shown = {i["metadata"]["name"]: i.get("status") for i in self.all(kind, **labels)}
            return f"{kind.kind}s of {self.name}: {shown}"

        return [item for item in await watched.until(check, what, timeout_s) if item]

    def seen(self, pod: Object) -> list[Object]:
        """Every version of a pod that the watch showed, first to last."""
        return self.cluster.watch(PODS).history[pod["metadata"]["uid"]]

    async def once(self, pod: Object, holds: Callable[[Object], Any]) -> Object:
        """The first version of a pod of which the condition holds, be it past and the pod gone."""

        def check() -> Object | None:
            for version in self.seen(pod):
                with suppress(KeyError, IndexError, StopIteration, TypeError):
                    if holds(version):
                        return version
            return None

        watched = self.cluster.watch(PODS)
        found: Object = await watched.until(check, lambda: f"never so: {self.seen(pod)[-1:]}")
        return found

    async def log(self, name: str, container: str = "main", **query: str) -> str:
        """As `kubectl logs` gets it."""
        path = PODS.path(self.name, name, "log")
        return str(await self.kube.request("GET", path, params={"container": container, **query}))

    async def said(self, name: str, text: str, container: str = "main") -> None:
        """Wait until the container has logged exactly that: one that runs may not have come to its first word."""
        log = ""
        for _ in range(round(WAIT_S / TICK_S)):
            if (log := await self.log(name, container)) == text:
                return
            await asyncio.sleep(TICK_S)
        raise AssertionError(f"{name} said {log!r}, not {text!r}")

    async def first_word(self, name: str) -> str:
        """What a container that runs has logged first."""
        for _ in range(round(WAIT_S / TICK_S)):
            if words := (await self.log(name)).split():
                return words[0]
            await asyncio.sleep(TICK_S)
        raise AssertionError(f"{name} has said nothing")

    async def output(self, body: Object, container: str = "main") -> str:
        """What a pod that must succeed has printed."""
        made = await self.pod(body)
        name = made["metadata"]["name"]
        done = await self.until(name, lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
        text = await self.log(name, container)
        assert done["status"]["phase"] == "Succeeded", f"{done['status']}\n{text}"
        return text

    async def event(self, name: str, reason: str, saying: str = "", timeout_s: float = WAIT_S) -> Object:
        """An event of that reason about that object; they come a little after what they tell of."""
        watched = self.cluster.watch(EVENTS)

        def about() -> list[Object]:
            return [e for e in watched.items(self.name) if e["involvedObject"]["name"] == name]

        def what() -> str:
            return f"event {reason} about {name}: {[(e['reason'], e['message']) for e in about()]}"

        found: Object = await watched.until(
            lambda: next((e for e in about() if e["reason"] == reason and saying in e["message"]), None),
            what,
            timeout_s,
        )
        return found

    async def refused(self, kind: Kind, body: Object) -> ApiError:
        """The API server's refusal of an object."""
        try:
            await self.create(kind, body)
        except ApiError as error:
            return error
        raise AssertionError(f"{kind.kind} {body['metadata']['name']} was accepted")

    async def evict(self, name: str) -> None:
        """Raises ApiError: 429 where a budget forbids it."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        await self.kube.create(
            PODS,
            {**body, "metadata": {"name": name, "namespace": self.name}},
            name=name,
            subresource="eviction",
        )

    async def kubectl(self, *arguments: str, stdin: str = "", ok: bool = True) -> str:
        return await self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin, ok=ok)
