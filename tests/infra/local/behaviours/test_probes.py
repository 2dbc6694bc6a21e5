"""Probes and hooks: who is restarted, who is ready, and what is run at a container's beginning and end."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from switchboard.kube import Object
from tests.infra.local.behaviours.cluster import WAIT_S, Space
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    condition,
    http_server,
    mount,
    over,
    pod,
    ready,
    sh,
    status_of,
    terminated,
)
from tests.infra.local.behaviours.scenario import behaviour

STRICT = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20}
"""One failure counts; but a slow answer, on a machine that is busy, is none."""
HOLDS = {"failureThreshold": 20}


def execute(command: str, **more: Any) -> Object:
    return {"exec": {"command": ["sh", "-c", command]}, **STRICT, **more}


def get(path: str, **more: Any) -> Object:
    return {"httpGet": {"path": path, "port": 8080}, **STRICT, **more}


async def restarts(
    space: Space, *containers: Object | str, times: int = 1, name: str = "p", **spec: Any
) -> Object:
    """The pod after its container has been restarted so often."""
    await space.pod(pod(name, *containers, restartPolicy="Always", **spec))
    return await space.until(name, lambda p: status_of(p)["restartCount"] >= times)


async def stays(space: Space, container: Object, seconds: float = 4.0, **spec: Any) -> Object:
    """The pod after some probes, none of which has restarted it."""
    await space.pod(pod("p", container, restartPolicy="Always", **spec))
    await space.until("p", ready)
    await asyncio.sleep(seconds)
    after = await space.get("p")
    assert status_of(after)["restartCount"] == 0
    assert ready(after)
    return after


HEALTH = "echo ok > /tmp/health; "


@behaviour(
    '[sig-node] Probing container should be restarted with a exec "cat /tmp/health" liveness probe '
    "[Conformance] [NodeConformance]"
)
async def test_exec_liveness_fails(space: Space) -> None:
    probe = execute("cat /tmp/health", initialDelaySeconds=1)
    after = await restarts(space, sh(HEALTH + "sleep 2; rm /tmp/health; " + FOREVER, livenessProbe=probe))
    await space.event("p", "Unhealthy")
    assert "failed liveness probe, will be restarted" in (await space.event("p", "Killing"))["message"]
    assert terminated(after)


@behaviour(
    '[sig-node] Probing container should *not* be restarted with a exec "cat /tmp/health" liveness probe '
    "[Conformance] [NodeConformance]"
)
async def test_exec_liveness_holds(space: Space) -> None:
    probe = execute("cat /tmp/health", initialDelaySeconds=1, **HOLDS)
    await stays(space, sh(HEALTH + FOREVER, livenessProbe=probe))


@behaviour(
    "[sig-node] Probing container should be restarted with a /healthz http liveness probe [Conformance] "
    "[NodeConformance]"
)
async def test_http_liveness_fails(space: Space) -> None:
    startup = {"tcpSocket": {"port": "http"}, **STRICT, **HOLDS}
    await restarts(space, http_server(startupProbe=startup, livenessProbe=get("/healthz")))
    await space.event("p", "Unhealthy", "statuscode: 404")


@behaviour(
    "[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe "
    "[Conformance] [NodeConformance]",
    "[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe [Conformance] "
    "[NodeConformance]",
)
async def test_http_and_tcp_liveness_hold(space: Space) -> None:
    tcp = {"tcpSocket": {"port": "http"}, **STRICT, **HOLDS}
    server = http_server(workingDir="/usr/share", livenessProbe=get("/doc/", **HOLDS), readinessProbe=tcp)
    await stays(space, server)


@behaviour(
    "[sig-node] Probing container should have monotonically increasing restart count [Conformance] "
    "[NodeConformance]"
)
async def test_restart_count_rises(space: Space) -> None:
    after = await restarts(space, "sleep 0.1; exit 1", times=4)
    counts = [status_of(v)["restartCount"] for v in space.seen(after) if v["status"].get("containerStatuses")]
    assert counts == sorted(counts)


@behaviour(
    "[sig-node] Probing container should be restarted with an exec liveness probe with timeout "
    "[NodeConformance]"
)
async def test_exec_liveness_times_out(space: Space) -> None:
    await restarts(space, sh(FOREVER, livenessProbe=execute("sleep 20", timeoutSeconds=1)))
    assert "timed out" in (await space.event("p", "Unhealthy"))["message"]


@behaviour(
    "[sig-node] Probing container should not be ready with an exec readiness probe timeout [NodeConformance]",
    "[sig-node] Probing container with readiness probe that fails should never be ready and never restart "
    "[Conformance] [NodeConformance]",
)
async def test_never_ready(space: Space) -> None:
    made = await space.pod(
        pod(
            "p",
            sh(FOREVER, "slow", readinessProbe=execute("sleep 20", timeoutSeconds=1)),
            sh(FOREVER, "fails", readinessProbe=execute("false")),
            restartPolicy="Always",
        )
    )
    for name, saying in (("slow", "timed out"), ("fails", "probe failed")):
        await space.until("p", lambda p, one=name: status_of(p, one)["state"]["running"])
        await space.event("p", "Unhealthy", saying)
    await asyncio.sleep(3)
    after = await space.get("p")
    for name in ("slow", "fails"):
        assert status_of(after, name)["restartCount"] == 0
        assert not any(
            status_of(v, name)["ready"] for v in space.seen(made) if v["status"].get("containerStatuses")
        )
    assert condition(after, "ContainersReady") == "False"


@behaviour(
    "[sig-node] Probing container with readiness probe should not be ready before initial delay and never "
    "restart [Conformance] [NodeConformance]"
)
async def test_ready_after_the_delay(space: Space) -> None:
    made = await space.pod(pod("p", sh(FOREVER, readinessProbe=execute("true", initialDelaySeconds=3))))
    after = await space.until("p", ready)
    runs = (v for v in space.seen(made) if v["status"].get("containerStatuses"))
    assert not ready(next(v for v in runs if "running" in status_of(v)["state"]))
    begun = datetime.fromisoformat(status_of(after)["state"]["running"]["startedAt"])
    (turn,) = (one for one in after["status"]["conditions"] if one["type"] == "Ready")
    then = datetime.fromisoformat(turn["lastTransitionTime"])
    assert (then - begun).total_seconds() >= 2, "both are whole seconds"
    assert status_of(after)["restartCount"] == 0


@behaviour("[sig-node] Probing container should be restarted startup probe fails [NodeConformance]")
async def test_startup_fails(space: Space) -> None:
    probe = execute("false", failureThreshold=2)
    after = await restarts(space, sh(FOREVER, startupProbe=probe, livenessProbe=execute("true")))
    assert not any(status_of(v)["started"] for v in space.seen(after) if v["status"].get("containerStatuses"))


@behaviour(
    "[sig-node] Probing container should *not* be restarted by liveness probe because startup probe delays "
    "it [NodeConformance]"
)
async def test_startup_delays_liveness(space: Space) -> None:
    probe = execute("false", failureThreshold=60)
    await space.pod(pod("p", sh(FOREVER, startupProbe=probe, livenessProbe=execute("false"))))
    await space.until("p", lambda p: status_of(p)["state"]["running"])
    await asyncio.sleep(4)
    after = await space.get("p")
    assert (status_of(after)["restartCount"], status_of(after)["started"]) == (0, False)


@behaviour(
    "[sig-node] Probing container should be restarted by liveness probe after startup probe enables it "
    "[NodeConformance]"
)
async def test_startup_enables_liveness(space: Space) -> None:
    startup = execute("cat /tmp/started", failureThreshold=60)
    script = "sleep 2; touch /tmp/started; " + FOREVER
    # Its failures count for long enough that it is reported to have started before it is restarted.
    liveness = execute("false", failureThreshold=5)
    after = await restarts(space, sh(script, startupProbe=startup, livenessProbe=liveness))
    assert any(status_of(v)["started"] for v in space.seen(after) if v["status"].get("containerStatuses"))


@behaviour(
    "[sig-node] Probing container should be ready immediately after startupProbe succeeds [NodeConformance]"
)
async def test_ready_with_startup(space: Space) -> None:
    startup = execute("cat /tmp/started", failureThreshold=60)
    script = "sleep 2; touch /tmp/started; " + FOREVER
    readiness = {**execute("true"), "periodSeconds": 600}
    made = await space.pod(pod("p", sh(script, startupProbe=startup, readinessProbe=readiness)))
    await space.until("p", ready)  # in less than that, that is
    waited = [v for v in space.seen(made) if v["status"].get("containerStatuses")]
    assert not any(status_of(v)["ready"] and not status_of(v)["started"] for v in waited)


@behaviour(
    "[sig-node] Probing container should override timeoutGracePeriodSeconds when LivenessProbe field is set "
    "[NodeConformance]"
)
async def test_grace_of_liveness(space: Space) -> None:
    probe = execute("false", terminationGracePeriodSeconds=1)
    deaf = "trap '' TERM; while :; do sleep 0.2; done"
    after = await restarts(space, sh(deaf, livenessProbe=probe), terminationGracePeriodSeconds=500)
    assert WAIT_S < 500, "it was no longer waited for than that"
    assert terminated(after)["exitCode"] == 137
    await space.delete("p", grace_period_s=1)


@behaviour(
    "[sig-node] Probing container should override timeoutGracePeriodSeconds when StartupProbe field is set "
    "[NodeConformance]"
)
async def test_grace_of_startup(space: Space) -> None:
    """The liveness probe has a grace period too, which is not the one that counts."""
    startup = execute("false", terminationGracePeriodSeconds=1)
    liveness = execute("true", terminationGracePeriodSeconds=500)
    deaf = "trap '' TERM; while :; do sleep 0.2; done"
    container = sh(deaf, startupProbe=startup, livenessProbe=liveness)
    after = await restarts(space, container, terminationGracePeriodSeconds=500)
    assert terminated(after)["exitCode"] == 137
    await space.delete("p", grace_period_s=1)


@behaviour(
    "[sig-node] Probing container should mark readiness on pods to false while pod is in progress of "
    "terminating when a pod has a readiness probe [NodeConformance]",
    "[sig-node] Probing container should mark readiness on pods to false and disable liveness probes while "
    "pod is in progress of terminating [NodeConformance]",
)
async def test_unready_while_it_ends(space: Space) -> None:
    slow = "trap 'rm /tmp/ok; sleep 3; exit 0' TERM; touch /tmp/ok; while :; do sleep 0.1; done"
    probe = execute("cat /tmp/ok")
    container = sh(
        slow, readinessProbe=probe, livenessProbe=probe, startupProbe=execute("cat /tmp/ok", **HOLDS)
    )
    made = await space.pod(pod("p", container, terminationGracePeriodSeconds=60, restartPolicy="Always"))
    await space.until("p", ready)
    await space.delete("p", grace_period_s=60)
    await space.once(made, lambda p: not ready(p) and p["metadata"].get("deletionTimestamp"))
    await space.gone("p")
    last = space.seen(made)[-1]
    assert status_of(last)["restartCount"] == 0
    assert terminated(last)["exitCode"] == 0, "the liveness probe, failing by then, killed nothing"


@behaviour(
    '[sig-node] Probing restartable init container should be restarted with a exec "cat /tmp/health" '
    "liveness probe [NodeConformance]",
    "[sig-node] Probing restartable init container should have monotonically increasing restart count "
    "[NodeConformance]",
)
async def test_sidecar_liveness(space: Space) -> None:
    script = HEALTH + "sleep 1; rm /tmp/health; " + FOREVER
    side = sh(script, "side", restartPolicy="Always", livenessProbe=execute("cat /tmp/health"))
    made = await space.pod(pod("p", FOREVER, initContainers=[side]))
    after = await space.until("p", lambda p: status_of(p, "side")["restartCount"] >= 2)
    assert status_of(after)["restartCount"] == 0
    counts = [
        status_of(v, "side")["restartCount"]
        for v in space.seen(made)
        if v["status"].get("initContainerStatuses")
    ]
    assert counts == sorted(counts)


@behaviour(
    "[sig-node] Probing restartable init container should be ready immediately after startupProbe succeeds "
    "[NodeConformance]",
    "[sig-node] Probing restartable init container with readiness probe that fails should never be ready and "
    "never restart [NodeConformance]",
)
async def test_sidecar_readiness(space: Space) -> None:
    startup = execute("cat /tmp/started", failureThreshold=60)
    side = sh("sleep 1; touch /tmp/started; " + FOREVER, "side", restartPolicy="Always", startupProbe=startup)
    deaf = sh(FOREVER, "deaf", restartPolicy="Always", readinessProbe=execute("false"))
    await space.pod(pod("good", FOREVER, initContainers=[side]))
    await space.pod(pod("bad", FOREVER, initContainers=[deaf]))
    await space.until("good", ready)
    bad = await space.until("bad", lambda p: status_of(p)["state"]["running"] and status_of(p)["ready"])
    assert (condition(bad, "Ready"), status_of(bad, "deaf")["restartCount"]) == ("False", 0)


@behaviour(
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec "
    "hook properly [Conformance] [NodeConformance]",
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec "
    "hook properly [Conformance] [NodeConformance]",
    "[sig-node] PreStop should call prestop when killing a pod [Conformance]",
)
async def test_exec_hooks(space: Space) -> None:
    hook = {"exec": {"command": ["sh", "-c", "echo $0 > /proc/1/fd/1"]}}
    hooks = {
        "postStart": {"exec": {"command": [*hook["exec"]["command"], "begun"]}},
        "preStop": {"exec": {"command": [*hook["exec"]["command"], "ending"]}},
    }
    script = "trap 'echo ended; sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    await space.pod(pod("p", sh(script, lifecycle=hooks)))
    await space.until("p", ready)
    await space.said("p", "begun\n")
    async with space.cluster.kubectl_running("-n", space.name, "logs", "-f", "p") as process:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"begun\n"  # it follows from here on
        await space.delete("p", grace_period_s=20)
        assert await asyncio.wait_for(process.stdout.read(), 60) == b"ending\nended\n"


@behaviour(
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http "
    "hook properly [Conformance] [NodeConformance]",
    "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http "
    "hook properly [Conformance] [NodeConformance]",
)
async def test_http_hooks(space: Space) -> None:
    code = (
        "import http.server as h, os, sys\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "  def do_GET(self): print(self.path, flush=True); self.send_response(200); self.end_headers()\n"
        "  def log_message(self, *a): pass\n"
        "h.HTTPServer((os.environ['POD_IP'], 8080), H).serve_forever()"
    )
    await space.pod(pod("target", http_server() | {"command": ["python3", "-S", "-c", code]}))
    target = await space.until("target", lambda p: ready(p) and p["status"]["podIP"])
    host = target["status"]["podIP"]
    await space.until("target", lambda p: status_of(p)["started"])

    def hook(path: str) -> Object:
        return {"httpGet": {"host": host, "port": 8080, "path": path}}

    await _reachable(host)
    await space.pod(
        pod("p", sh(FOREVER, lifecycle={"postStart": hook("/poststart"), "preStop": hook("/prestop")}))
    )
    await space.until("p", ready)
    await space.said("target", "/poststart\n")
    await space.delete("p", grace_period_s=20)
    await space.gone("p")
    await space.said("target", "/poststart\n/prestop\n")


async def _reachable(host: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, 8080)
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


@behaviour(
    "[sig-node] Lifecycle Sleep Hook when create a pod with lifecycle hook using sleep action valid prestop "
    "hook using sleep action [NodeConformance]",
    "[sig-node] Lifecycle Sleep Hook when create a pod with lifecycle hook using sleep action reduce "
    "GracePeriodSeconds during runtime [NodeConformance]",
    "[sig-node] Lifecycle Sleep Hook when create a pod with lifecycle hook using sleep action ignore "
    "terminated container [NodeConformance]",
)
async def test_sleep_hook(space: Space) -> None:
    loop = asyncio.get_running_loop()

    async def lasts(name: str, seconds: int, script: str, grace_s: int, then_s: int | None = None) -> float:
        hooks = {"preStop": {"sleep": {"seconds": seconds}}}
        await space.pod(pod(name, sh(script, lifecycle=hooks), terminationGracePeriodSeconds=400))
        await space.until(name, lambda p: over(p) if script == "exit 0" else ready(p))
        begun = loop.time()
        await space.delete(name, grace_period_s=grace_s)
        if then_s is not None:
            await asyncio.sleep(1)
            await space.delete(name, grace_period_s=then_s)
        await space.gone(name)
        return loop.time() - begun

    whole, cut, ended = await asyncio.gather(
        lasts("whole", 3, FOREVER, 300),
        lasts("cut", 300, FOREVER, 300, 2),
        lasts("ended", 300, "exit 0", 300),
    )
    assert whole > 2.9
    assert max(whole, cut, ended) < 200


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when Running a pod with multiple containers and a PostStart hook should not launch "
    "second container before PostStart of the first container completed [NodeConformance]"
)
async def test_one_after_the_other(space: Space) -> None:
    mounts = [mount("v", "/v")]
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "sleep 1; touch /v/done"]}}}
    first = sh(FOREVER, "first", lifecycle=hook, volumeMounts=mounts)
    second = sh("test -e /v/done && echo after", "second", volumeMounts=mounts)
    await space.pod(pod("p", first, second, volumes=[{"name": "v", "emptyDir": {}}]))
    done = await space.until("p", lambda p: terminated(p, "second"))
    assert terminated(done, "second")["exitCode"] == 0


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when A regular container has a PreStop hook when A regular container fails a "
    "liveness probe should call the container's preStop hook and terminate it if its liveness probe fails "
    "[NodeConformance]",
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when A regular container has a PreStop hook when A regular container fails a "
    "startup probe should call the container's preStop hook and terminate it if its startup probe fails "
    "[NodeConformance]",
)
async def test_hook_before_a_restart(space: Space) -> None:
    mounts, volumes = [mount("v", "/v")], [{"name": "v", "emptyDir": {}}]
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /v/log"]}}}
    script = "cat /v/log 2>/dev/null; " + FOREVER
    for name, probe in (("live", "livenessProbe"), ("start", "startupProbe")):
        once = execute("test -e /v/log", failureThreshold=1)
        container = sh(script, lifecycle=hook, volumeMounts=mounts, **{probe: once})
        await space.pod(pod(name, container, restartPolicy="Always", volumes=volumes))
    for name in ("live", "start"):
        await space.until(name, lambda p: status_of(p)["restartCount"] == 1 and ready(p))
        await space.said(name, "hook\n")
