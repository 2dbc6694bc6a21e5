"""Deployments, ReplicaSets and StatefulSets: the control plane's own controllers over these nodes."""

from __future__ import annotations

import asyncio
from typing import Any

from switchboard.kube import (
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    Object,
)
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    QUOTAS,
    REPLICATION_CONTROLLERS,
    claim,
    condition,
    mount,
    phase,
    pod,
    ready,
    sh,
    template,
    workload,
)
from tests.infra.local.behaviours.scenario import behaviour

HEALTH = {
    "exec": {"command": ["sh", "-c", "! grep -q no /info/ready"]},
    "periodSeconds": 1,
    "failureThreshold": 1,
    "timeoutSeconds": 20,
}
INFO = {
    "name": "info",
    "downwardAPI": {"items": [{"path": "ready", "fieldRef": {"fieldPath": "metadata.annotations['ready']"}}]},
}
"""A pod whose annotation `ready` is `no` isn't ready: how a test makes one unhealthy from outside."""


def fickle() -> Object:
    return sh(FOREVER, readinessProbe=HEALTH, volumeMounts=[mount("info", "/info")])


def env(value: str) -> Object:
    """A container that differs in one variable: a new template."""
    return sh(FOREVER, env=[{"name": "VERSION", "value": value}])


def version(one: Object) -> str:
    return str(one["spec"]["containers"][0]["env"][0]["value"])


async def complete(space: Space, name: str, replicas: int) -> Object:
    """The Deployment once all its replicas are of the newest template and ready, and no other is left."""

    def holds(d: Object) -> bool:
        s = d["status"]
        wanted = {s.get("replicas"), s.get("updatedReplicas"), s.get("availableReplicas")}
        return s["observedGeneration"] >= d["metadata"]["generation"] and wanted == {replicas}

    return await space.until(name, holds, DEPLOYMENTS)


def change(value: str) -> Object:
    return {"spec": {"template": {"spec": {"containers": [env(value)]}}}}


