"""Disruptions that are asked for: evictions, budgets, cordon and `kubectl drain`."""

from __future__ import annotations

import asyncio

import pytest

from switchboard.kube import DAEMON_SETS, DEPLOYMENTS, NODES, ApiError, Object
from tests.infra.local.behaviours.cluster import WAIT_S, Space
from tests.infra.local.behaviours.conftest import LAB
from tests.infra.local.behaviours.manifests import BUDGETS, FOREVER, condition, phase, pod, ready, workload
from tests.infra.local.behaviours.scenario import behaviour

HOST = "kubernetes.io/hostname"
TOLERATED = [{"key": "lab", "operator": "Exists"}]


def budget(app: str, **spec: int | str) -> Object:
    return {"metadata": {"name": app}, "spec": {"selector": {"matchLabels": {"app": app}}, **spec}}


async def allowed(space: Space, name: str, count: int) -> None:
    await space.until(name, lambda b: b["status"]["disruptionsAllowed"] == count, BUDGETS)


@behaviour(
    "[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it "
    "[Conformance]",
    "[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]",
    "[sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]",
)
async def test_eviction(space: Space) -> None:
    await space.create(DEPLOYMENTS, workload("d", 2))
    pods = await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods), app="d")
    await space.create(BUDGETS, budget("d", minAvailable=2))
    await space.until("d", lambda b: b["status"]["currentHealthy"] == 2, BUDGETS)
    name = pods[0]["metadata"]["name"]
    with pytest.raises(ApiError) as refusal:
        await space.evict(name)
    assert refusal.value.status == 429
    assert "disruption budget" in refusal.value.message
    await space.patch("d", {"spec": {"minAvailable": 1}}, BUDGETS)
    await allowed(space, "d", 1)
    await space.evict(name)
    await space.gone(name)
    assert condition(space.seen(pods[0])[-1], "DisruptionTarget") == "True"
    await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods), app="d")


@behaviour("[sig-node] Pods Extended Pod Container lifecycle evicted pods should be terminal")
async def test_evicted_stays_ended(space: Space) -> None:
    """With a program that has something to do before it ends."""
    made = await space.pod(
        pod("p", "trap 'sleep 1; exit 0' TERM; sleep inf & wait", terminationGracePeriodSeconds=10)
    )
    await space.until("p", ready)
    await space.evict("p")
    await space.gone("p")
    assert phase(space.seen(made)[-1]) in ("Succeeded", "Failed")


@behaviour(
    "[sig-apps] DisruptionController evictions: enough pods, absolute => should allow an eviction",
    "[sig-apps] DisruptionController evictions: too few pods, absolute => should not allow an eviction",
)
async def test_drain(space: Space) -> None:
    """`kubectl drain` waits for the budget, moves everything but the daemons, and `uncordon` opens the node again."""
    node, other = LAB[1], LAB[2]
    either = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node, other]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [either]}}
    spec = {"tolerations": TOLERATED, "affinity": {"nodeAffinity": required}}
    await space.kubectl("cordon", other)  # so that all begin on the node that is drained
    try:
        await space.create(DEPLOYMENTS, workload("d", 2, pod=spec))
        await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods), app="d")
    finally:
        await space.kubectl("uncordon", other)
    daemons = workload("daemons", 0, pod=spec)
    del daemons["spec"]["replicas"]
    await space.create(DAEMON_SETS, daemons)
    await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods), app="daemons")
    await space.create(BUDGETS, budget("d", minAvailable=2))
    await space.until("d", lambda b: b["status"]["currentHealthy"] == 2, BUDGETS)
    drain = ("drain", node, "--ignore-daemonsets", f"--pod-selector=space={space.name}")
    for p in [*space.all(app="d"), *space.all(app="daemons")]:
        await space.patch(p["metadata"]["name"], {"metadata": {"labels": {"space": space.name}}})
    try:
        healthy: list[int] = []

        def moved(pods: list[Object]) -> bool:
            healthy.append(sum(ready(p) for p in pods))
            return [p["spec"].get("nodeName") for p in pods if ready(p)] == [other] * 2

        running = space.cluster.kubectl_running("-n", space.name, *drain, f"--timeout={WAIT_S:.0f}s")
        async with running as draining, asyncio.timeout(WAIT_S):
            assert draining.stdout is not None
            said = b""
            while b"violate the pod's disruption budget" not in said:
                said += (line := await draining.stdout.readline())
                assert line, f"it ended and was not held up: {said!r}"
            assert (await space.kube.get(NODES, node))["spec"]["unschedulable"] is True
            watching = asyncio.create_task(space.until_all(moved, app="d"))
            await space.patch("d", {"spec": {"minAvailable": 1}}, BUDGETS)  # and it goes on
            said += await draining.stdout.read()
            assert await draining.wait() == 0, said
            await watching
        assert min(healthy) >= 1, "the budget held all the while"
        assert any(p["spec"]["nodeName"] == node and ready(p) for p in space.all(app="daemons"))
    finally:
        await space.kubectl("uncordon", node)
    assert not (await space.kube.get(NODES, node))["spec"].get("unschedulable")


@behaviour()
async def test_cordon(space: Space) -> None:
    """Not an upstream case, but what every drain begins with: who is there goes on, who comes waits."""
    spec = {"nodeSelector": {HOST: LAB[0]}, "tolerations": TOLERATED}
    await space.pod(pod("there", FOREVER, **spec))
    await space.until("there", ready)
    await space.kubectl("cordon", LAB[0])
    try:
        await space.pod(pod("late", FOREVER, **spec))
        await space.until("late", lambda p: condition(p, "PodScheduled") == "False")
        assert ready(await space.get("there"))
    finally:
        await space.kubectl("uncordon", LAB[0])
    await space.until("late", ready)
