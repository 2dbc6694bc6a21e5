"""Faults that the Kubernetes API causes, in a real API server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from loadtests import breaking
from loadtests.breaking import NO_SUCH_VERSION, Breaker, Cloud, Place
from loadtests.faults import FAULTS, LEAD_S, Name
from switchboard.errors import SwitchboardError
from switchboard.kinds import DEPLOYMENTS, MODEL_SERVERS, PODS
from switchboard.kube import ApiError, Credentials, Kube, Object, Unreachable
from switchboard.labels import MODEL_SERVER, TIER
from tests import pods
from tests.conftest import ControlPlane
from tests.definitions import define_model_servers


@dataclass
class World:
    kube: Kube
    space: str
    place: Place

    @property
    def cloud(self) -> Cloud:
        return Cloud(self.place, self.kube, None, embedded=False, stack="staging")

    async def pod(self, name: str, *, tier: str = "core", **labels: str) -> None:
        await pods.pod(
            self.kube,
            self.space,
            name,
            ip="127.0.0.1",
            labels={TIER: tier, **labels},
            ports={"http": 8080},
        )

    async def ending(self) -> set[str]:
        """Pods that are told to end."""
        found = await self.kube.list(PODS, self.space)
        return {one["metadata"]["name"] for one in found if "deletionTimestamp" in one["metadata"]}


@pytest.fixture
async def world(control_plane: ControlPlane) -> AsyncIterator[World]:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    async with Kube(credentials) as kube:
        space = await pods.namespace(kube, f"breaking-{os.urandom(4).hex()}")
        yield World(kube, space, Place(credentials, None, None, "private", space, "chat"))


def server() -> Object:
    return {
        "apiVersion": MODEL_SERVERS.api_version,
        "kind": MODEL_SERVERS.kind,
        "metadata": {"name": "chat"},
        "spec": {
            "model": {"name": "chat-intent", "alias": "champion"},
            "image": "switchboard.dev/switchboard:0.1.0",
            "dataClass": "internal",
            "resources": {"memory": "512Mi"},
            "scaling": {"minReplicas": 2, "maxReplicas": 6},
        },
    }


async def test_a_pod_that_serves_is_killed_and_no_other(world: World) -> None:
    await world.pod("chat-b", **{MODEL_SERVER: "chat"})
    await world.pod("chat-a", **{MODEL_SERVER: "chat"})
    await world.pod("aside", **{MODEL_SERVER: "voice"})
    await world.pod("an-edge", tier="edge", **{MODEL_SERVER: "chat"})
    async with world.cloud.fault(FAULTS[Name.KILL_POD]) as (target, begun_s):
        assert target == "pod/chat-a"
        assert begun_s > 0
        assert await world.ending() == {"chat-a"}


async def test_a_gateway_is_found_by_its_name(world: World) -> None:
    await world.pod("gateway-x", **{"app.kubernetes.io/name": "gateway"})
    await world.pod("gateway-edge", tier="edge", **{"app.kubernetes.io/name": "gateway-cn-beijing"})
    async with world.cloud.fault(FAULTS[Name.KILL_GATEWAY]) as (target, _):
        assert target == "pod/gateway-x"


@pytest.mark.parametrize("name", [Name.FREEZE_POD, Name.SLOW_POD, Name.FILL_MEMORY, Name.RESTART_API_SERVER])
async def test_what_the_api_has_no_means_for_is_said(world: World, name: Name) -> None:
    await world.pod("chat-a", **{MODEL_SERVER: "chat"})
    with pytest.raises(SwitchboardError, match="no means for it"):
        async with world.cloud.fault(FAULTS[name]):
            pass
    assert await world.ending() == set()


async def test_where_nothing_serves_nothing_is_broken(world: World) -> None:
    with pytest.raises(SwitchboardError, match="none is ready"):
        async with world.cloud.fault(FAULTS[Name.KILL_POD]):
            pass
    with pytest.raises(SwitchboardError, match="no context of the core site"):
        async with world.cloud.fault(FAULTS[Name.RESTART_MLFLOW]):
            pass


@pytest.mark.parametrize("fails", [False, True])
async def test_a_new_revision_and_the_old_one_again(world: World, fails: bool) -> None:
    await define_model_servers(world.kube)
    await world.kube.create(MODEL_SERVERS, server(), world.space)

    async def spec() -> Object:
        return (await world.kube.get(MODEL_SERVERS, "chat", world.space))["spec"]

    before = await spec()
    try:
        async with world.cloud.fault(FAULTS[Name.ROLL_OUT]):
            assert (await spec())["resources"]["memory"] == "513Mi"
            if fails:
                raise RuntimeError("something else")
    except RuntimeError:
        assert fails
    assert await spec() == before
    async with world.cloud.fault(FAULTS[Name.ROLL_OUT_BROKEN]):
        assert (await spec())["model"] == {"name": "chat-intent", "version": NO_SUCH_VERSION}
    assert await spec() == before


async def test_the_next_one_waits_until_all_is_whole(world: World) -> None:
    body = {
        "metadata": {"name": "chat"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "chat"}},
            "template": {
                "metadata": {"labels": {"app": "chat"}},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
            },
        },
    }
    made = await world.kube.create(DEPLOYMENTS, body, world.space)
    waiting = asyncio.create_task(world.cloud.whole())
    done, _ = await asyncio.wait([waiting], timeout=2.5)
    assert not done
    status = {
        "observedGeneration": made["metadata"]["generation"],
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
    }

    async def whole() -> bool:
        """The controller, which sees no ready pod, writes its own meanwhile."""
        await world.kube.patch(DEPLOYMENTS, "chat", {"status": status}, world.space, subresource="status")
        return waiting.done()

    await pods.until(whole)


def test_what_had_no_turn_is_told(world: World) -> None:
    """A run that is over, or was ended, before the first one's time."""
    names = (Name.KILL_POD, Name.LOSE_NODE)
    with Breaker(world.place, names, embedded=False, stack="staging") as breaker:
        breaker.begin()
    assert LEAD_S > 1
    assert [one.name for one in breaker.happened] == list(names)
    assert all(one.problem == "the run ended before its turn" for one in breaker.happened)


async def test_what_was_done_is_undone_when_the_api_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaking, "LOOK_S", 0.0)
    answers = iter([Unreachable("refused"), ApiError(503, "ServiceUnavailable", "not yet"), None])
    tried = []

    async def undo() -> None:
        tried.append(next(answers))
        if tried[-1] is not None:
            raise tried[-1]

    await breaking._insist(undo)
    assert len(tried) == 3
    answers = iter([ApiError(404, "NotFound", "it has gone")])
    with pytest.raises(ApiError, match="it has gone"):
        await breaking._insist(undo)
