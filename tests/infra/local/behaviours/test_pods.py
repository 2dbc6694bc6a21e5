"""Pods: submitted, run, ended, removed, and what their status says meanwhile."""

from __future__ import annotations

import asyncio

from switchboard.kube import PODS, ApiError, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.conftest import GENERAL
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    condition,
    over,
    phase,
    pod,
    ready,
    sh,
    status_of,
    terminated,
    waiting,
)
from tests.infra.local.behaviours.scenario import behaviour


@behaviour(
    "[sig-node] Pods should be submitted and removed [Conformance] [NodeConformance]",
    "[sig-node] Pods Extended Delete Grace Period should be submitted and removed",
)
async def test_submitted_and_removed(space: Space) -> None:
    script = "trap 'sleep 0.3; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    made = await space.pod(pod("p", script))
    running = await space.until("p", ready)
    await space.said("p", "up\n")
    assert running["spec"]["nodeName"] in GENERAL
    await space.delete("p", grace_period_s=30)
    await space.gone("p")
    last = space.seen(made)[-1]
    assert last["metadata"]["deletionTimestamp"]
    assert terminated(last)["exitCode"] == 0, "it was given the time to end by itself"


@behaviour("[sig-node] Pods should get a host IP [Conformance] [NodeConformance]")
async def test_host_ip(space: Space) -> None:
    await space.pod(pod("p", FOREVER))
    running = await space.until("p", lambda p: p["status"]["hostIP"] and p["status"]["podIP"])
    node = space.cluster.plane.layout.node(running["spec"]["nodeName"])
    assert running["status"]["hostIP"] == str(node.ip)
    assert running["status"]["podIPs"] == [{"ip": running["status"]["podIP"]}]


@behaviour("[sig-node] Pods should be updated [Conformance] [NodeConformance]")
async def test_labels_updated(space: Space) -> None:
    await space.pod(pod("p", FOREVER))
    before = await space.until("p", ready)
    await space.patch("p", {"metadata": {"labels": {"time": "later"}}})
    after = await space.until("p", lambda p: p["metadata"]["labels"].get("time") == "later")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]


@behaviour("[sig-node] Pods should allow activeDeadlineSeconds to be updated [Conformance] [NodeConformance]")
async def test_deadline_updated(space: Space) -> None:
    await space.pod(pod("p", FOREVER))
    await space.until("p", ready)
    await space.patch("p", {"spec": {"activeDeadlineSeconds": 1}})
    failed = await space.until("p", lambda p: phase(p) == "Failed")
    assert failed["status"]["reason"] == "DeadlineExceeded"


@behaviour("[sig-node] Pods should delete a collection of pods [Conformance]")
async def test_collection_deleted(space: Space) -> None:
    for number in range(3):
        await space.pod(pod(f"p-{number}", FOREVER, labels={"set": "one"}))
    await space.until_all(lambda pods: len(pods) == 3 and all(ready(p) for p in pods))
    await space.kube.request("DELETE", PODS.path(space.name), params={"labelSelector": "set=one"})
    await space.until_all(lambda pods: not pods)


@behaviour("[sig-node] Pods should support pod readiness gates [NodeConformance]")
async def test_readiness_gates(space: Space) -> None:
    gates = [{"conditionType": "k8s.io/test-condition1"}]
    await space.pod(pod("p", FOREVER, readinessGates=gates))
    closed = await space.until("p", lambda p: condition(p, "ContainersReady") == "True")
    assert not ready(closed)
    opened = {"status": {"conditions": [{"type": "k8s.io/test-condition1", "status": "True"}]}}
    await space.patch("p", opened, patch_type="strategic", subresource="status")
    await space.until("p", ready)


@behaviour("[sig-node] Pods should patch a pod status [Conformance]")
async def test_status_of_others_stays(space: Space) -> None:
    made = await space.pod(pod("p", FOREVER))
    await space.until("p", ready)
    own = {"status": {"conditions": [{"type": "Own", "status": "True", "message": "ours"}]}}
    await space.patch("p", own, patch_type="strategic", subresource="status")
    await space.delete("p", grace_period_s=5)
    await space.once(made, lambda p: not ready(p) and condition(p, "Own") == "True")
    await space.gone("p")


@behaviour(
    "[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and "
    "limits for memory and cpu [Conformance]"
)
async def test_quality_of_service(space: Space) -> None:
    same = {"cpu": "100m", "memory": "64Mi"}
    await space.pod(pod("p", sh(FOREVER, resources={"requests": same, "limits": same})))
    assert (await space.until("p", ready))["status"]["qosClass"] == "Guaranteed"


@behaviour(
    "[sig-node] Pods Extended Pod Container Status should never report success for a pending container"
)
async def test_no_success_before_its_time(space: Space) -> None:
    made = await space.pod(pod("p", "exit 1"))
    await space.delete("p", grace_period_s=1)
    await space.gone("p")
    for version in space.seen(made):
        assert phase(version) != "Succeeded"
        for one in version["status"].get("containerStatuses", ()):
            assert one["state"].get("terminated", {}).get("exitCode") != 0


