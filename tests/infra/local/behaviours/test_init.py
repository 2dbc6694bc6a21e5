"""Init containers and sidecars: their order at the beginning and at the end, and what their failures mean."""

from __future__ import annotations

from typing import Any

from switchboard.kube import Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    condition,
    mount,
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

LOG = {"volumes": [{"name": "v", "emptyDir": {}}]}


def says(name: str, script: str = "", **more: Any) -> Object:
    """A container that notes its beginning in the pod's own journal."""
    return sh(f"echo {name} >> /v/log; {script}", name, volumeMounts=[mount("v", "/v")], **more)


def side(name: str, ends: str = "exit 0", **more: Any) -> Object:
    """A sidecar that has started when it noted so, and notes when it is asked to end."""
    script = (
        f"trap 'echo {name}-ends >> /v/log; {ends}' TERM; sleep 0.5; echo {name}-up >> /v/log; "
        "while :; do sleep 0.1; done"
    )
    probe = {
        "exec": {"command": ["grep", "-q", f"{name}-up", "/v/log"]},
        "periodSeconds": 1,
        "failureThreshold": 120,
        "timeoutSeconds": 20,
    }
    return says(name, script, restartPolicy="Always", startupProbe=probe, **more)


@behaviour(
    "[sig-node] InitContainer should invoke init containers on a RestartNever pod [Conformance] "
    "[NodeConformance]"
)
async def test_init_never(space: Space) -> None:
    await space.pod(pod("p", "true", initContainers=[sh("true", "init1"), sh("true", "init2")]))
    done = await space.until("p", over)
    assert phase(done) == "Succeeded"
    assert condition(done, "Initialized") == "True"
    first, second = (terminated(done, name) for name in ("init1", "init2"))
    assert (first["exitCode"], second["exitCode"]) == (0, 0)
    assert first["finishedAt"] <= second["startedAt"]


@behaviour(
    "[sig-node] InitContainer should invoke init containers on a RestartAlways pod [Conformance] "
    "[NodeConformance]"
)
async def test_init_always(space: Space) -> None:
    body = pod(
        "p", FOREVER, initContainers=[sh("true", "init1"), sh("true", "init2")], restartPolicy="Always"
    )
    await space.pod(body)
    running = await space.until("p", ready)
    assert status_of(running, "init2")["ready"], "done is ready, for an init container"
    assert status_of(running, "init1")["restartCount"] == 0


@behaviour(
    "[sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod "
    "[Conformance] [NodeConformance]"
)
async def test_init_fails_always(space: Space) -> None:
    inits = [sh("exit 1", "init1"), sh("true", "init2")]
    await space.pod(pod("p", FOREVER, initContainers=inits, restartPolicy="Always"))
    after = await space.until("p", lambda p: status_of(p, "init1")["restartCount"] >= 3)
    assert phase(after) == "Pending"
    assert condition(after, "Initialized") == "False"
    assert (waiting(after, "init2"), waiting(after)) == ("PodInitializing", "PodInitializing")


