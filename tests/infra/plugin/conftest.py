"""A provider against the real API server, with a small engine that does what Pulumi's does with one resource."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.plugin.check import Naming
from infra.plugin.config import Config
from infra.plugin.host import Host
from infra.plugin.resources import Resources
from infra.plugin.wire import Properties
from infra.plugin.writer import InitFailed
from switchboard.informer import Informer
from switchboard.kube import NAMESPACES, PODS, Credentials, Kube, Object
from tests.conftest import ControlPlane, run_apart
from tests.infra.plugin.project import Project, in_cluster
from tests.infra.plugin.project import namespace as namespace_of
from tests.infra.plugin.rpc import Remote, served

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


class SpyHost(Host):
    """A host without an engine that remembers what it was told to show."""

    def __init__(self) -> None:
        super().__init__(None)
        self.statuses: list[str] = []

    async def status(self, text: str, urn: str) -> None:
        self.statuses.append(text)


class Engine:
    """Registers resources as Pulumi does: check, diff, then create, update or replace; keeps their states."""

    def __init__(self, resources: Resources | Remote, kube: Kube, namespace: str, host: SpyHost) -> None:
        self._resources = resources
        self.kube = kube
        self.namespace = namespace
        self.host = host
        self.ids: dict[str, str] = {}
        self.states: dict[str, Properties] = {}
        self.inputs: dict[str, Properties] = {}
        self.failed: dict[str, InitFailed] = {}

    @property
    def resources(self) -> Any:
        return self._resources

    def urn(self, type_: str, name: str) -> str:
        return f"urn:pulumi:t::p::{type_}::{name}"

    async def check(self, type_: str, name: str, news: Properties, olds: Properties | None) -> Properties:
        inputs, failures = await self.resources.check(type_, news, olds, Naming(name, os.urandom(8)))
        assert not failures, failures
        return inputs

    async def up(
        self, type_: str, name: str, news: Properties, *, ignore: tuple[str, ...] = (), timeout_s: float = 120
    ) -> str:
        """Make it so; says how: `created`, `same`, `updated`, `replaced` or `replaced (deleted first)`."""
        news = {"metadata": {"namespace": self.namespace}, **news}
        if name not in self.states:
            await self._create(type_, name, await self.check(type_, name, news, None), timeout_s)
            return "created"
        inputs = await self.check(type_, name, news, self.inputs[name])
        state = self.states[name]
        found = await self.resources.diff(type_, state, self.inputs[name], inputs, list(ignore))
        if found.replaces:
            return await self._replace(type_, name, news, found.delete_before_replace, timeout_s)
        if not found.changes and name not in self.failed:
            return "same"
        try:
            self.states[name] = await self.resources.update(
                self.urn(type_, name), type_, state, inputs, list(ignore), timeout_s, False
            )
        except InitFailed as failure:
            self._keep(name, failure, inputs)
            raise
        self.failed.pop(name, None)
        self.inputs[name] = inputs
        return "updated"

    async def _create(self, type_: str, name: str, inputs: Properties, timeout_s: float) -> None:
        try:
            id_, state = await self.resources.create(self.urn(type_, name), type_, inputs, timeout_s, False)
        except InitFailed as failure:
            self._keep(name, failure, inputs)
            raise
        self.ids[name], self.states[name], self.inputs[name] = id_, state, inputs

    def _keep(self, name: str, failure: InitFailed, inputs: Properties) -> None:
        self.ids[name], self.states[name], self.inputs[name] = failure.id, failure.properties, inputs
        self.failed[name] = failure

    async def _replace(
        self, type_: str, name: str, news: Properties, delete_first: bool, timeout_s: float
    ) -> str:
        inputs = await self.check(type_, name, news, None)
        id_, state = self.ids[name], self.states[name]
        urn = self.urn(type_, name)
        if delete_first:
            await self.resources.delete(urn, type_, id_, state, timeout_s)
        await self._create(type_, name, inputs, timeout_s)
        if not delete_first:
            await self.resources.delete(urn, type_, id_, state, timeout_s)
        return "replaced (deleted first)" if delete_first else "replaced"

    async def preview(self, type_: str, name: str, news: Properties) -> Properties:
        """The outputs that a preview shows."""
        news = {"metadata": {"namespace": self.namespace}, **news}
        inputs = await self.check(type_, name, news, self.inputs.get(name))
        urn = self.urn(type_, name)
        if name in self.states:
            return await self.resources.update(urn, type_, self.states[name], inputs, [], 0, True)
        id_, outputs = await self.resources.create(urn, type_, inputs, 0, True)
        assert id_ == ""
        return outputs

    async def refresh(self, type_: str, name: str) -> bool:
        """Read it again; whether it's still there."""
        found = await self.resources.read(type_, self.ids[name], self.states[name], self.inputs[name])
        if not found.id:
            del self.ids[name], self.states[name], self.inputs[name]
            return False
        self.states[name], self.inputs[name] = found.properties, found.inputs
        return True

    async def destroy(self, type_: str, name: str) -> None:
        await self.resources.delete(self.urn(type_, name), type_, self.ids[name], self.states[name], 120)
        del self.ids[name], self.states[name], self.inputs[name]

    def name_of(self, name: str) -> str:
        return self.ids[name].rpartition("/")[2]


