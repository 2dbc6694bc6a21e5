"""The real kubectl against these nodes: logs, rollouts, patches, taints, and what it describes."""

from __future__ import annotations

import json

import yaml

from switchboard.kube import DEPLOYMENTS, NODES, PODS, SERVICES, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.conftest import LAB
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    REPLICATION_CONTROLLERS,
    http_server,
    over,
    pod,
    ready,
    sh,
    status_of,
    template,
    workload,
)
from tests.infra.local.behaviours.scenario import behaviour


@behaviour("[sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]")
async def test_logs(space: Space) -> None:
    script = "echo one; echo two; sleep 3; echo three"
    await space.pod(pod("p", script))
    await space.until("p", over)

    async def lines(*options: str) -> list[str]:
        return (await space.kubectl("logs", "p", *options)).splitlines()

    assert await lines() == ["one", "two", "three"]
    assert await lines("--tail=1") == ["three"]
    assert await lines("--limit-bytes=3") == ["one"]
    (stamped,) = await lines("--tail=1", "--timestamps")
    stamp, _, text = stamped.partition(" ")
    assert text == "three"
    # Its whole second: the lines before are three seconds older.
    assert await lines(f"--since-time={stamp[:19]}Z") == ["three"]
    assert await lines("--since=24h") == ["one", "two", "three"]


@behaviour(
    "[sig-cli] Kubectl logs default container logs the second container is the default-container by "
    "annotation should log default container if not specified",
    "[sig-cli] Kubectl logs all pod logs the Deployment has 2 replicas and each pod has 2 containers should "
    "get logs from each pod and each container in Deployment",
)
async def test_logs_of_many(space: Space) -> None:
    body = workload("d", 2, sh("echo first; " + FOREVER, "first"), sh("echo second; " + FOREVER, "second"))
    body["spec"]["template"]["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/default-container": "second"
    }
    await space.create(DEPLOYMENTS, body)
    pods = await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods))
    for p in pods:
        for container in ("first", "second"):
            await space.said(p["metadata"]["name"], f"{container}\n", container)
    assert (await space.kubectl("logs", pods[0]["metadata"]["name"])).splitlines()[-1] == "second"
    every = await space.kubectl("logs", "deployment/d", "--all-pods=true", "--all-containers=true")
    assert sorted(line.split()[-1] for line in every.splitlines()) == ["first", "first", "second", "second"]


@behaviour("[sig-cli] Kubectl client Simple pod should contain last line of the log")
async def test_followed_to_the_end(space: Space) -> None:
    await space.pod(pod("p", "for i in 1 2 3; do echo $i; sleep 0.3; done; echo last"))
    await space.until("p", lambda p: ready(p) or over(p))
    assert (await space.kubectl("logs", "-f", "p")).splitlines()[-1] == "last"


