"""A real API server with the definition of ModelServers in force, and namespaces of a test's own in it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest_asyncio

from switchboard.kube import NAMESPACES, Credentials, Kube
from tests.conftest import ControlPlane
from tests.definitions import define_model_servers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig), timeout_s=30) as found:
        await define_model_servers(found)
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(api: Kube) -> AsyncIterator[str]:
    name = f"operators-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    await api.delete(NAMESPACES, name)
