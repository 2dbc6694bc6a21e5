"""A node agent on the tests' control plane, and a namespace for each test."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from infra.local.node.agent import Agent
from infra.local.node.context import Settings
from infra.local.node.lifecycle import BackOff
from infra.local.node.stop import stop_pods
from switchboard.kube import (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    Credentials,
    Kind,
    Kube,
    Object,
)
from tests.conftest import ControlPlane

NODE = "public-2"
WAIT_S = 120.0
SETTINGS = Settings(
    back_off=BackOff(first_s=0.3, most_s=3.0),
    refresh_s=0.5,
    bind_check_s=0.2,
    lease_period_s=2.0,
    disk_check_s=0.5,
    sync_wait_s=5.0,
)


@dataclass
class RunningNode:
    """A node whose agent runs in the tests' event loop; it can be stopped and started again."""

    plane: ControlPlane
    kube: Kube
    agent: Agent = field(init=False)
    task: asyncio.Task[None] | None = None
    clock_is_off: timedelta = timedelta(0)

    async def start(self) -> None:
        self.agent = Agent(self.plane.stack, self.plane.layout, self.plane.layout.node(NODE), SETTINGS)
        self.agent.context.now = lambda: datetime.now(UTC) + self.clock_is_off
        self.task = asyncio.create_task(self.agent.run())
        async with asyncio.timeout(WAIT_S):
            await self.agent.ready.wait()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.task = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def node(control_plane: ControlPlane) -> AsyncIterator[RunningNode]:
    """The node `public-2` of the test site, ready for pods."""
    logging.getLogger("infra.local.node").setLevel(logging.INFO)
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        running = RunningNode(control_plane, kube)
        await running.start()
        try:
            await running.agent.registration.registered.wait()
            yield running
        finally:
            await running.stop()
            await stop_pods(control_plane.layout.node(NODE), bound_s=0.5)
            for pod in await kube.list(PODS, field_selector=f"spec.nodeName={NODE}"):
                meta = pod["metadata"]
                await kube.delete(PODS, meta["name"], meta["namespace"], grace_period_s=0)
            await kube.delete(NODES, NODE)


@dataclass(frozen=True)
class Space:
    """A namespace of its own, and waits on conditions in it."""

    kube: Kube
    name: str

    async def create(self, kind: Kind, body: Object) -> Object:
        return await self.kube.create(kind, body, self.name)

    async def get(self, name: str, kind: Kind = PODS) -> Object:
        return await self.kube.get(kind, name, self.name)

    async def run(self, name: str, *command: str, pod: Object | None = None, **container: Any) -> Object:
        """Create a pod of one container `main` on the node; `pod` are further fields of its spec."""
        body = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": NODE,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "main", "image": "debian:bookworm", "command": list(command), **container}
                ],
                **(pod or {}),
            },
        }
        return await self.create(PODS, body)

    async def until(self, name: str, holds: Callable[[Object], Any], kind: Kind = PODS) -> Object:
        """The object as soon as the condition holds of it."""
        last: Object | None = None
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    last = await self.kube.get_or_none(kind, name, self.name)
                    with contextlib.suppress(KeyError, IndexError, StopIteration):
                        if last is not None and holds(last):
                            return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            status = (last or {}).get("status")
            raise AssertionError(f"{kind.kind} {name}: still not so after {WAIT_S:g} s: {status}") from None

    async def gone(self, name: str, kind: Kind = PODS) -> None:
        await wait(lambda: self._missing(name, kind), f"{kind.kind} {name} is still there")

    async def _missing(self, name: str, kind: Kind) -> bool:
        return await self.kube.get_or_none(kind, name, self.name) is None

    async def log(self, name: str, container: str = "main", **query: str) -> str:
        """As `kubectl logs` gets it: through the API server, from the node."""
        path = PODS.path(self.name, name, "log")
        return str(await self.kube.request("GET", path, params={"container": container, **query}))

    async def said(self, name: str, text: str) -> None:
        """Wait until it has logged exactly that: one that runs may not have come to its first word."""

        async def so() -> bool:
            return await self.log(name) == text

        await wait(so, f"{name} has not said {text!r}")

    async def event(self, name: str, reason: str) -> Object:
        """The event of that reason about that object, once it is there."""
        found: list[Object] = []

        async def there() -> bool:
            selector = f"involvedObject.name={name},reason={reason}"
            found[:] = await self.kube.list(EVENTS, self.name, field_selector=selector)
            return bool(found)

        await wait(there, f"no event {reason} about {name}")
        return found[0]


async def wait(condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(otherwise) from None


@pytest.fixture
async def space(node: RunningNode) -> AsyncIterator[Space]:
    created = await node.kube.create(NAMESPACES, {"metadata": {"generateName": "node-"}})
    own = Space(node.kube, created["metadata"]["name"])
    await own.until("default", bool, SERVICE_ACCOUNTS)
    await own.until("kube-root-ca.crt", bool, CONFIG_MAPS)
    yield own
    await node.kube.delete(NAMESPACES, own.name)


def main(pod: Object) -> Object:
    """The status of the container `main`."""
    return next(c for c in pod["status"]["containerStatuses"] if c["name"] == "main")


def condition(pod: Object, kind: str) -> str:
    return str(next(c["status"] for c in pod["status"]["conditions"] if c["type"] == kind))


def is_ready(pod: Object) -> bool:
    return condition(pod, "Ready") == "True"
