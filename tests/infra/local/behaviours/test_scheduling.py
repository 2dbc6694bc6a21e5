"""Where pods go: labels, affinity, taints, spread, resources, priority. Upstream's scheduler, with nodes of ours."""

from __future__ import annotations

from datetime import datetime

from switchboard.kube import DEPLOYMENTS, NODES, PODS, REPLICA_SETS, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.conftest import GENERAL, LAB
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    LIMIT_RANGES,
    PRIORITY_CLASSES,
    QUOTAS,
    condition,
    pod,
    ready,
    sh,
    status_of,
    terminated,
    workload,
)
from tests.infra.local.behaviours.scenario import behaviour

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def lab(number: int) -> Object:
    """Spec of a pod for one of the nodes that the tests are hard on."""
    return {"nodeSelector": {HOST: LAB[number]}, "tolerations": [{"key": "lab", "operator": "Exists"}]}


def place(p: Object) -> str:
    return str(p["spec"].get("nodeName", ""))


async def unschedulable(space: Space, name: str) -> str:
    """What the scheduler says about a pod that fits nowhere."""
    found = await space.until(name, lambda p: condition(p, "PodScheduled") == "False")
    await space.event(name, "FailedScheduling")
    return next(str(c["message"]) for c in found["status"]["conditions"] if c["type"] == "PodScheduled")


@behaviour(
    "[sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if matching [Conformance] "
    "[Serial]",
    "[sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if not matching "
    "[Conformance] [Serial]",
)
async def test_node_selector(space: Space) -> None:
    await space.pod(pod("fits", FOREVER, nodeSelector={ZONE: "zone-b"}))
    await space.pod(pod("not", FOREVER, nodeSelector={ZONE: "zone-x"}))
    assert place(await space.until("fits", ready)) == GENERAL[1]
    assert "didn't match Pod's node affinity/selector" in await unschedulable(space, "not")


@behaviour(
    "[sig-scheduling] SchedulerPredicates validates that required NodeAffinity setting is respected if "
    "matching [Serial]",
    "[sig-scheduling] SchedulerPredicates validates that NodeAffinity is respected if not matching [Serial]",
)
async def test_node_affinity(space: Space) -> None:
    def asking(value: str) -> Object:
        term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [value]}]}
        return {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        }

    await space.pod(pod("fits", FOREVER, affinity=asking("zone-c")))
    await space.pod(pod("not", FOREVER, affinity=asking("zone-x")))
    assert place(await space.until("fits", ready)) == GENERAL[2]
    await unschedulable(space, "not")


@behaviour(
    "[sig-scheduling] SchedulerPredicates validates that taints-tolerations is respected if matching [Serial]",
    "[sig-scheduling] SchedulerPredicates validates that taints-tolerations is respected if not matching "
    "[Serial]",
)
async def test_taints(space: Space) -> None:
    await space.pod(pod("fits", FOREVER, **lab(0)))
    await space.pod(pod("not", FOREVER, nodeSelector={HOST: LAB[0]}))
    assert place(await space.until("fits", ready)) == LAB[0]
    assert "untolerated taint" in await unschedulable(space, "not")


@behaviour(
    "[sig-scheduling] SchedulerPriorities Pod should be scheduled to node that don't match the "
    "PodAntiAffinity terms [Serial]"
)
async def test_pod_affinity(space: Space) -> None:
    def near(key: str, app: str) -> Object:
        return {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
            ]
        }

    await space.pod(pod("first", FOREVER))
    first = await space.until("first", ready)
    await space.pod(pod("with", FOREVER, affinity={"podAffinity": near(ZONE, "first")}))
    await space.pod(pod("apart", FOREVER, affinity={"podAntiAffinity": near(ZONE, "first")}))
    assert place(await space.until("with", ready)) == place(first)
    assert place(await space.until("apart", ready)) != place(first)


@behaviour(
    "[sig-scheduling] SchedulerPredicates PodTopologySpread Filtering validates 4 pods with MaxSkew=1 are "
    "evenly distributed into 2 nodes [Serial]",
)
async def test_spread(space: Space) -> None:
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "d"}},
        "nodeTaintsPolicy": "Honor",
    }
    await space.create(DEPLOYMENTS, workload("d", 6, pod={"topologySpreadConstraints": [spread]}))
    pods = await space.until_all(lambda pods: len(pods) == 6 and all(ready(p) for p in pods))
    assert sorted(place(p) for p in pods) == sorted(GENERAL * 2)