@behaviour(
    "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]",
    "[sig-apps] Deployment deployment should delete old replica sets [Conformance]",
)
async def test_rolling_update(space: Space) -> None:
    """Never fewer available than allowed, never more than allowed; the old ReplicaSet goes by the history limit."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    await space.create(DEPLOYMENTS, workload("d", 3, env("1"), strategy=rolling, revisionHistoryLimit=0))
    await complete(space, "d", 3)
    await space.patch("d", change("2"), DEPLOYMENTS, patch_type="strategic")
    counts: list[int] = []

    def watch(pods: list[Object]) -> bool:
        counts.append(sum(ready(p) and not p["metadata"].get("deletionTimestamp") for p in pods))
        return len(pods) == 3 and all(version(p) == "2" and ready(p) for p in pods)

    await space.until_all(watch, app="d")
    assert min(counts) >= 2
    await complete(space, "d", 3)
    await space.until_all(lambda sets: len(sets) == 1, REPLICA_SETS, app="d")


@behaviour(
    "[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]"
)
async def test_recreate(space: Space) -> None:
    await space.create(DEPLOYMENTS, workload("d", 2, env("1"), strategy={"type": "Recreate"}))
    await complete(space, "d", 2)
    await space.patch("d", change("2"), DEPLOYMENTS, patch_type="strategic")
    mixed: list[set[str]] = []

    def watch(pods: list[Object]) -> bool:
        mixed.append({version(p) for p in pods if phase(p) == "Running"})
        return len(pods) == 2 and all(version(p) == "2" and ready(p) for p in pods)

    await space.until_all(watch, app="d")
    assert {"1", "2"} not in mixed, "old and new never run beside each other"


@behaviour(
    "[sig-apps] Deployment deployment should support rollover [Conformance]",
)
async def test_rollover_and_back(space: Space) -> None:
    """A template that can't start is replaced by one that can, and `kubectl rollout undo` brings the first back."""
    await space.create(DEPLOYMENTS, workload("d", 2, env("1")))
    await complete(space, "d", 2)
    broken = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nothing/there:1"}]}}}}
    await space.patch("d", broken, DEPLOYMENTS, patch_type="strategic")
    await space.until_all(
        lambda pods: sum("nothing" in p["spec"]["containers"][0]["image"] for p in pods), app="d"
    )
    assert sum(ready(p) for p in space.all(app="d")) == 2
    fixed = change("3")
    fixed["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox"
    await space.patch("d", fixed, DEPLOYMENTS, patch_type="strategic")
    await complete(space, "d", 2)
    await space.kubectl("rollout", "undo", "deployment/d", "--to-revision=1")
    await space.kubectl("rollout", "status", "deployment/d", "--timeout=120s")
    await space.until_all(
        lambda pods: len(pods) == 2 and all(ready(p) and version(p) == "1" for p in pods), app="d"
    )


@behaviour(
    "[sig-apps] Deployment deployment should support proportional scaling [Conformance]",
    "[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]",
)
async def test_scaled_in_mid_rollout(space: Space) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
    await space.create(DEPLOYMENTS, workload("d", 4, env("1"), strategy=rolling))
    await complete(space, "d", 4)
    stuck = change("2")
    stuck["spec"]["template"]["spec"]["containers"][0]["image"] = "nothing/there:1"
    await space.patch("d", stuck, DEPLOYMENTS, patch_type="strategic")
    await space.until_all(
        lambda sets: sorted(s["spec"]["replicas"] for s in sets) == [3, 3], REPLICA_SETS, app="d"
    )
    await space.patch("d", {"spec": {"replicas": 8}}, DEPLOYMENTS, subresource="scale")
    sets = await space.until_all(
        lambda sets: sum(s["spec"]["replicas"] for s in sets) == 10, REPLICA_SETS, app="d"
    )
    assert sorted(s["spec"]["replicas"] for s in sets) == [5, 5], "both sets grow in proportion"


@behaviour(
    "[sig-apps] Deployment test Deployment ReplicaSet orphaning and adoption regarding controllerRef",
    "[sig-api-machinery] Garbage collector should orphan RS created by deployment when "
    "deleteOptions.PropagationPolicy is Orphan [Conformance]",
    "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning "
    "[Conformance]",
)
async def test_orphans(space: Space) -> None:
    await space.create(DEPLOYMENTS, workload("d", 1, env("1")))
    await complete(space, "d", 1)
    (before,) = await space.until_all(lambda pods: len(pods) == 1 and ready(pods[0]), app="d")
    await space.delete("d", DEPLOYMENTS, propagation="Orphan")
    await space.gone("d", DEPLOYMENTS)
    await space.until_all(
        lambda sets: sets and not sets[0]["metadata"].get("ownerReferences"), REPLICA_SETS, app="d"
    )
    await space.create(DEPLOYMENTS, workload("d", 1, env("1")))
    await complete(space, "d", 1)
    (after,) = await space.until_all(lambda pods: len(pods) == 1 and ready(pods[0]), app="d")
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "adopted, not made anew"
    await space.delete("d", DEPLOYMENTS, propagation="Foreground")
    await space.gone("d", DEPLOYMENTS)
    await space.until_all(lambda sets: not sets, REPLICA_SETS)
    await space.until_all(lambda pods: not pods)


@behaviour(
    "[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods "
    "[Conformance]",
    "[sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]",
)
async def test_adopted_and_released(space: Space) -> None:
    await space.pod(pod("orphan", FOREVER, labels={"app": "rs"}, restartPolicy="Always"))
    await space.create(REPLICA_SETS, workload("rs", 1))
    adopted = await space.until("orphan", lambda p: p["metadata"].get("ownerReferences"))
    assert adopted["metadata"]["ownerReferences"][0]["name"] == "rs"
    await space.patch("orphan", {"metadata": {"labels": {"app": "other"}}})
    await space.until("orphan", lambda p: not p["metadata"].get("ownerReferences"))
    await space.patch("rs", {"spec": {"replicas": 2}}, REPLICA_SETS, subresource="scale")
    await space.until("rs", lambda r: r["status"].get("readyReplicas") == 2, REPLICA_SETS)


@behaviour(
    "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded "
    "quota [Conformance]",
    "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. "
    "[Conformance]",
)
async def test_quota(space: Space) -> None:
    await space.create(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}})
    await space.until("q", lambda q: q["status"]["hard"]["pods"] == "2", QUOTAS)
    body = {
        "metadata": {"name": "rc"},
        "spec": {"replicas": 3, "selector": {"app": "rc"}, "template": template("rc")},
    }
    await space.create(REPLICATION_CONTROLLERS, body)
    failed = await space.until(
        "rc", lambda r: condition(r, "ReplicaFailure") == "True", REPLICATION_CONTROLLERS
    )
    assert "exceeded quota" in failed["status"]["conditions"][0]["message"]
    await space.until("q", lambda q: q["status"]["used"]["pods"] == "2", QUOTAS)
    await space.patch("rc", {"spec": {"replicas": 2}}, REPLICATION_CONTROLLERS)
    await space.until("rc", lambda r: not condition(r, "ReplicaFailure"), REPLICATION_CONTROLLERS)
    assert (await space.refused(PODS, pod("more", "true"))).status == 403


def stateful(name: str, replicas: int, *containers: Object | str, **spec: Any) -> Object:
    return workload(name, replicas, *containers, serviceName=name, **spec)


def headless(name: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": 80}]},
    }


