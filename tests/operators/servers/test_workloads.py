"""What is written of a ModelServer, at a real API server: by whom, and what is left alone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from operators.facts import APPLIED, SCALER
from operators.scaling.values import Decision, Observation
from operators.servers.registry import Registry
from operators.servers.server import Server, Step
from operators.servers.workloads import MANAGER, Gone, Superseded, Workloads, first_replicas
from operators.view import View
from switchboard import labels, workload
from switchboard.api.conditions import Condition
from switchboard.api.model_server import MODEL_SERVERS, MOST_DECISIONS, LastDecision, Status
from switchboard.api.scaling import MOST_REPLICAS
from switchboard.kinds import POD_DISRUPTION_BUDGETS
from switchboard.kube import (
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    ApiError,
    Kube,
    Object,
)
from tests.operators.servers.build import AT, NOW, spec

LONG_S = 60.0
SPEC: Object = {
    "model": {"name": "chat-intent", "alias": "champion"},
    "image": "switchboard.dev/switchboard:0.1.0",
    "dataClass": "internal",
    "scaling": {"maxReplicas": 20},
}


@dataclass
class World:
    """A namespace with a view of it, and what writes in it."""

    kube: Kube
    namespace: str
    view: View
    workloads: Workloads = field(init=False)
    writes: int = 0
    leads: bool = True

    def __post_init__(self) -> None:
        self.workloads = Workloads(self.kube, self.view, on_write=self._wrote, may_write=lambda: self.leads)

    def _wrote(self) -> None:
        self.writes += 1

    async def server(self, name: str = "chat", **changes: Any) -> Server:
        """A ModelServer that is made or changed, as the operator knows it."""
        meta = {"name": name, "namespace": self.namespace, **changes.pop("meta", {})}
        body = {**copy.deepcopy(SPEC), **changes}
        made = await self.kube.apply(MODEL_SERVERS, {"metadata": meta, "spec": body}, field_manager="person")
        return self.known(made)

    @staticmethod
    def known(made: Object, into: Registry | None = None) -> Server:
        registry = into or Registry()
        registry.put(made)
        return registry.servers[made["metadata"]["name"]]

    async def change(self, one: Server, **changes: Any) -> None:
        """It is changed, and the operator is told."""
        registry = Registry()
        registry.servers[one.name] = one
        body = {"metadata": {"name": one.name, "namespace": self.namespace}}
        spec_now = (await self.kube.get(MODEL_SERVERS, one.name, self.namespace))["spec"]
        made = await self.kube.apply(
            MODEL_SERVERS, {**body, "spec": {**spec_now, **changes}}, field_manager="person"
        )
        registry.put(made)

    async def ensure(self, one: Server) -> None:
        """And wait until the view has it."""
        await self.workloads.ensure(one)
        await until(lambda: not self.workloads.outdated(one))

    async def deployment(self, name: str = "chat") -> Object:
        return await self.kube.get(DEPLOYMENTS, name, self.namespace)

    async def replicas(self, name: str = "chat") -> int:
        return int((await self.deployment(name))["spec"]["replicas"])

    async def scaled_by(self, name: str = "chat") -> set[str]:
        """Who owns its number."""
        found = (await self.deployment(name))["metadata"]["managedFields"]
        return {one["manager"] for one in found if "f:replicas" in one["fieldsV1"].get("f:spec", {})}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not holds():
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="session")
async def world(api: Kube, namespace: str) -> AsyncIterator[World]:
    view = View(api, namespace)
    tasks = [asyncio.create_task(one) for one in view.run()]
    try:
        await until(lambda: view.synced)
        yield World(api, namespace, view)
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 1),
        ({"replicas": 4}, 4),
        ({"replicas": 0}, 1),
        ({"scaling": {"minReplicas": 3}}, 3),
        ({"scaling": {"minReplicas": 3}, "replicas": 2}, 3),
        ({"scaling": {"minReplicas": 0}}, 1),
        ({"scaling": {"maxReplicas": 1}}, 1),
    ],
)
def test_where_a_new_one_begins(values: dict[str, Any], expected: int) -> None:
    assert first_replicas(spec(**values)) == expected


async def test_all_of_it_is_made_once(world: World) -> None:
    one = await world.server(replicas=2)
    assert world.workloads.outdated(one)
    await world.ensure(one)
    assert world.writes == 3

    made = await world.deployment()
    claim = await world.kube.get(PERSISTENT_VOLUME_CLAIMS, "chat-models", world.namespace)
    budget = await world.kube.get(POD_DISRUPTION_BUDGETS, "chat", world.namespace)
    uid = one.object["metadata"]["uid"]
    for body in (made, claim, budget):
        assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == [uid]
        assert body["metadata"]["annotations"][APPLIED]
    assert (await world.replicas(), await world.scaled_by()) == (2, {MANAGER})
    assert made["metadata"]["annotations"][APPLIED] == one.applied
    assert (one.verified, one.template_generation) == (1, 1)

    await world.workloads.ensure(one)
    assert world.writes == 3  # there is nothing to write
    assert not world.workloads.outdated(one)


async def test_the_number_is_the_scalers_from_the_first_change_on(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    await world.workloads.scale(one, 5)
    assert (await world.replicas(), await world.scaled_by()) == (5, {SCALER})
    assert (one.told, one.telling) == (5, None)
    assert world.view.deployments["chat"].scaled_by_us
    assert not world.workloads.outdated(one)  # a number is no other template

    await world.change(one, image="switchboard.dev/switchboard:0.2.0")
    assert world.workloads.outdated(one)
    await world.ensure(one)
    made = await world.deployment()
    assert made["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.2.0")
    assert (await world.replicas(), await world.scaled_by()) == (5, {SCALER})
    assert one.template_generation == one.verified == made["metadata"]["generation"]

    scalers = [entry["fieldsV1"] for entry in made["metadata"]["managedFields"] if entry["manager"] == SCALER]
    assert scalers == [{"f:spec": {"f:replicas": {}}}]  # and nothing else is


async def test_a_number_that_a_person_set_stays(world: World) -> None:
    """Until the next decision, which begins with it."""
    one = await world.server()
    await world.ensure(one)
    await world.workloads.scale(one, 5)
    patch = {"spec": {"replicas": 7}}
    await world.kube.patch(DEPLOYMENTS, "chat", patch, world.namespace, params={"fieldManager": "kubectl"})
    await until(lambda: world.view.deployments["chat"].replicas == 7)
    assert world.workloads.outdated(one)  # somebody has changed something
    await world.ensure(one)
    assert await world.replicas() == 7
    await world.workloads.scale(one, 6)
    assert (await world.replicas(), await world.scaled_by()) == (6, {SCALER})


async def test_what_a_person_changed_in_the_template_is_undone(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    container = {"name": "chat", "image": "other:1"}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await world.kube.patch(DEPLOYMENTS, "chat", patch, world.namespace, patch_type="strategic")
    await until(lambda: world.workloads.outdated(one))
    await world.ensure(one)
    made = await world.deployment()
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == SPEC["image"]


async def test_one_that_is_out_of_the_view_keeps_its_number(world: World) -> None:
    """Its label was taken away, so it isn't watched: it isn't new for that."""
    one = await world.server()
    await world.ensure(one)
    await world.workloads.scale(one, 9)
    patch = {"metadata": {"labels": {"app.kubernetes.io/component": None}}}
    await world.kube.patch(DEPLOYMENTS, "chat", patch, world.namespace)
    await until(lambda: "chat" not in world.view.deployments)
    await world.ensure(one)
    assert await world.replicas() == 9
    assert (await world.deployment())["metadata"]["labels"][
        "app.kubernetes.io/component"
    ] == workload.COMPONENT


async def test_a_claim_that_is_to_be_another_is_applied(world: World) -> None:
    """Here the server refuses to make it smaller: that is told, and hinders no other change."""
    one = await world.server(cache={"size": "2Gi"})
    await world.ensure(one)
    await world.change(one, cache={"size": "1Gi"}, image="switchboard.dev/switchboard:0.2.0")
    assert world.workloads.outdated(one)
    with pytest.raises(ApiError, match=r"spec\.resources\.requests\.storage|spec is immutable"):
        await world.workloads.ensure(one)
    made = await world.deployment()
    assert made["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.2.0")
    assert world.workloads.outdated(one)  # it is tried again, by and by
    before = world.writes
    with suppress(ApiError):
        await world.workloads.ensure(one)
    assert world.writes == before + 1  # the claim only

    await world.change(one, cache={"size": "2Gi"})
    assert not world.workloads.outdated(one)


async def test_a_template_that_is_refused_is_told_and_leaves_the_number_free(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    await world.change(one, serviceAccountName="No Name")
    with pytest.raises(ApiError, match="serviceAccountName: Invalid value"):
        await world.workloads.ensure(one)
    await world.workloads.scale(one, 4)
    assert await world.replicas() == 4


async def test_a_spec_that_changes_while_it_is_written_is_written_again(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    await world.change(one, image="switchboard.dev/switchboard:0.2.0")
    writing = asyncio.create_task(world.workloads.ensure(one))
    await asyncio.sleep(0)
    await world.change(one, image="switchboard.dev/switchboard:0.3.0")
    await writing
    if world.workloads.outdated(one):
        await world.ensure(one)
    made = await world.deployment()
    assert made["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.3.0")


async def test_nothing_is_made_for_one_that_is_gone(world: World) -> None:
    one = await world.server()
    await world.kube.delete(MODEL_SERVERS, "chat", world.namespace)
    with pytest.raises(Gone):
        await world.workloads.ensure(one)
    with pytest.raises(Gone):
        await world.workloads.write_status(one, Status(desired_replicas=3))
    assert await world.kube.list(DEPLOYMENTS, world.namespace) == []
    assert await world.kube.list(PERSISTENT_VOLUME_CLAIMS, world.namespace) == []


async def test_another_of_the_same_name_is_left_alone(world: World) -> None:
    one = await world.server()
    await world.kube.delete(MODEL_SERVERS, "chat", world.namespace)
    other = await world.server()
    assert other.object["metadata"]["uid"] != one.object["metadata"]["uid"]
    with pytest.raises(Gone):
        await world.workloads.ensure(one)
    assert await world.kube.list(DEPLOYMENTS, world.namespace) == []

    await world.workloads.write_status(one, Status(desired_replicas=3))  # it was being written meanwhile
    registry = Registry()
    registry.servers["chat"] = other
    registry.put(await world.kube.get(MODEL_SERVERS, "chat", world.namespace))
    assert other.status == Status(desired_replicas=3)  # so its own is written at the next tick


@pytest.mark.parametrize(
    ("target", "status", "most", "expected"),
    [
        (7, None, 10, 7),
        (7, 3, 10, 7),
        (None, 6, 10, 6),
        (7, None, 5, 5),
        (0, 3, 10, 0),
        (None, 0, 10, 1),
        (None, None, 10, 1),
    ],
    ids=[
        "as many as were wanted",
        "by who leads, whatever the status says",
        "by the status, of another leader",
        "no more than may be",
        "none were wanted",
        "none was ever said",
        "nothing is known",
    ],
)
async def test_a_deployment_that_somebody_deleted_comes_back_with_its_replicas(
    world: World, target: int | None, status: int | None, most: int, expected: int
) -> None:
    one = await world.server()
    await world.ensure(one)
    await world.kube.delete(DEPLOYMENTS, "chat", world.namespace)
    await until(lambda: "chat" not in world.view.deployments)
    await world.change(one, scaling={"minReplicas": 0, "maxReplicas": most})
    one.target = target
    one.told_status = None if status is None else Status(desired_replicas=status)
    await world.ensure(one)
    assert await world.replicas() == expected


async def test_a_pod_that_can_not_be_marked_delays_no_replica_that_customers_wait_for(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    await ready_pod(world, "goes")
    full = {"metadata": {"annotations": {"full": "x" * (256 * 1024 - 20)}}}  # no other has room beside it
    await world.kube.patch(PODS, "goes", full, world.namespace)
    with pytest.raises(ApiError) as refused:
        await world.workloads.carry_out(one, step(replicas=4, drain=("goes",)), NOW)
    assert refused.value.status == 422
    assert await world.replicas() == 4


async def test_another_deployment_of_the_same_name_is_left_alone(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    known = world.view.deployments["chat"]
    await world.kube.delete(DEPLOYMENTS, "chat", world.namespace)
    await until(lambda: "chat" not in world.view.deployments)
    world.view.deployments["chat"] = known  # the view is behind
    with pytest.raises(ApiError) as nobody:
        await world.workloads.scale(one, 5)
    assert nobody.value.conflict
    assert await world.kube.get_or_none(DEPLOYMENTS, "chat", world.namespace) is None
    assert (one.told, one.telling) == (None, None)

    await world.ensure(one)  # it isn't in the view any more, so it is made anew
    other = world.view.deployments["chat"]
    assert other.uid != known.uid
    world.view.deployments["chat"] = known
    with pytest.raises(ApiError) as another:
        await world.workloads.scale(one, 5)
    assert "metadata.uid" in another.value.message
    assert "chat" not in world.view.deployments
    assert await world.replicas() == 1


async def test_who_leads_no_more_writes_nothing(world: World) -> None:
    one = await world.server()
    await world.ensure(one)
    world.leads, before = False, world.writes
    with pytest.raises(Superseded):
        await world.workloads.scale(one, 5)
    with pytest.raises(Superseded):
        await world.workloads.write_status(one, Status())
    await world.change(one, image="other:1")
    with pytest.raises(Superseded):
        await world.workloads.ensure(one)
    assert (await world.replicas(), world.writes, one.telling) == (1, before, None)


async def ready_pod(world: World, name: str, **notes: str) -> None:
    """One that serves, as a node would say. Its ReplicaSet wants none, and wouldn't take it for one of its own."""
    match = {"matchLabels": {"pods": "none"}}
    template = {
        "metadata": {"labels": match["matchLabels"]},
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    replica_set = {"replicas": 0, "selector": match, "template": template}
    owner = await world.kube.apply(
        REPLICA_SETS,
        {"metadata": {"name": "chat-1", "namespace": world.namespace}, "spec": replica_set},
        field_manager="test",
    )
    owned = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-1", "uid": owner["metadata"]["uid"]}
    own = {"app.kubernetes.io/name": "chat", "app.kubernetes.io/component": workload.COMPONENT}
    meta = {"name": name, "namespace": world.namespace, "labels": own, "annotations": notes}
    meta["ownerReferences"] = [owned]
    body = {"containers": [{"name": "chat", "image": "chat"}], "automountServiceAccountToken": False}
    await world.kube.create(PODS, {"metadata": meta, "spec": body})
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-05T08:00:00Z"}]
    status = {"phase": "Running", "podIP": "127.250.0.1", "conditions": conditions}
    await world.kube.patch(PODS, name, {"status": status}, world.namespace, subresource="status")
    await until(lambda: world.view.pods["chat"].get(name) is not None and world.view.pods["chat"][name].ready)


def step(**values: Any) -> Step:
    return Step(Decision(NOW, 5, 3, None, {}, Observation(5, 5, None)), 5, 3, **values)


async def test_marks_on_pods(world: World) -> None:
    one = await world.server()
    earlier = {labels.DRAINING: "2026-01-05T07:59:00Z", labels.DELETION_COST: "-100", "team": "models"}
    await ready_pod(world, "stays")
    await ready_pod(world, "goes")
    await ready_pod(world, "comes-back", **earlier)
    await ready_pod(world, "is-removed", **earlier)
    made = step(drain=("goes", "nobody"), restore=("comes-back",), remove=("is-removed", "nobody"))
    await world.workloads.carry_out(one, made, NOW)

    async def notes(name: str) -> Object:
        return (await world.kube.get(PODS, name, world.namespace))["metadata"].get("annotations") or {}

    assert await notes("stays") == {}
    assert await notes("goes") == {labels.DRAINING: "2026-01-05T08:00:00Z", labels.DELETION_COST: "-100"}
    assert await notes("comes-back") == {"team": "models"}
    assert await notes("is-removed") == {**earlier, labels.DELETION_COST: "-1000"}
    assert world.writes == 3


async def test_another_pod_of_the_same_name_is_left_alone(world: World) -> None:
    one = await world.server()
    await ready_pod(world, "goes")
    known = world.view.pods["chat"]["goes"]
    await world.kube.delete(PODS, "goes", world.namespace, grace_period_s=0)
    await until(lambda: "goes" not in world.view.pods["chat"])
    world.view.pods["chat"]["goes"] = known
    await world.workloads.carry_out(one, step(drain=("goes",)), NOW)  # it has gone by itself

    world.view.pods["chat"].clear()
    await ready_pod(world, "goes")
    world.view.pods["chat"]["goes"] = known
    await world.workloads.carry_out(one, step(drain=("goes",)), NOW)
    found = await world.kube.get(PODS, "goes", world.namespace)
    assert labels.DRAINING not in (found["metadata"].get("annotations") or {})


async def test_a_status_of_the_largest_size_is_taken(world: World) -> None:
    one = await world.server()
    sentence = "§" * 1024
    condition = Condition(
        type="Ready", status="False", reason="QuotaExceeded", message="§" * 1000, last_transition_time=AT
    )
    most = Status(
        observed_generation=2**53,
        mode="shadow",
        revision="f" * 16,
        replicas=MOST_REPLICAS,
        ready_replicas=MOST_REPLICAS,
        desired_replicas=MOST_REPLICAS,
        selector="a=b",
        load="100000000000%",
        last_decisions=(LastDecision(at=AT, before=0, wanted=MOST_REPLICAS, sentence=sentence),)
        * MOST_DECISIONS,
        conditions=(condition, condition.model_copy(update={"type": "AbleToScale"})),
    )
    await world.workloads.write_status(one, most)
    assert one.status == most
    found = await world.kube.get(MODEL_SERVERS, "chat", world.namespace)
    read = World.known(found)
    assert read.status == most
    managers = {each["manager"]: each.get("subresource") for each in found["metadata"]["managedFields"]}
    assert managers == {"person": None, MANAGER: "status"}

    await world.workloads.write_status(
        one, Status(desired_replicas=1)
    )  # what isn't said any more is taken out
    found = await world.kube.get(MODEL_SERVERS, "chat", world.namespace)
    assert "load" not in found["status"]