@behaviour(
    "[sig-scheduling] SchedulerPredicates validates Pods with non-empty schedulingGates are blocked on "
    "scheduling [Serial]"
)
async def test_gates(space: Space) -> None:
    await space.pod(pod("p", FOREVER, schedulingGates=[{"name": "example.com/wait"}]))
    await space.until("p", lambda p: condition(p, "PodScheduled") == "False")
    assert not place(await space.get("p"))
    await space.patch("p", {"spec": {"schedulingGates": []}})
    await space.until("p", ready)


@behaviour(
    "[sig-scheduling] SchedulerPredicates validates resource limits of pods that are allowed to run "
    "[Conformance] [Serial]"
)
async def test_resources(space: Space) -> None:
    await space.pod(pod("p", sh(FOREVER, resources={"requests": {"cpu": "100"}})))
    assert "Insufficient cpu" in await unschedulable(space, "p")


@behaviour(
    "[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults "
    "applied. [Conformance]"
)
async def test_limit_range(space: Space) -> None:
    limits = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "64Mi"},
        "defaultRequest": {"cpu": "50m", "memory": "32Mi"},
        "max": {"cpu": "1"},
    }
    await space.create(LIMIT_RANGES, {"metadata": {"name": "l"}, "spec": {"limits": [limits]}})
    for _ in range(50):  # the API server's own cache of limit ranges is a moment behind
        made = await space.pod(pod("p", FOREVER))
        if made["spec"]["containers"][0].get("resources"):
            break
        await space.delete("p", grace_period_s=0)
        await space.gone("p")
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": limits["default"],
        "requests": limits["defaultRequest"],
    }
    refusal = await space.refused(PODS, pod("q", sh("true", resources={"limits": {"cpu": "2"}})))
    assert "maximum cpu usage per Container is 1" in refusal.message
    await space.until("p", ready)


@behaviour(
    "[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]"
)
async def test_quota_of_a_scope(space: Space) -> None:
    await space.create(
        QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}}
    )
    await space.until("q", lambda q: "pods" in q["status"]["hard"], QUOTAS)
    await space.pod(pod("p", FOREVER))
    await space.pod(pod("burstable", sh(FOREVER, resources={"requests": {"cpu": "10m"}})))
    await space.until("q", lambda q: q["status"]["used"]["pods"] == "1", QUOTAS)
    assert "exceeded quota" in (await space.refused(PODS, pod("more", "true"))).message
    await space.delete("p")
    await space.until("q", lambda q: q["status"]["used"]["pods"] == "0", QUOTAS)


def asks(cores: str) -> Object:
    return sh(FOREVER, resources={"requests": {"cpu": cores}})


async def priority(space: Space, name: str, value: int) -> str:
    made = f"{name}-{space.name}"
    await space.kube.create(PRIORITY_CLASSES, {"metadata": {"name": made}, "value": value})
    return made


@behaviour(
    "[sig-scheduling] SchedulerPreemption validates basic preemption works [Conformance] [Serial]",
    "[sig-scheduling] SchedulerPreemption validates pod disruption condition is added to the preempted pod "
    "[Conformance] [Serial]",
    "[sig-scheduling] SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption "
    "running path [Conformance] [Serial]",
)
async def test_preemption(space: Space) -> None:
    """On a full node of two cores the lower priority goes, gracefully, and the higher takes its place."""
    low, high = await priority(space, "low", 1), await priority(space, "high", 1000)
    body = workload("low", 1, asks("1500m"), pod={"priorityClassName": low, **lab(2)})
    await space.create(REPLICA_SETS, body)
    (victim,) = await space.until_all(lambda pods: len(pods) == 1 and ready(pods[0]), app="low")
    await space.pod(pod("high", asks("1500m"), priorityClassName=high, **lab(2)))
    await space.until("high", ready)
    preempted = space.seen(victim)[-1]
    assert condition(preempted, "DisruptionTarget") == "True"
    assert terminated(preempted)["exitCode"] == 0, "it was asked to end"
    assert place(await space.get("high")) == LAB[2]
    await space.until_all(lambda pods: pods and not any(place(p) for p in pods), app="low")
    for name in (low, high):
        await space.kube.delete(PRIORITY_CLASSES, name)


