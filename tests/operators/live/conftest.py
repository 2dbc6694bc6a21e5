"""One world with two operators for the tests of a module: each has ModelServers of its own in it, and leaves the world
as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest
import pytest_asyncio

from switchboard.kube import Kube
from tests.conftest import ControlPlane
from tests.operators.live.rig import Rig, rig


# Of a module: while it lasts, its simulated nodes take the pods of all who share the control plane.
@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(
    api: Kube, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    async with rig(api, control_plane.kubeconfig, tmp_path_factory.mktemp("operator")) as made:
        for number in range(2):
            await made.operator(f"operator-{number}")
        yield made


Scenario = Callable[[Rig], Coroutine[Any, Any, None]]


class Together:
    """Runs all scenarios that pytest was asked for at once, from the first that somebody waits for."""

    def __init__(self, world: Rig, scenarios: Sequence[Scenario]) -> None:
        self._world, self._scenarios = world, scenarios
        self._tasks: dict[Scenario, asyncio.Task[None]] = {}

    async def result(self, scenario: Scenario) -> None:
        """Raises what it raises."""
        if not self._tasks:
            self._tasks = {one: asyncio.create_task(one(self._world)) for one in self._scenarios}
        await self._tasks[scenario]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def together(world: Rig, request: pytest.FixtureRequest) -> Together:
    """For a module whose tests are all of one function with a parameter `one`, the scenario."""
    chosen = [
        item.callspec.params["one"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    return Together(world, chosen)
