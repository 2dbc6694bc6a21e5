"""Sizes follow the traffic, on a real API server with a real Prometheus.

The scenarios have nothing to do with each other, so they run at the same time, each as a test of its own.
"""

from __future__ import annotations

import math

import pytest

from operators.servers.status import LOAD_PERIOD_S
from operators.settings import TICK_S
from operators.trials.nodes import Fate
from switchboard import labels
from switchboard.api.model_server import MODEL_SERVERS
from switchboard.kube import DEPLOYMENTS, PODS, Object
from tests.operators.live.conftest import Scenario, Together
from tests.operators.live.rig import IMAGE, LONG_S, Rig, enough, watch_replicas

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


@scenario
async def a_server_follows_its_traffic_up_and_down(world: Rig) -> None:
    chat = world.service("chat", rate=10)
    await world.server("chat", minReplicas=1, headroom={})
    await world.until_ready("chat")
    chat.rate = 80
    up = await world.until_replicas("chat", lambda count: count >= 8)
    assert up <= 14
    await world.until_ready("chat")
    chat.rate = 10
    down = await world.until_replicas("chat", lambda count: count <= 4)
    assert down >= 1

    async def told() -> bool:
        ups = [one["message"] for one in await world.events("ScaledUp", "chat")]
        explained = any("asks for" in one and "requests/s" in one for one in ups)
        return explained and bool(await world.events("ScaledDown", "chat"))

    await world.until("it is told", told)

    async def settled() -> bool:
        status = await world.status("chat")
        return status["lastDecisions"][0]["wanted"] == status["desiredReplicas"] == status["readyReplicas"]

    await world.until("the status agrees", settled)


@scenario
async def replicas_are_drained_before_they_go(world: Rig) -> None:
    drained = world.service("drained", rate=60)
    await world.server("drained", minReplicas=1)
    await world.until_replicas("drained", lambda count: count >= enough(60))
    before = await world.until_all_serve("drained")
    drained.rate = 20
    marked: set[str] = set()

    async def look() -> list[Object]:
        pods = await world.pods_of("drained")
        for pod in pods:
            notes = pod["metadata"].get("annotations") or {}
            if labels.DRAINING in notes:
                assert int(notes[labels.DELETION_COST]) < 0
                marked.add(pod["metadata"]["name"])
        return pods

    async def gone() -> bool:
        await look()
        return bool(marked) and await world.replicas("drained") <= enough(20)

    await world.until("replicas have gone", gone)

    async def left() -> bool:
        pods = await look()
        live = {one["metadata"]["name"] for one in pods if "deletionTimestamp" not in one["metadata"]}
        return len(live) == await world.replicas("drained") and not live & marked

    await world.until("those that were marked have gone, and no others", left)
    assert len(marked) == before - await world.replicas("drained")


@scenario
async def what_was_drained_is_taken_back_when_it_is_needed_again(world: Rig) -> None:
    # What is in those that are to go keeps them for as long as it takes to see that they are needed.
    back = world.service("back", rate=60, lingering=1.0)
    await world.server("back", minReplicas=1, stabilizationSeconds=2)
    await world.until_replicas("back", lambda count: count >= enough(60))
    await world.until_all_serve("back")
    back.rate = 10

    async def draining() -> set[str]:
        pods = await world.pods_of("back")
        marked = (
            one["metadata"] for one in pods if labels.DRAINING in (one["metadata"].get("annotations") or {})
        )
        return {one["uid"] for one in marked if "deletionTimestamp" not in one}

    marked = await world.until("some are draining", draining)
    back.rate = 60

    async def restored() -> bool:
        pods = await world.pods_of("back")
        live = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
        return len(live) >= 6 and not await draining()

    await world.until("none is draining", restored)
    assert marked & {one["metadata"]["uid"] for one in await world.pods_of("back")}, "none was let back"


@scenario
async def to_zero_when_idle_and_back_at_the_first_request(world: Rig) -> None:
    idle = world.service("idle", rate=0)
    await world.server("idle", minReplicas=0, idleSeconds=30, stabilizationSeconds=2)
    # Not by the number, which is 0 before the first replica, too.
    await world.until_condition("idle", "Ready", "ScaledToZero")
    assert await world.replicas("idle") == 0
    idle.rate = 5
    await world.until_replicas("idle", lambda count: count >= 1)
    await world.until_ready("idle")