@behaviour(
    "[sig-scheduling] SchedulerPreemption validates lower priority pod preemption by critical pod "
    "[Conformance] [Serial]"
)
async def test_no_preemption_of_equals(space: Space) -> None:
    """A pod of the same priority waits, and a pod that never preempts does too."""
    patient = f"patient-{space.name}"
    body = {"metadata": {"name": patient}, "value": 500, "preemptionPolicy": "Never"}
    await space.kube.create(PRIORITY_CLASSES, body)
    await space.pod(pod("first", asks("1900m"), **lab(0)))
    await space.until("first", ready)
    await space.pod(pod("equal", asks("1900m"), **lab(0)))
    await space.pod(pod("patient", asks("1900m"), priorityClassName=patient, **lab(0)))
    for name in ("equal", "patient"):
        assert "Insufficient cpu" in await unschedulable(space, name)
    assert ready(await space.get("first"))
    await space.pod(pod("critical", asks("1900m"), priorityClassName="system-node-critical", **lab(0)))
    assert place(await space.until("critical", ready)) == LAB[0]
    for name in ("equal", "patient", "critical"):
        await space.delete(name, grace_period_s=1)
    await space.kube.delete(PRIORITY_CLASSES, patient)


@behaviour(
    "[sig-node] NoExecuteTaintManager Single Pod evicts pods from tainted nodes [Serial]",
    "[sig-node] NoExecuteTaintManager Single Pod doesn't evict pod with tolerations from tainted nodes "
    "[Serial]",
    "[sig-node] NoExecuteTaintManager Single Pod eventually evict pod with finite tolerations from tainted "
    "nodes [Serial]",
    "[sig-node] NoExecuteTaintManager Single Pod pods evicted from tainted nodes have pod disruption "
    "condition [Serial]",
    "[sig-node] NoExecuteTaintManager Multiple Pods evicts pods with minTolerationSeconds [Conformance] "
    "[Disruptive] [Serial]",
    "[sig-node] NoExecuteTaintManager Single Pod removing taint cancels eviction [Conformance] [Disruptive] "
    "[Serial]",
)
async def test_no_execute(space: Space) -> None:
    """Two taints come together; one is taken away before the last two pods' time is up, which is the same for both."""
    node, base = LAB[1], lab(1)
    evict, stay = ({"key": key, "effect": "NoExecute"} for key in ("evict", "stay"))

    def tolerating(evict_s: int | None, stay_s: int | None) -> Object:
        times = {"evict": evict_s, "stay": stay_s}
        keys = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            for key, seconds in times.items()
        ]
        return {**base, "tolerations": [*base["tolerations"], *keys]}

    kinds = {
        "none": base,
        "always": tolerating(None, None),
        "short": tolerating(3, 3),
        "cancelled": tolerating(30, None),
        "witness": tolerating(None, 30),
    }
    made = {}
    for name, spec in kinds.items():
        made[name] = await space.pod(pod(name, FOREVER, **spec))
    for name in kinds:
        await space.until(name, ready)
    before = (await space.kube.get(NODES, node))["spec"]["taints"]
    await space.kube.patch(NODES, node, {"spec": {"taints": [*before, evict, stay]}})
    try:
        none, short = [
            datetime.fromisoformat(evicted["metadata"]["deletionTimestamp"])
            for evicted in [
                await space.once(made[name], lambda p: "deletionTimestamp" in p["metadata"])
                for name in ("none", "short")
            ]
        ]
        # By the API server's clock, in whole seconds; both have the same grace period.
        assert (short - none).total_seconds() >= 2
        for name in ("always", "cancelled", "witness"):
            found = await space.get(name)
            assert ready(found) and "deletionTimestamp" not in found["metadata"], "its time is not up"
        await space.kube.patch(NODES, node, {"spec": {"taints": [*before, stay]}})
        await space.gone("none")
        assert condition(space.seen(made["none"])[-1], "DisruptionTarget") == "True"
        await space.gone("short")
        await space.event("cancelled", "TaintManagerEviction", "Cancelling deletion")
        await space.gone("witness")
        for name in ("always", "cancelled"):
            found = await space.get(name)
            assert ready(found) and "deletionTimestamp" not in found["metadata"]
            assert (found["metadata"]["uid"], status_of(found)["restartCount"]) == (
                made[name]["metadata"]["uid"],
                0,
            )
    finally:
        await space.kube.patch(NODES, node, {"spec": {"taints": before}})