@behaviour(
    "[sig-node] Pods Extended Pod Container lifecycle should not create extra sandbox if all containers are "
    "done"
)
async def test_done_is_done(space: Space) -> None:
    made = await space.pod(pod("p", "exit 0"))
    done = await space.until("p", over)
    await asyncio.sleep(2)
    assert status_of(done)["restartCount"] == 0
    assert {status_of(v).get("containerID") for v in space.seen(made) if over(v)} == {
        status_of(done)["containerID"]
    }
    await space.delete("p")
    await space.gone("p")


@behaviour(
    "[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment "
    "per update [MinimumKubeletVersion:1.34] [Conformance]",
    "[sig-node] Pods Extended (pod generation) Pod Generation pod observedGeneration field set in pod "
    "conditions",
)
async def test_generation(space: Space) -> None:
    made = await space.pod(pod("p", FOREVER))
    assert made["metadata"]["generation"] == 1
    await space.until("p", lambda p: ready(p) and p["status"]["observedGeneration"] == 1)
    await space.patch("p", {"spec": {"activeDeadlineSeconds": 3600}})
    await space.until("p", lambda p: p["status"]["observedGeneration"] == 2)
    own = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
    later = await space.until(
        "p",
        lambda p: all(c["observedGeneration"] == 2 for c in p["status"]["conditions"] if c["type"] in own),
    )
    assert {c["type"] for c in later["status"]["conditions"]} >= set(own)


@behaviour(
    "[sig-node] Container Runtime blackbox test when starting a container that exits should run with the "
    "expected status [Conformance] [NodeConformance]"
)
async def test_each_restart_policy(space: Space) -> None:
    count = "n=$(cat /data/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /data/n; "
    data = {"volumes": [{"name": "data", "emptyDir": {}}]}
    mounts = [{"name": "data", "mountPath": "/data"}]

    async def run(name: str, policy: str, script: str) -> None:
        await space.pod(pod(name, sh(count + script, volumeMounts=mounts), restartPolicy=policy, **data))

    # The first run fails, the second stays or succeeds, as upstream has it for each policy.
    await run("always", "Always", "[ $n -ge 2 ] && exec sleep inf; exit 1")
    await run("on-failure", "OnFailure", "[ $n -ge 2 ] && exit 0; exit 1")
    await run("never", "Never", "exit 1")
    always = await space.until("always", lambda p: ready(p) and status_of(p)["restartCount"] == 1)
    assert phase(always) == "Running"
    on_failure = await space.until("on-failure", over)
    assert (phase(on_failure), status_of(on_failure)["restartCount"]) == ("Succeeded", 1)
    never = await space.until("never", over)
    assert (phase(never), status_of(never)["restartCount"]) == ("Failed", 0)


@behaviour(
    "[sig-node] Container Runtime blackbox test when running a container with a new image should not be able "
    "to pull image from invalid registry [NodeConformance] [Serial]",
)
async def test_unknown_image(space: Space) -> None:
    await space.pod(
        pod("p", sh("true", image="invalid.registry.k8s.io/invalid/alpine:3.1"), restartPolicy="Always")
    )
    # Its first failure, ErrImagePull, is over as soon as it is tried again: an agent that is busy never reports it.
    made = await space.until("p", lambda p: waiting(p) == "ImagePullBackOff")
    assert phase(made) == "Pending"
    reasons = {waiting(v) for v in space.seen(made) if v["status"].get("containerStatuses")}
    assert reasons <= {"ContainerCreating", "ErrImagePull", "ImagePullBackOff"}
    assert "invalid/alpine" in (await space.event("p", "Failed"))["message"]


@behaviour(
    "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an "
    "terminated reason [Conformance] [NodeConformance]",
    "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to "
    "delete [Conformance] [NodeConformance]",
)
async def test_always_fails(space: Space) -> None:
    await space.pod(
        pod("p", {"name": "main", "image": "busybox", "command": ["/bin/false"]}, restartPolicy="Always")
    )
    made = await space.until("p", lambda p: terminated(p).get("reason") == "Error")
    assert terminated(made)["exitCode"] == 1
    await space.until("p", lambda p: waiting(p) == "CrashLoopBackOff")
    await space.delete("p")
    await space.gone("p")


@behaviour(
    "[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs "
    "[Conformance] [NodeConformance]"
)
async def test_output(space: Space) -> None:
    assert await space.output(pod("p", "echo Hello World")) == "Hello World\n"