@behaviour(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should provide basic identity",
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale "
    "subresource [Conformance]",
    "[sig-apps] StatefulSet Non-retain StatefulSetPersistentVolumeClaimPolicy should delete PVCs with a "
    "OnScaledown policy",
)
async def test_identity(space: Space) -> None:
    """Names, host names and volumes stay with the ordinal over a restart; a claim goes when its replica does."""
    await space.create(SERVICES, headless("db"))
    script = f"test -e /data/me || hostname > /data/me; cat /data/me; {FOREVER}"
    mounts = [mount("data", "/data")]
    body = stateful(
        "db",
        2,
        sh(script, volumeMounts=mounts),
        volumeClaimTemplates=[claim("data")],
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Delete"},
    )
    await space.create(STATEFUL_SETS, body)
    await space.until("db", lambda s: s["status"].get("readyReplicas") == 2, STATEFUL_SETS)
    before = await space.get("db-1")
    await space.delete("db-1")
    after = await space.until(
        "db-1", lambda p: p["metadata"]["uid"] != before["metadata"]["uid"] and ready(p)
    )
    await space.said("db-1", "db-1\n")
    assert after["spec"]["nodeName"] == before["spec"]["nodeName"], "where its volume is"
    await space.patch("db", {"spec": {"replicas": 1}}, STATEFUL_SETS, subresource="scale")
    await space.gone("db-1")
    await space.gone("data-db-1", PERSISTENT_VOLUME_CLAIMS)
    assert space.all(PERSISTENT_VOLUME_CLAIMS)[0]["metadata"]["name"] == "data-db-0"


@behaviour(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in "
    "predictable order and halt if any stateful pod is unhealthy [Conformance] [Slow]"
)
async def test_scaled_in_order(space: Space) -> None:
    pod_spec = {"volumes": [INFO]}
    await space.create(STATEFUL_SETS, stateful("s", 1, fickle(), pod=pod_spec))
    await space.until("s-0", ready)
    await space.patch("s-0", {"metadata": {"annotations": {"ready": "no"}}})
    await space.until("s-0", lambda p: not ready(p))
    await space.patch("s", {"spec": {"replicas": 3}}, STATEFUL_SETS, subresource="scale")
    await asyncio.sleep(2)
    assert [p["metadata"]["name"] for p in space.all(app="s")] == ["s-0"], "it waits for the unhealthy one"
    await space.patch("s-0", {"metadata": {"annotations": {"ready": "yes"}}})
    pods = await space.until_all(lambda pods: len(pods) == 3 and all(ready(p) for p in pods), app="s")
    made = [p["metadata"]["creationTimestamp"] for p in pods]
    assert made == sorted(made)
    await space.patch("s", {"spec": {"replicas": 0}}, STATEFUL_SETS, subresource="scale")
    left: list[list[str]] = []

    def watch(now: list[Object]) -> bool:
        left.append([p["metadata"]["name"] for p in now if not p["metadata"].get("deletionTimestamp")])
        return not now

    await space.until_all(watch, app="s")
    assert all(names == ["s-0", "s-1", "s-2"][: len(names)] for names in left), "the last one goes first"


@behaviour(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to "
    "completion even with unhealthy pods [Conformance] [Slow]"
)
async def test_parallel(space: Space) -> None:
    never = sh(FOREVER, readinessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1})
    await space.create(STATEFUL_SETS, stateful("s", 3, never, podManagementPolicy="Parallel"))
    await space.until_all(lambda pods: len(pods) == 3 and all(phase(p) == "Running" for p in pods), app="s")
    await space.patch("s", {"spec": {"replicas": 0}}, STATEFUL_SETS, subresource="scale")
    await space.until_all(lambda pods: not pods, app="s")


@behaviour(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates "
    "and phased rolling updates of template modifications [Conformance]",
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling "
    "updates and roll backs of template modifications [Conformance]",
)
async def test_canary(space: Space) -> None:
    update = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    await space.create(STATEFUL_SETS, stateful("s", 3, env("1"), updateStrategy=update))
    await space.until("s", lambda s: s["status"].get("readyReplicas") == 3, STATEFUL_SETS)

    async def shown(expected: list[str]) -> None:
        def holds(pods: list[Object]) -> bool:
            return [version(p) for p in pods] == expected and all(ready(p) for p in pods)

        await space.until_all(holds, app="s")

    await space.patch("s", change("2"), STATEFUL_SETS, patch_type="strategic")
    await shown(["1", "1", "2"])
    whole = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
    await space.patch("s", whole, STATEFUL_SETS)
    await shown(["2", "2", "2"])
    await space.patch("s", change("1"), STATEFUL_SETS, patch_type="strategic")
    await shown(["1", "1", "1"])


@behaviour(
    "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should implement legacy "
    "replacement when the update strategy is OnDelete"
)
async def test_on_delete(space: Space) -> None:
    await space.create(STATEFUL_SETS, stateful("s", 1, env("1"), updateStrategy={"type": "OnDelete"}))
    before = await space.until("s-0", ready)
    await space.patch("s", change("2"), STATEFUL_SETS, patch_type="strategic")
    await asyncio.sleep(1)
    assert version(await space.get("s-0")) == "1"
    await space.delete("s-0")
    after = await space.until("s-0", lambda p: p["metadata"]["uid"] != before["metadata"]["uid"])
    assert version(after) == "2"