@behaviour(
    "[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]",
    "[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]",
    "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information "
    "for rc and pods [Conformance]",
    "[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]",
)
async def test_replication_controller(space: Space) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "rc"},
        "spec": {"replicas": 1, "selector": {"app": "rc"}, "template": template("rc", http_server())},
    }
    await space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    await space.kubectl("scale", "rc", "rc", "--replicas=2")
    pods = await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods))
    name = pods[0]["metadata"]["name"]
    await space.kubectl("patch", "pod", name, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    await space.until(name, lambda p: p["metadata"]["annotations"]["x"] == "y")
    described = await space.kubectl("describe", "pod", name)
    for wanted in ("Controlled By:", "ReplicationController/rc", "Started", "Annotations:", "x: y"):
        assert wanted in described
    await space.until("rc", lambda r: r["status"]["readyReplicas"] == 2, REPLICATION_CONTROLLERS)
    assert "2 current / 2 desired" in await space.kubectl("describe", "rc", "rc")
    await space.kubectl("expose", "rc", "rc", "--name=front", "--port=80", "--target-port=8080")
    address = (await space.get("front", SERVICES))["spec"]["clusterIP"]
    out = await space.output(
        pod("asks", f"until curl -sf -o /dev/null http://{address}/; do sleep 0.1; done; echo answered")
    )
    assert out == "answered\n"
    await space.kubectl("delete", "rc", "rc")
    await space.gone("rc", REPLICATION_CONTROLLERS)


@behaviour(
    "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]",
    "[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]",
)
async def test_run_and_replace(space: Space) -> None:
    await space.kubectl("run", "p", "--image=debian:12", "--restart=Always", "--", "sh", "-c", FOREVER)
    await space.until("p", ready)
    await space.kubectl("label", "pod", "p", "color=blue")
    body: Object = json.loads(await space.kubectl("get", "pod", "p", "-o", "json"))
    assert body["metadata"]["labels"]["color"] == "blue"
    body["spec"]["containers"][0]["image"] = "busybox:1.36"
    del body["metadata"]["resourceVersion"]  # its status may change meanwhile
    await space.kubectl("replace", "-f", "-", stdin=json.dumps(body))
    after = await space.until("p", lambda p: status_of(p, "p")["restartCount"] == 1 and ready(p))
    assert status_of(after, "p")["image"] == "busybox:1.36"


@behaviour(
    "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments "
    "[Conformance]",
    "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods "
    "[Conformance]",
)
async def test_diff(space: Space) -> None:
    body = {"apiVersion": "apps/v1", "kind": "Deployment", **workload("d", 1)}
    await space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    await space.until("d", lambda d: d["status"].get("readyReplicas") == 1, DEPLOYMENTS)
    body["spec"]["replicas"] = 2
    shown = await space.kubectl("diff", "-f", "-", stdin=yaml.safe_dump(body), ok=False)
    assert "+  replicas: 2" in shown
    await space.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(body))
    assert (await space.get("d", DEPLOYMENTS))["spec"]["replicas"] == 1


@behaviour(
    "[sig-cli] Kubectl client Kubectl taint should update the taint on a node [Serial]",
    "[sig-cli] Kubectl client Kubectl events should show event when pod is created",
    "[sig-cli] Kubectl client kubectl wait should ignore not found error with --for=delete",
)
async def test_small_things(space: Space) -> None:
    key = f"test.switchboard.dev/{space.name[:40]}"
    await space.kubectl("taint", "nodes", LAB[2], f"{key}=x:PreferNoSchedule")
    assert any(t["key"] == key for t in (await space.kube.get(NODES, LAB[2]))["spec"]["taints"])
    await space.kubectl("taint", "nodes", LAB[2], f"{key}-")
    assert not any(t["key"] == key for t in (await space.kube.get(NODES, LAB[2]))["spec"]["taints"])
    await space.pod(pod("p", "true"))
    await space.until("p", over)
    await space.event("p", "Started")
    assert "Started" in await space.kubectl("events", "--for=pod/p")
    await space.kubectl("wait", "--for=delete", "pod/not-there", "--timeout=60s")


@behaviour("[sig-network] Services should serve a basic endpoint from pods [Conformance]")
async def test_service(space: Space) -> None:
    """Through the Service proxy, without EndpointSlices."""
    server = http_server(readinessProbe={"tcpSocket": {"port": "http"}, "periodSeconds": 1})
    await space.create(DEPLOYMENTS, workload("web", 2, server))
    ports = [{"port": 80, "targetPort": "http"}]
    await space.create(
        SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    )
    first = await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods))
    asks = "for i in 1 2 3 4 5 6; do until curl -sf -o /dev/null http://web/; do sleep 0.1; done; done; echo answered"
    assert await space.output(pod("asks", asks)) == "answered\n"
    await space.kube.request("DELETE", PODS.path(space.name), params={"labelSelector": "app=web"})
    old = {p["metadata"]["uid"] for p in first}
    await space.until_all(
        lambda pods: len(pods) == 2 and all(ready(p) and p["metadata"]["uid"] not in old for p in pods),
        app="web",
    )
    assert await space.output(pod("asks-again", asks)) == "answered\n"
