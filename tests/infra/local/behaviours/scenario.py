"""How a behaviour is written, and how all behaviours of a module run at the same time.

    @behaviour("[sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]")
    async def test_submitted_and_removed(space: Space) -> None: ...

The name is meant to be upstream's (v1.37), so that the case can be looked up there; nothing holds it against a list of
upstream's. What stands here is our own. Most of a behaviour's time is waiting, so the
first test of a module starts all of the module's behaviours (each in a namespace of its own) and every test awaits
its own. `differs` and `refused` say in words what is otherwise than upstream has it; the test then holds that. A `long`
one is started with the cluster and asked for at the very end; it takes `begun`, which it sets when it only waits.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from switchboard.kube import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from tests.infra.local.behaviours.cluster import TICK_S, Cluster, Space

Scenario = Callable[..., Awaitable[None]]

AT_ONCE = 14
"""Behaviours under way at once: more would make the machine slow rather than the tests fast."""


@dataclass(frozen=True)
class Behaviour:
    """One line of the list: upstream's name, how it is here, and the test that holds it."""

    name: str
    result: str
    note: str
    test: str


LIST: list[Behaviour] = []


def _note(scenario: Scenario, names: tuple[str, ...], differs: str, refused: str) -> None:
    result = "differs" if differs else "refused" if refused else "works"
    place = f"{scenario.__module__.rpartition('behaviours.')[2].replace('.', '/')}.py::{scenario.__name__}"
    LIST.extend(Behaviour(name, result, differs or refused, place) for name in names)


def _look_like(test: Any, scenario: Scenario) -> None:
    test.__name__, test.__doc__, test.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
    test.scenario = scenario


def behaviour(
    *names: str, differs: str = "", refused: str = "", long: bool = False
) -> Callable[[Scenario], Callable[..., Awaitable[None]]]:
    """Make a test of a scenario that shows these behaviours."""

    def make(scenario: Scenario) -> Callable[..., Awaitable[None]]:
        async def test(together: Together, request: pytest.FixtureRequest) -> None:
            await together.result(request.node.nodeid)

        _note(scenario, names, differs, refused)
        _look_like(test, scenario)
        if long:
            test = pytest.mark.long(test)
        for name in names:
            test = pytest.mark.behaviour(name)(test)
        return test

    return make


def behaviours(cases: Mapping[str, Any]) -> Callable[[Scenario], Callable[..., Awaitable[None]]]:
    """Several behaviours that differ in one value only: name → what the scenario gets as `case`."""

    def make(scenario: Scenario) -> Callable[..., Awaitable[None]]:
        async def test(together: Together, request: pytest.FixtureRequest, case: Any) -> None:
            await together.result(request.node.nodeid)

        _note(scenario, tuple(cases), "", "")
        _look_like(test, scenario)
        listed = [
            pytest.param(value, marks=pytest.mark.behaviour(name), id=str(number))
            for number, (name, value) in enumerate(cases.items())
        ]
        return pytest.mark.parametrize("case", listed)(test)

    return make


@asynccontextmanager
async def space_of(cluster: Cluster, name: str) -> AsyncIterator[Space]:
    """A namespace that takes pods; removed at the end, without waiting for it."""
    made = await cluster.kube.create(NAMESPACES, {"metadata": {"generateName": f"{name[:40]}-"}})
    space = Space(cluster, made["metadata"]["name"])
    try:
        await space.until("default", bool, SERVICE_ACCOUNTS)
        await space.until("kube-root-ca.crt", bool, CONFIG_MAPS)
        yield space
    finally:
        await cluster.kube.delete(NAMESPACES, space.name)


def is_scenario(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "function", None), "scenario")


def is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None


class Together:
    """Behaviours under way."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, asyncio.Event] = {}

    def start(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.nodeid not in self._tasks:
                self._begun[item.nodeid] = asyncio.Event()
                run = self._run(item)
                task = run if is_long(item) else self._in_turn(run)
                self._tasks[item.nodeid] = asyncio.create_task(task)

    async def _in_turn(self, run: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._slots:
                await run
        finally:
            run.close()

    async def _run(self, item: pytest.Item) -> None:
        scenario: Scenario = item.function.scenario  # type: ignore[attr-defined]
        callspec = getattr(item, "callspec", None)
        given: dict[str, Any] = {"case": callspec.params["case"]} if callspec else {}
        if "cluster" in inspect.signature(scenario).parameters:
            given["cluster"] = self._cluster
        if "begun" in inspect.signature(scenario).parameters:
            given["begun"] = self._begun[item.nodeid]
        name = scenario.__name__.removeprefix("test_").replace("_", "-")[:40].strip("-")
        async with space_of(self._cluster, name) as space:
            await scenario(space, **given)

    async def begun(self) -> None:
        """Returns when all only wait, and say so: the loop may stand still then for long, between two tests."""
        while any(not self._begun[id].is_set() and not task.done() for id, task in self._tasks.items()):
            await asyncio.sleep(TICK_S)

    async def result(self, nodeid: str) -> None:
        await self._tasks[nodeid]

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
