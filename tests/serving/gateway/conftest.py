"""A gateway as it is in its pod, for one test: a real Envoy, the agent as a process, and backends as processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from switchboard.kube import Credentials, Kube
from tests import pods
from tests.conftest import ControlPlane, free_subnets
from tests.serving.gateway.world import World


@pytest.fixture(scope="session")
def subnets() -> Iterator[str]:
    """Loopback networks for one gateway and its backends each, of nobody else's on the machine."""
    return free_subnets("127.35")


@pytest.fixture
def gateway_environ() -> dict[str, str]:
    return {"GATEWAY_TIER": "core", "GATEWAY_REGION": "cn-shenzhen"}


@pytest.fixture
async def world(
    control_plane: ControlPlane, tmp_path: Path, subnets: Iterator[str], gateway_environ: dict[str, str]
) -> AsyncIterator[World]:
    async with (
        Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session,
    ):
        space = await pods.namespace(kube, f"gateway-{os.urandom(4).hex()}")
        subnet = next(subnets)
        environ = {
            "POD_IP": f"{subnet}.2",
            "POD_NAME": "gateway-0",
            "POD_NAMESPACE": space,
            "CONFIG_DIR": str(tmp_path),
            # What waits for a replica is to wait for as long as a busy machine takes to start one.
            "HOLD_S": "120",
            **gateway_environ,
        }
        made = World(kube, space, control_plane.kubeconfig, tmp_path, subnet, environ, session)
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()
                process.wait()


@pytest.fixture
async def gateway(world: World) -> World:
    """A world whose gateway runs."""
    await world.start()
    return world