@behaviour(
    "[sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a "
    "RestartNever pod [Conformance] [NodeConformance]",
    "[sig-node] Pods Extended Pod Container Status should never report container start when an init "
    "container fails",
)
async def test_init_fails_never(space: Space) -> None:
    made = await space.pod(pod("p", "true", initContainers=[sh("true", "init1"), sh("exit 1", "init2")]))
    failed = await space.until("p", over)
    assert phase(failed) == "Failed"
    assert terminated(failed, "init2")["exitCode"] == 1
    for version in space.seen(made):
        for one in version["status"].get("containerStatuses", ()):
            assert not one.get("started")
            assert "running" not in one["state"]


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when A pod initializes successfully should launch init container serially before a "
    "regular container [NodeConformance]"
)
async def test_serially(space: Space) -> None:
    inits = [says(f"init{n}", "sleep 0.3") for n in (1, 2, 3)]
    text = await space.output(pod("p", says("main", "cat /v/log"), initContainers=inits, **LOG))
    assert text.split() == ["init1", "init2", "init3", "main"]


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when The regular container has a PostStart hook should run Init container to "
    "completion before call to PostStart of regular container [NodeConformance]"
)
async def test_init_before_hook(space: Space) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo hook >> /v/log"]}}}
    main = says("main", "sleep 1; cat /v/log", lifecycle=hook)
    text = await space.output(pod("p", main, initContainers=[says("init", "sleep 0.5")], **LOG))
    assert text.split()[0] == "init"
    assert set(text.split()[1:]) == {"main", "hook"}


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when running a Pod with a failed regular container should restart failing container "
    "when pod restartPolicy is Always [NodeConformance]"
)
async def test_restarts_failing(space: Space) -> None:
    await space.pod(pod("p", says("main", "sleep 0.1; exit 1"), restartPolicy="Always", **LOG))
    await space.until("p", lambda p: status_of(p)["restartCount"] >= 3)


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when A regular container restarts with init containers shouldn't restart init "
    "containers upon regular container restart [NodeConformance]"
)
async def test_init_not_again(space: Space) -> None:
    body = pod(
        "p", says("main", "sleep 0.2; exit 1"), initContainers=[says("init")], restartPolicy="Always", **LOG
    )
    await space.pod(body)
    after = await space.until("p", lambda p: status_of(p)["restartCount"] >= 3)
    assert status_of(after, "init")["restartCount"] == 0


@behaviour(
    "[sig-node] Containers Lifecycle when running restartable init containers with startup probes should "
    "launch restartable init containers serially considering the startup probe [NodeConformance]",
    "[sig-node] Containers Lifecycle when using a Pod with restartPolicy=Never, three init container and two "
    "restartable init containers should start second restartable init container before third init container "
    "[NodeConformance]",
)
async def test_sidecars_in_order(space: Space) -> None:
    inits = [says("init1"), side("side1"), says("init2"), side("side2"), says("init3")]
    text = await space.output(pod("p", says("main", "cat /v/log"), initContainers=inits, **LOG))
    assert text.split() == ["init1", "side1", "side1-up", "init2", "side2", "side2-up", "init3", "main"]


@behaviour(
    "[sig-node] Containers Lifecycle when A pod with restartable init containers is terminating when The "
    "containers exit successfully should terminate sidecars in reverse order after all main containers have "
    "exited [NodeConformance]",
    "[sig-node] Containers Lifecycle when using a restartable init container in a Pod with "
    "restartPolicy=Never when a restartable init container runs continuously should run a regular container "
    "to completion [NodeConformance]",
)
async def test_sidecars_end_in_reverse(space: Space) -> None:
    watcher = says("watch", "trap '' TERM; while ! grep -q side1-ends /v/log; do sleep 0.1; done; cat /v/log")
    inits = [watcher | {"restartPolicy": "Always"}, side("side1"), side("side2"), side("side3")]
    await space.pod(
        pod("p", says("main", "sleep 0.5"), initContainers=inits, terminationGracePeriodSeconds=30, **LOG)
    )
    done = await space.until("p", over)
    assert phase(done) == "Succeeded"
    ends = [word for word in (await space.log("p", "watch")).split() if word.endswith("-ends")]
    assert ends == ["side3-ends", "side2-ends", "side1-ends"]


@behaviour(
    "[sig-node] Containers Lifecycle when A pod with restartable init containers is terminating when The "
    "restartable init containers exit with non-zero exit code should mark pod as succeeded if any of the "
    "restartable init containers have terminated with non-zero exit code [NodeConformance]",
    "[sig-node] Containers Lifecycle when A pod with restartable init containers is terminating when The "
    "restartable init containers have exceeded its termination grace period seconds should mark pod as "
    "succeeded if any of the restartable init containers have exceeded its termination grace period seconds "
    "[NodeConformance]",
)
async def test_sidecars_exit_codes_do_not_count(space: Space) -> None:
    fails = side("fails", "exit 5")
    deaf = says("deaf", "trap '' TERM; while :; do sleep 0.1; done", restartPolicy="Always")
    await space.pod(
        pod("p", "sleep 0.5", initContainers=[fails, deaf], terminationGracePeriodSeconds=2, **LOG)
    )
    done = await space.until("p", over)
    assert phase(done) == "Succeeded"
    assert (terminated(done, "fails")["exitCode"], terminated(done, "deaf")["exitCode"]) == (5, 137)