@behaviour("[sig-node] Events should be sent by kubelets and the scheduler about pods scheduling and running")
async def test_events(space: Space) -> None:
    await space.pod(pod("p", FOREVER))
    await space.until("p", ready)
    scheduled = await space.event("p", "Scheduled")
    assert scheduled["reportingComponent"] == "default-scheduler"
    started = await space.event("p", "Started")
    assert started["reportingComponent"] == "kubelet"
    assert started["involvedObject"]["fieldPath"] == "spec.containers{main}"
    for reason in ("Pulled", "Created"):
        await space.event("p", reason)


@behaviour(
    "[sig-node] Pod conditions managed by Kubelet without PodReadyToStartContainersCondition condition a pod "
    "without init containers should report all conditions set in expected order after the pod is up "
    "[NodeConformance]",
    "[sig-node] Pod conditions managed by Kubelet including PodReadyToStartContainers condition a pod with "
    "init containers should report all conditions set in expected order after the pod is up [Serial]",
)
async def test_conditions_in_order(space: Space) -> None:
    first_ends = "until test -e /tmp/go; do sleep 0.1; done"
    made = await space.pod(pod("p", FOREVER, initContainers=[sh(first_ends, "first")]))
    # Each is reported before the next comes about: two that come about together may be reported together.
    await space.until("p", lambda p: condition(p, "PodReadyToStartContainers") == "True")
    await space.until("p", lambda p: "running" in status_of(p, "first")["state"])
    await space.kubectl("exec", "p", "-c", "first", "--", "touch", "/tmp/go")
    await space.until("p", ready)
    order = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"]
    first = {}
    for number, version in enumerate(space.seen(made)):
        for kind in order:
            if condition(version, kind) == "True":
                first.setdefault(kind, number)
    assert [first[kind] for kind in order] == sorted(first[kind] for kind in order)
    assert first["PodReadyToStartContainers"] < first["Initialized"], "init containers run in a made pod"


@behaviour(
    "[sig-node] Pod conditions managed by Kubelet including PodReadyToStartContainers condition a pod "
    "failing to mount volumes (ConfigMap) and with init containers should report just the scheduled "
    "condition set [Serial]",
    "[sig-storage] ConfigMap Should fail non-optional pod creation due to configMap object does not exist "
    "[Slow]",
)
async def test_conditions_without_its_volume(space: Space) -> None:
    volumes = [{"name": "v", "configMap": {"name": "cm-that-is-not-there"}}]
    await space.pod(pod("p", FOREVER, initContainers=[sh("true", "first")], volumes=volumes))
    await space.event("p", "FailedMount")
    made = await space.until("p", lambda p: condition(p, "Initialized") == "False")
    shown = {kind: condition(made, kind) for kind in ("PodScheduled", "PodReadyToStartContainers", "Ready")}
    assert shown == {"PodScheduled": "True", "PodReadyToStartContainers": "False", "Ready": "False"}


@behaviour(
    "[sig-node] OOMKiller [LinuxOnly] The containers terminated by OOM killer should have the reason set to "
    "OOMKilled [NodeConformance] [Serial]"
)
async def test_out_of_memory(space: Space) -> None:
    eat = {"name": "main", "image": "debian", "command": ["python3", "-S", "-c", "x = bytearray(300 << 20)"]}
    await space.pod(pod("p", {**eat, "resources": {"limits": {"memory": "20Mi"}}}))
    ended = terminated(await space.until("p", over))
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


@behaviour(
    "[sig-node] PodOSRejection Kubelet [LinuxOnly] should reject pod when the node OS doesn't match pod's OS "
    "[NodeConformance]",
    refused="Event `Refused`; the pod stays Pending, as with all that is refused, where a kubelet makes it Failed",
)
async def test_another_system(space: Space) -> None:
    await space.pod(pod("p", FOREVER, os={"name": "windows"}))
    assert "spec.os.name windows" in (await space.event("p", "Refused"))["message"]
    assert waiting(await space.until("p", waiting)) == "CreateContainerConfigError"


@behaviour(
    "[sig-node] Ephemeral Containers will start an ephemeral container in an existing pod [Conformance] "
    "[NodeConformance]",
    refused="Event `Refused`; the pod itself goes on and is cared for",
)
async def test_ephemeral_container(space: Space) -> None:
    await space.pod(
        pod(
            "p",
            "test -e /again/x || { touch /again/x; sleep 2; exit 1; }; " + FOREVER,
            restartPolicy="Always",
        )
    )
    await space.until("p", ready)
    debug: Object = {
        "spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox", "command": ["sh"]}]}
    }
    await space.patch("p", debug, patch_type="strategic", subresource="ephemeralcontainers")
    assert "ephemeralContainers" in (await space.event("p", "Refused"))["message"]
    await space.until("p", lambda p: status_of(p)["restartCount"] >= 1)  # still cared for


@behaviour(
    "[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [Conformance] "
    "[NodeConformance]"
)
async def test_no_such_runtime_class(space: Space) -> None:
    refusal = await space.refused(PODS, pod("p", FOREVER, runtimeClassName="nonexistent"))
    assert isinstance(refusal, ApiError)
    assert refusal.status == 403