@scenario
async def in_shadow_it_says_what_it_would_do_and_a_person_does_it(world: Rig) -> None:
    shadow = world.service("shadow", rate=10)
    await world.server("shadow", {"replicas": 2}, mode="shadow")
    await world.until_ready("shadow")
    shadow.rate = 100

    async def told() -> bool:
        wanted = f"to {enough(100)}: "
        return any(wanted in one["message"] for one in await world.events("WouldScaleUp", "shadow"))

    await world.until("it says so", told)
    assert await world.replicas("shadow") == 2
    await world.until_condition("shadow", "AbleToScale", "Shadow")

    async def would() -> int:
        return sum(one["count"] for one in await world.events("WouldScaleUp", "shadow"))

    scale = await world.kube.get(MODEL_SERVERS, "shadow", world.namespace, subresource="scale")
    scale["spec"]["replicas"] = 5
    # As `kubectl scale` does: what the operator writes meanwhile is no conflict.
    del scale["metadata"]["resourceVersion"]
    await world.kube.request("PUT", MODEL_SERVERS.path(world.namespace, "shadow", "scale"), body=scale)
    await world.until_replicas("shadow", lambda count: count == 5)
    before = await would()
    await watch_replicas(world, "shadow", ticks=5)
    assert await would() == before, "told once, not at each tick"


@scenario
async def paused_is_left_alone(world: Rig) -> None:
    paused = world.service("paused", rate=10)
    await world.server("paused", {"replicas": 3}, mode="paused")
    await world.until_ready("paused")
    paused.rate = 100

    async def seen() -> bool:
        page = await world.page(await world.leader(), "/decisions?name=paused")
        return (page["decisions"][0]["seen"]["rate"] or 0) > 80

    await world.until("it sees the traffic", seen)
    assert await world.replicas("paused") == 3
    assert (await world.condition("paused", "ScalingActive"))["reason"] == "Paused"


@scenario
async def a_new_template_rolls_out_and_takes_nothing_away(world: Rig) -> None:
    rolled = world.service("rolled", rate=40)
    made = await world.server("rolled", minReplicas=2)
    await world.until_replicas("rolled", lambda count: count >= 4)
    await world.until_ready("rolled")
    rolled.rate = 1
    await world.server("rolled", {**made["spec"], "image": "switchboard.dev/switchboard:0.2.0"})
    least = 100

    async def replaced() -> bool:
        nonlocal least
        pods = await world.pods_of("rolled")
        least = min(least, sum(_is_ready(one) for one in pods))
        images = {one["spec"]["containers"][0]["image"] for one in pods}
        ready = await world.condition("rolled", "Ready")
        generation = (await world.kube.get(MODEL_SERVERS, "rolled", world.namespace))["metadata"][
            "generation"
        ]
        return images == {"switchboard.dev/switchboard:0.2.0"} and (
            ready.get("status") == "True" and ready.get("observedGeneration") == generation
        )

    await world.until("all replicas have the new image", replaced)
    assert least >= 2


@scenario
async def what_somebody_changes_by_hand_is_put_right(world: Rig) -> None:
    world.service("edited", rate=30)
    await world.server("edited", minReplicas=2)
    await world.until_ready("edited")
    patch = {"spec": {"template": {"spec": {"enableServiceLinks": True}}}}
    await world.kube.patch(DEPLOYMENTS, "edited", patch, world.namespace, patch_type="strategic")

    async def mended() -> bool:
        found = await world.kube.get(DEPLOYMENTS, "edited", world.namespace)
        return found["spec"]["template"]["spec"]["enableServiceLinks"] is False

    await world.until("it is put right", mended)
    scale = {"spec": {"replicas": 15}}
    await world.kube.patch(DEPLOYMENTS, "edited", scale, world.namespace)
    await world.until_replicas("edited", lambda count: count <= 6)
    await world.kube.patch(MODEL_SERVERS, "edited", {"spec": {"replicas": 12}}, world.namespace)

    async def told() -> bool:
        return any(
            "12 isn't followed" in e["message"] for e in await world.events("ReplicasPassedOver", "edited")
        )

    await world.until("it is told that the traffic decides", told)
    assert await world.replicas("edited") <= 6


@scenario
async def nothing_is_written_while_nothing_changes(world: Rig) -> None:
    world.service("steady", rate=35)
    await world.server("steady", minReplicas=1)
    await world.until_replicas("steady", lambda count: count == enough(35))
    await world.until_all_serve("steady")

    async def quiet() -> bool:
        before = await _versions(world)
        await watch_replicas(world, "steady", ticks=round(LOAD_PERIOD_S / TICK_S) + 2)
        return before == await _versions(world)

    # The load as it was while replicas were starting is said anew once, a period later.
    await world.until("a period without a write", quiet, timeout_s=1.5 * LONG_S)