@behaviour(
    "[sig-node] Containers Lifecycle when A pod with restartable init containers is terminating when The "
    "regular container has exceeded its termination grace period seconds should mark pod as failed if "
    "regular container has exceeded its termination grace period seconds [NodeConformance]"
)
async def test_too_slow_to_end(space: Space) -> None:
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    side = sh(FOREVER, "side", restartPolicy="Always")
    made = await space.pod(pod("p", deaf, initContainers=[side], terminationGracePeriodSeconds=1))
    await space.until("p", ready)
    await space.delete("p")
    await space.gone("p")
    last = space.seen(made)[-1]
    assert (phase(last), terminated(last)["exitCode"]) == ("Failed", 137)


@behaviour(
    "[sig-node] Containers Lifecycle when A pod with restartable init containers is terminating when "
    "Restartable init containers are terminated during initialization should not hang in termination if "
    "terminated during initialization [NodeConformance]"
)
async def test_ended_while_it_begins(space: Space) -> None:
    inits = [sh(FOREVER, "side", restartPolicy="Always"), sh(FOREVER, "init")]
    await space.pod(pod("p", "true", initContainers=inits, terminationGracePeriodSeconds=300))
    await space.until("p", lambda p: "running" in status_of(p, "init")["state"])
    await space.delete("p")
    await space.gone("p")  # in less than the grace period, that is


@behaviour(
    "[sig-node] Containers Lifecycle when running restartable init containers with startup probes when using "
    "a PreStop hook should call the container's preStop hook and not launch next container if the "
    "restartable init container's startup probe fails [NodeConformance]"
)
async def test_sidecar_does_not_start(space: Space) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /v/log"]}}}
    bad = says("side", FOREVER, restartPolicy="Always", startupProbe=probe, lifecycle=hook)
    await space.pod(pod("p", says("main", FOREVER), initContainers=[bad], restartPolicy="Always", **LOG))
    after = await space.until("p", lambda p: status_of(p, "side")["restartCount"] >= 1)
    assert waiting(after) == "PodInitializing"
    assert not status_of(after).get("containerID")


@behaviour(
    "[sig-node] Containers Lifecycle when A restartable init container with startup probe fails initially "
    "should continue probing and allow regular container to start after the restartable init container "
    "recovers [NodeConformance]"
)
async def test_sidecar_recovers(space: Space) -> None:
    # It looks when the run has noted its beginning: `/tmp` is each run's own.
    look = "until test -e /tmp/noted; do sleep 0.1; done; [ $(grep -c side /v/log) -ge 2 ]"
    probe = {"exec": {"command": ["sh", "-c", look]}, "failureThreshold": 1, "timeoutSeconds": 60}
    late = says("side", f"touch /tmp/noted; {FOREVER}", restartPolicy="Always", startupProbe=probe)
    await space.pod(pod("p", says("main", FOREVER), initContainers=[late], restartPolicy="Always", **LOG))
    after = await space.until("p", ready)
    assert status_of(after, "side")["restartCount"] == 1


@behaviour(
    "[sig-node] Containers Lifecycle when A pod is running only regular containers when the regular "
    "container has its image updated should successfully restart when the image is updated, "
    "restartPolicy=Always [NodeConformance]"
)
async def test_image_updated(space: Space) -> None:
    await space.pod(pod("p", FOREVER, restartPolicy="Always"))
    await space.until("p", ready)
    change = {"spec": {"containers": [{"name": "main", "image": "busybox:1.36"}]}}
    await space.patch("p", change, patch_type="strategic")
    after = await space.until("p", lambda p: status_of(p)["restartCount"] == 1 and ready(p))
    assert status_of(after)["image"] == "busybox:1.36"