Provider = Callable[..., Engine]


@pytest.fixture
async def provider(control_plane: ControlPlane) -> AsyncIterator[Provider]:
    """Makes engines with a provider of the given configuration; all share one namespace of the test's own."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    made: list[Resources] = []
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})

        def make(**settings: Any) -> Engine:
            retry_s = settings.pop("retry_s", 5.0)
            config = Config(**{"kubeconfig": str(control_plane.kubeconfig), **settings})
            host = SpyHost()
            made.append(Resources(config, host, retry_s=retry_s))
            return Engine(made[-1], kube, namespace, host)

        yield make
        for resources in made:
            await resources.close()
        await kube.delete(NAMESPACES, namespace)


@pytest.fixture
async def engine(provider: Provider) -> Engine:
    return provider()


Served = Callable[..., Awaitable[Engine]]


@pytest.fixture
async def over_grpc(control_plane: ControlPlane) -> AsyncIterator[Served]:
    """Makes engines that talk to their provider over gRPC; all share one namespace of the test's own."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack, Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})

        async def make(**settings: Any) -> Engine:
            host = SpyHost()
            remote = await stack.enter_async_context(served(host))
            await remote.configure(**{"kubeconfig": str(control_plane.kubeconfig), **settings})
            return Engine(remote, kube, namespace, host)

        yield make
        await kube.delete(NAMESPACES, namespace)


@pytest.fixture
async def remote(over_grpc: Served) -> Engine:
    """An engine whose provider has no settings but the kubeconfig."""
    return await over_grpc()


@pytest.fixture
def objects(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Project]:
    """A project of plain objects in a namespace that isn't its own."""
    project = Project(tmp_path, control_plane)
    project.run("stack", "init", "t")
    run_apart(
        in_cluster(
            project, lambda kube: kube.create(NAMESPACES, {"metadata": {"name": namespace_of(project)}})
        )
    )
    yield project
    run_apart(in_cluster(project, lambda kube: kube.delete(NAMESPACES, namespace_of(project))))


def deployment(*, replicas: int = 1, image: str = "busybox:1", **annotations: str) -> Properties:
    labels = {"app": "web"}
    container = {"name": "app", "image": image, "resources": {"limits": {"cpu": "1000m"}}}
    return {
        "metadata": {"name": "web", "annotations": {f"pulumi.com/{k}": v for k, v in annotations.items()}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }


def in_namespace(engine: Engine, properties: Properties) -> Properties:
    return {**properties, "metadata": {**properties.get("metadata", {}), "namespace": engine.namespace}}


READY = {
    "phase": "Running",
    "conditions": [{"type": type_, "status": "True"} for type_ in ("Ready", "ContainersReady")],
    "containerStatuses": [
        {
            "name": "app",
            "ready": True,
            "image": "i",
            "imageID": "",
            "restartCount": 0,
            "state": {"running": {}},
        }
    ],
}


@asynccontextmanager
async def kubelet(engine: Engine, status: Object = READY) -> AsyncIterator[None]:
    """In place of nodes: gives every pod of the namespace this status."""
    tasks: set[asyncio.Task[Any]] = set()

    def on_change(_: object, old: Object | None, new: Object | None) -> None:
        if old is None and new is not None:
            name = new["metadata"]["name"]
            body = {"status": status}
            tasks.add(
                asyncio.ensure_future(
                    engine.kube.patch(
                        PODS, name, body, engine.namespace, patch_type="strategic", subresource="status"
                    )
                )
            )

    informer = Informer(engine.kube, PODS, namespace=engine.namespace, on_change=on_change)
    running = asyncio.ensure_future(informer.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, *tasks, return_exceptions=True)