@scenario
async def counters_that_can_not_be_true_change_nothing(world: Rig) -> None:
    values = {"nan": math.nan, "negative": -1e9, "infinite": math.inf, "reset": 0.0}
    for name in values:
        world.service(name, rate=50)
        await world.server(name, minReplicas=1)
    before = {name: await world.until_replicas(name, lambda count: count >= enough(50)) for name in values}
    for name in values:
        await world.until_ready(name)
    for name, value in values.items():
        world.exporter.services[name].arrived, world.exporter.services[name].refused = value, 0.0
    for name, (least, most) in (await watch_replicas(world, *values, ticks=5)).items():
        assert before[name] <= least <= most <= before[name] + 1, name
        world.exporter.services[name].arrived = 1e6
    for name, (least, most) in (await watch_replicas(world, *values, ticks=4)).items():
        assert before[name] <= least <= most <= 20, f"{name}: a leap of a counter is bounded"


@scenario
async def a_replica_that_never_gets_ready_is_said_and_not_paid_twice(world: Rig) -> None:
    world.fates["never"] = Fate(start_s=None)
    world.service("never", rate=30)
    await world.server("never", {"capacity": {"requestsPerSecond": 10, "startSeconds": 1}}, minReplicas=1)
    _, most = (await watch_replicas(world, "never", ticks=8))["never"]
    assert most <= 7

    await world.until_condition("never", "Ready", "ReplicasNotReady")


@scenario
async def an_image_that_can_not_be_pulled_is_said_and_the_old_replicas_stay(world: Rig) -> None:
    world.service("unpulled", rate=30)
    made = await world.server("unpulled", minReplicas=2)
    await world.until_replicas("unpulled", lambda count: count >= enough(30))
    await world.until_all_serve("unpulled")
    old = {one["metadata"]["uid"] for one in await world.pods_of("unpulled")}
    world.fates["unpulled"] = Fate(waiting="ImagePullBackOff")
    await world.server("unpulled", {**made["spec"], "image": f"{IMAGE}-wrong"})

    async def told() -> bool:
        ready = await world.condition("unpulled", "Ready")
        return ready.get("reason") == "ImagePullFailed" and "ImagePullBackOff" in ready["message"]

    await world.until("it says so", told)
    world.exporter.services["unpulled"].rate = 1
    await watch_replicas(world, "unpulled", ticks=6)
    pods = {one["metadata"]["uid"] for one in await world.pods_of("unpulled")}
    assert old <= pods, "a rollout that can't end takes nothing away"


@scenario
async def a_server_that_is_deleted_takes_its_objects_along_and_is_not_made_again(world: Rig) -> None:
    world.service("deleted", rate=30)
    await world.server("deleted", minReplicas=2)
    await world.until_ready("deleted")
    await world.kube.delete(MODEL_SERVERS, "deleted", world.namespace, propagation="Foreground")

    async def gone() -> bool:
        return await world.replicas("deleted") == -1 and not await world.pods_of("deleted")

    await world.until("all of it is gone", gone)
    assert (await watch_replicas(world, "deleted", ticks=3))["deleted"] == (-1, -1)


@scenario
async def a_deployment_that_is_deleted_is_made_again(world: Rig) -> None:
    world.service("remade", rate=30)
    await world.server("remade", minReplicas=2)
    await world.until_ready("remade")
    uid = (await world.kube.get(DEPLOYMENTS, "remade", world.namespace))["metadata"]["uid"]
    await world.kube.delete(DEPLOYMENTS, "remade", world.namespace)

    async def again() -> bool:
        found = await world.kube.get_or_none(DEPLOYMENTS, "remade", world.namespace)
        return found is not None and found["metadata"]["uid"] != uid

    await world.until("there is another", again)
    await world.until_ready("remade")


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.__name__)
async def test_of(one: Scenario, together: Together) -> None:
    await together.result(one)


async def _versions(world: Rig) -> list[str]:
    """Of all that the operator writes for one server."""
    objects = [
        await world.kube.get(MODEL_SERVERS, "steady", world.namespace),
        await world.kube.get(DEPLOYMENTS, "steady", world.namespace),
        *await world.kube.list(PODS, world.namespace, label_selector="app.kubernetes.io/name=steady"),
    ]
    return [one["metadata"]["resourceVersion"] for one in objects]


def _is_ready(pod: dict[str, object]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()  # type: ignore[attr-defined]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
