"""Waits against the real API server and its controllers; a stand-in for the nodes says how the pods are."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from infra.plugin.wire import Properties
from infra.plugin.writer import InitFailed
from switchboard.kube import CONFIG_MAPS, JOBS, PODS, REPLICA_SETS, Kind, Object
from tests.infra.plugin.conftest import CONFIG_MAP, DEPLOYMENT, Engine, deployment, in_namespace, kubelet

STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
JOB = "kubernetes:batch/v1:Job"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
SERVICE = "kubernetes:core/v1:Service"
CRASHING = {
    "phase": "Running",
    "containerStatuses": [
        {
            "name": "app",
            "ready": False,
            "image": "i",
            "imageID": "",
            "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}},
            "lastState": {
                "terminated": {"exitCode": 1, "reason": "Error", "message": "no such file: /models"}
            },
        }
    ],
}


async def test_a_deployment_is_created_when_its_replicas_are_available(engine: Engine) -> None:
    async with kubelet(engine):
        inputs = in_namespace(engine, deployment(replicas=2))
        assert await engine.up(DEPLOYMENT, "web", inputs) == "created"
        assert engine.states["web"]["status"]["availableReplicas"] == 2
        inputs = in_namespace(engine, deployment(replicas=2, image="busybox:2"))
        assert await engine.up(DEPLOYMENT, "web", inputs) == "updated"
        status = engine.states["web"]["status"]
        assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (2, 2, 2)
    assert any("of 2 replicas available" in text for text in engine.host.statuses)


async def test_a_stateful_set_and_its_update(engine: Engine) -> None:
    async with kubelet(engine):
        assert await engine.up(STATEFUL_SET, "web", in_namespace(engine, deployment(replicas=2))) == "created"
        assert engine.states["web"]["status"]["readyReplicas"] == 2
        before = await pods_of(engine)
        inputs = in_namespace(engine, deployment(replicas=2, image="busybox:2"))
        assert await engine.up(STATEFUL_SET, "web", inputs) == "updated"
        status = engine.states["web"]["status"]
        assert (status["replicas"], status["updatedReplicas"], status["readyReplicas"]) == (2, 2, 2)
        assert status["currentRevision"] == status["updateRevision"]
        # It was waited for to its end: each pod is another one, of the new image.
        after = await pods_of(engine)
        assert names(after, "name") == names(before, "name") == {"web-0", "web-1"}
        assert not names(after, "uid") & names(before, "uid")
        assert {pod["spec"]["containers"][0]["image"] for pod in after} == {"busybox:2"}


async def pods_of(engine: Engine) -> list[Object]:
    return await engine.kube.list(PODS, engine.namespace)


def names(listed: list[Object], key: str) -> set[str]:
    return {each["metadata"][key] for each in listed}


async def failure_of_refresh(engine: Engine, words: str) -> InitFailed:
    """The failure that a refresh finds, once its reasons hold `words`."""
    while True:
        with pytest.raises(InitFailed) as caught:
            await engine.refresh(DEPLOYMENT, "web")
        if words in " ".join(caught.value.reasons):
            return caught.value
        await asyncio.sleep(0.1)


async def test_a_failed_wait_names_the_pod_and_the_reason_and_the_next_run_goes_on(engine: Engine) -> None:
    inputs = in_namespace(engine, deployment())
    async with kubelet(engine, CRASHING):
        with pytest.raises(InitFailed) as caught:
            await engine.up(DEPLOYMENT, "web", inputs, timeout_s=1)
        failure = caught.value
        assert re.fullmatch(rf"Deployment {engine.namespace}/web: not ready after 1 s: .+", str(failure))
        assert failure.properties["__inputs"]["spec"]["replicas"] == 1
        assert failure.id == f"{engine.namespace}/web"
        (reason,) = (await failure_of_refresh(engine, "CrashLoopBackOff")).reasons[1:]
    assert re.fullmatch(
        r"pod web-\S+: container app: CrashLoopBackOff: back-off 40s restarting: "
        "exit code 1: no such file: /models",
        reason,
    )
    # The object is in the state; once its pods are well, the same program succeeds.
    pods = await engine.kube.list(PODS, engine.namespace)
    async with kubelet(engine):
        for pod in pods:
            await engine.kube.delete(PODS, pod["metadata"]["name"], engine.namespace, grace_period_s=0)
        assert await engine.up(DEPLOYMENT, "web", inputs) == "updated"
    assert await engine.up(DEPLOYMENT, "web", inputs) == "same"


async def test_without_pods_the_last_warning_is_told(engine: Engine) -> None:
    quotas = Kind("v1", "resourcequotas", "ResourceQuota")
    body = {"metadata": {"name": "q", "namespace": engine.namespace}, "spec": {"hard": {"pods": "0"}}}
    await engine.kube.create(quotas, body)
    while not (await engine.kube.get(quotas, "q", engine.namespace))["status"].get("hard"):
        await asyncio.sleep(0.05)  # before that it holds nobody
    with pytest.raises(InitFailed):
        await engine.up(DEPLOYMENT, "web", in_namespace(engine, deployment()), timeout_s=1)
    failure = await failure_of_refresh(engine, "forbidden")
    assert "quota" in " ".join(failure.reasons)


async def test_a_wait_that_is_cancelled_ends_at_once_and_keeps_the_state(engine: Engine) -> None:
    work = asyncio.ensure_future(
        engine.up(DEPLOYMENT, "web", in_namespace(engine, deployment()), timeout_s=300)
    )
    while not engine.host.statuses:
        await asyncio.sleep(0.05)
    engine.resources.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(InitFailed, match="cancelled"):
            await work
    assert engine.states["web"]["metadata"]["uid"]
    with pytest.raises(Exception, match="cancelled"):
        await engine.up(CONFIG_MAP, "c", {"data": {}})


async def test_an_object_deleted_while_it_is_waited_for(engine: Engine) -> None:
    work = asyncio.ensure_future(
        engine.up(DEPLOYMENT, "web", in_namespace(engine, deployment()), timeout_s=300)
    )
    while not engine.host.statuses:
        await asyncio.sleep(0.05)
    await engine.kube.delete(Kind("apps/v1", "deployments", "Deployment"), "web", engine.namespace)
    with pytest.raises(InitFailed, match="deleted by somebody else"):
        await work


def job(**spec: Any) -> Properties:
    containers = [{"name": "app", "image": "i"}]
    template = {
        "spec": {"containers": containers, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    }
    return {"metadata": {"name": "train"}, "spec": {"backoffLimit": 0, "template": template, **spec}}


@pytest.mark.parametrize(("phase", "ok"), [("Succeeded", True), ("Failed", False)])
async def test_a_job_is_waited_for_to_its_end(engine: Engine, phase: str, ok: bool) -> None:
    ended = {"exitCode": 0 if ok else 2, "reason": "Completed" if ok else "Error", "message": "no data"}
    container = {"name": "app", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": phase, "containerStatuses": [{**container, "state": {"terminated": ended}}]}
    async with kubelet(engine, status):
        work = engine.up(JOB, "train", in_namespace(engine, job()), timeout_s=120)
        if ok:
            assert await work == "created"
            return
        with pytest.raises(InitFailed, match="failed: BackoffLimitExceeded") as caught:
            await work
    assert any("exit code 2: no data" in reason for reason in caught.value.reasons)


async def test_a_job_can_be_made_anew_until_it_succeeds(engine: Engine) -> None:
    inputs = in_namespace(engine, job())
    inputs["metadata"]["annotations"] = {
        "pulumi.com/replaceUnready": "true",
        "pulumi.com/skipAwait": "true",
    }
    await engine.up(JOB, "train", inputs)
    assert await engine.up(JOB, "train", inputs) == "replaced (deleted first)"
    await engine.kube.patch(JOBS, "train", {"spec": {"suspend": True}}, engine.namespace)
    assert await engine.up(JOB, "train", inputs) == "same"


async def test_a_claim_bound_at_first_use_is_not_waited_for(engine: Engine) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    assert await engine.up(CLAIM, "data", {"spec": spec}) == "created"
    with pytest.raises(InitFailed, match="there is no storage class nope"):
        await engine.up(CLAIM, "other", {"spec": {**spec, "storageClassName": "nope"}}, timeout_s=1)


async def test_a_service_is_waited_for_unless_it_says_no(engine: Engine) -> None:
    spec = {"selector": {"a": "b"}, "ports": [{"port": 80}]}
    meta = {"namespace": engine.namespace, "name": "s"}
    with pytest.raises(InitFailed, match="no ready endpoint behind it"):
        await engine.up(SERVICE, "s", {"metadata": meta, "spec": spec}, timeout_s=1)
    skip = {**meta, "name": "t", "annotations": {"pulumi.com/skipAwait": "true"}}
    assert await engine.up(SERVICE, "t", {"metadata": skip, "spec": spec}) == "created"


async def test_an_own_condition(engine: Engine) -> None:
    meta = {
        "namespace": engine.namespace,
        "name": "x",
        "annotations": {
            "pulumi.com/waitFor": "jsonpath={.data.answer}=42",
            "pulumi.com/timeoutSeconds": "120",
        },
    }
    work = asyncio.ensure_future(
        engine.up(CONFIG_MAP, "c", {"metadata": meta, "data": {"a": "1"}}, timeout_s=0)
    )
    while not engine.host.statuses:
        await asyncio.sleep(0.05)
    await engine.kube.patch(CONFIG_MAPS, "x", {"data": {"answer": "42"}}, engine.namespace)
    assert await work == "created"
    assert engine.host.statuses[0] == "not met yet: .data.answer=42"


async def test_a_deletion_waits_for_finalizers_and_says_so(engine: Engine) -> None:
    await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}})
    name = engine.name_of("c")
    body = {"metadata": {"finalizers": ["switchboard.dev/held"]}}
    await engine.kube.patch(CONFIG_MAPS, name, body, engine.namespace)
    work = asyncio.ensure_future(engine.destroy(CONFIG_MAP, "c"))
    while not engine.host.statuses:
        await asyncio.sleep(0.05)
    assert "switchboard.dev/held" in engine.host.statuses[0]
    assert not work.done()
    await engine.kube.patch(CONFIG_MAPS, name, {"metadata": {"finalizers": None}}, engine.namespace)
    await work


async def test_a_deletion_takes_what_the_object_made_first(engine: Engine) -> None:
    async with kubelet(engine):
        await engine.up(DEPLOYMENT, "web", in_namespace(engine, deployment(replicas=2)))
        assert len(await engine.kube.list(PODS, engine.namespace)) == 2
        await engine.destroy(DEPLOYMENT, "web")
    # Foreground: when it is gone, so is all of this; in the background it would still be there.
    assert await engine.kube.list(PODS, engine.namespace) == []
    assert await engine.kube.list(REPLICA_SETS, engine.namespace) == []


async def test_a_deletion_can_leave_what_the_object_made(engine: Engine) -> None:
    async with kubelet(engine):
        inputs = in_namespace(engine, deployment(deletionPropagationPolicy="orphan"))
        await engine.up(DEPLOYMENT, "web", inputs)
        await engine.destroy(DEPLOYMENT, "web")
        assert len(await engine.kube.list(REPLICA_SETS, engine.namespace)) == 1
