"""Pods on a real control plane and a real node: what they see, how they run, how they end."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from switchboard import labels
from switchboard.kube import CONFIG_MAPS, JOBS, LEASES, NODES, PODS, SECRETS, SERVICES, Object
from tests.infra.local.node.conftest import NODE, WAIT_S, RunningNode, Space, condition, is_ready, main, wait

SWITCHBOARD = "switchboard.dev/switchboard:0.1.0"


async def test_the_node_is_registered(node: RunningNode, space: Space) -> None:
    async def ready() -> bool:
        found = await node.kube.get(NODES, NODE)
        leases = await node.kube.list(LEASES, "kube-node-lease")
        return condition(found, "Ready") == "True" and NODE in {one["metadata"]["name"] for one in leases}

    await wait(ready, "the node isn't ready")
    found = await node.kube.get(NODES, NODE)
    layout = node.plane.layout.node(NODE)
    shown = found["metadata"]["labels"]
    assert shown[labels.HOSTNAME] == NODE
    assert (shown[labels.TIER], shown[labels.ZONE]) == ("core", "cn-shenzhen-b")
    status = found["status"]
    assert {"type": "InternalIP", "address": str(layout.ip)} in status["addresses"]
    assert (status["allocatable"]["cpu"], status["allocatable"]["memory"]) == ("4", "8Gi")
    lease = await node.kube.get(LEASES, NODE, "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == NODE
    assert lease["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]


async def test_what_a_pod_sees(space: Space) -> None:
    await space.create(CONFIG_MAPS, {"metadata": {"name": "conf"}, "data": {"greeting": "hello"}})
    await space.create(SECRETS, {"metadata": {"name": "sec"}, "stringData": {"pw": "s3cret"}})
    await space.create(SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    web = await space.get("web", SERVICES)
    script = """
        echo "$GREETING $PW $POD_IP $KUBERNETES_SERVICE_PORT"
        id -u; id -G
        cat /conf/greeting; echo
        getent hosts web | cut -d' ' -f1
        test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token
        touch /data/new && stat -c %g /data/new
        touch /root-is-writable 2>/dev/null || echo read-only
        mount | grep -c ' /mem '
    """
    await space.run(
        "sees",
        "sh",
        "-c",
        script,
        pod={
            "restartPolicy": "Never",
            "securityContext": {
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10002,
                "runAsNonRoot": True,
            },
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf"}},
                {"name": "data", "emptyDir": {}},
                {"name": "mem", "emptyDir": {"medium": "Memory"}},
            ],
        },
        securityContext={"readOnlyRootFilesystem": True},
        env=[
            {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "greeting"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        volumeMounts=[
            {"name": "conf", "mountPath": "/conf"},
            {"name": "data", "mountPath": "/data"},
            {"name": "mem", "mountPath": "/mem"},
        ],
    )
    pod = await space.until("sees", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    assert (await space.log("sees")).split("\n") == [
        f"hello s3cret {pod['status']['podIP']} 6443",
        "10001",
        "10001 10002",
        "hello",
        web["spec"]["clusterIP"],
        "token",
        "10002",
        "read-only",
        "1",
        "",
    ]
    assert pod["status"]["phase"] == "Succeeded"
    assert main(pod)["state"]["terminated"]["reason"] == "Completed"


async def test_init_containers_and_sidecars_come_first_and_end_last(space: Space) -> None:
    order = {"name": "order", "mountPath": "/order"}
    side = "trap 'echo side-ends >> /order/log; exit 0' TERM; echo side >> /order/log; while :; do sleep 0.1; done"

    def one(name: str, script: str, **more: object) -> Object:
        command = ["sh", "-c", script]
        return {"name": name, "image": "debian:bookworm", "command": command, "volumeMounts": [order], **more}

    side_started = {
        "exec": {"command": ["grep", "-q", "side", "/order/log"]},
        "periodSeconds": 1,
        "failureThreshold": 120,
    }
    side_started["timeoutSeconds"] = 20
    await space.run(
        "ordered",
        "sh",
        "-c",
        "echo main >> /order/log; cat /order/log",
        pod={
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 60,
            "initContainers": [
                one("first", "echo first >> /order/log"),
                one("side", side, restartPolicy="Always", startupProbe=side_started),
                one("second", "echo second >> /order/log"),
            ],
            "volumes": [{"name": "order", "emptyDir": {}}],
        },
        volumeMounts=[order],
    )
    pod = await space.until("ordered", lambda p: p["status"]["phase"] == "Succeeded")
    assert (await space.log("ordered")).split() == ["first", "side", "second", "main"]
    states = {c["name"]: c["state"]["terminated"] for c in pod["status"]["initContainerStatuses"]}
    assert {name: state["exitCode"] for name, state in states.items()} == {"first": 0, "side": 0, "second": 0}
    assert condition(pod, "Initialized") == "True"


async def test_ready_when_the_probe_says_so_and_not_ready_once_deleted(space: Space) -> None:
    await space.run(
        "probed",
        "python3",
        "-m",
        "http.server",
        "8080",
        "--bind",
        "$(POD_IP)",
        pod={"terminationGracePeriodSeconds": 300},
        image=SWITCHBOARD,
        env=[{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        ports=[{"name": "http", "containerPort": 8080}],
        readinessProbe={"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        livenessProbe={"tcpSocket": {"port": "http"}, "initialDelaySeconds": 30},
        lifecycle={"preStop": {"sleep": {"seconds": 200}}},
    )
    pod = await space.until("probed", is_ready)
    assert main(pod)["started"]
    reader, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    await space.kube.delete(PODS, "probed", space.name)
    ending = await space.until("probed", lambda p: not is_ready(p))
    assert "running" in main(ending)["state"], "in its preStop hook: it still serves, but gets nothing new"
    await space.kube.delete(PODS, "probed", space.name, grace_period_s=1)
    await space.gone("probed")


async def test_a_pod_reaches_the_api_server_without_a_service_proxy(space: Space) -> None:
    """None runs here; and where one does, an ordinary user's may not have port 443."""
    code = """
import asyncio, os
from switchboard.kube import Credentials, Kube

async def main():
    async with Kube(Credentials.in_cluster(os.environ)) as kube:
        print((await kube.request("GET", "/version"))["major"])

asyncio.run(main())
"""
    pod: Object = {"restartPolicy": "Never"}
    await space.run("asks", "python", "-c", code, pod=pod, image=SWITCHBOARD)
    await space.until("asks", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    assert await space.log("asks") == "1\n"


async def test_a_graceful_end_lets_the_program_finish(space: Space) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    await space.run("graceful", "sh", "-c", script, pod={"terminationGracePeriodSeconds": 30})
    await space.until("graceful", is_ready)
    credentials = space.kube.credentials
    url = f"{credentials.server}{PODS.path(space.name, 'graceful', 'log')}?follow=true"
    async with (
        asyncio.timeout(WAIT_S),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=credentials.ssl_context())) as session,
        session.get(url) as following,
    ):
        assert await following.content.readline() == b"up\n", "the follower follows"
        await space.kube.delete(PODS, "graceful", space.name)
        await space.gone("graceful")
        assert await following.content.read() == b"bye\n"


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")],
)
async def test_pods_that_end(space: Space, policy: str, code: int, phase: str) -> None:
    await space.run("ends", "sh", "-c", f"exit {code}", pod={"restartPolicy": policy})
    pod = await space.until("ends", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    assert pod["status"]["phase"] == phase
    assert main(pod)["state"]["terminated"]["exitCode"] == code


async def test_crash_loop_with_message_and_previous_log(space: Space) -> None:
    await space.run(
        "crashes", "sh", "-c", "echo why it failed; exit 2", terminationMessagePolicy="FallbackToLogsOnError"
    )
    pod = await space.until(
        "crashes",
        lambda p: (
            main(p)["restartCount"] >= 2 and main(p)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        ),
    )
    last = main(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (2, "Error", "why it failed\n")
    assert pod["status"]["phase"] == "Running"
    assert await space.log("crashes", previous="true") == "why it failed\n"
    await space.event("crashes", "BackOff")


async def test_a_failed_liveness_probe_restarts_the_container(space: Space) -> None:
    script = "test -e /state/second && exec sleep inf; touch /state/second; exec sleep inf"
    probe = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    await space.run(
        "lives",
        "sh",
        "-c",
        script,
        pod={"volumes": [{"name": "state", "emptyDir": {}}]},
        volumeMounts=[{"name": "state", "mountPath": "/state"}],
        livenessProbe=probe,
    )
    pod = await space.until("lives", lambda p: main(p)["restartCount"] >= 1)
    assert main(pod)["lastState"]["terminated"]["exitCode"] == 137
    await space.event("lives", "Unhealthy")
    await space.event("lives", "Killing")


CANNOT = [
    ("noimage", {"image": "ghost:1"}, {}, {"ErrImagePull", "ImagePullBackOff"}, "no image 'ghost:1' here"),
    (
        "asroot",
        {},
        {"securityContext": {"runAsNonRoot": True}},
        {"CreateContainerConfigError"},
        "runAsNonRoot",
    ),
    (
        "hostnet",
        {},
        {"hostNetwork": True},
        {"CreateContainerConfigError"},
        "spec.hostNetwork is not supported",
    ),
    (
        "nosecret",
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "a"}}}]},
        {},
        {"CreateContainerConfigError"},
        'secret "no" not found',
    ),
]


@pytest.mark.parametrize(
    ("name", "container", "spec", "reasons", "why"), CANNOT, ids=[case[0] for case in CANNOT]
)
async def test_what_cannot_run_says_why(
    space: Space, name: str, container: Object, spec: Object, reasons: set[str], why: str
) -> None:
    await space.run(name, "sleep", "inf", pod=spec, **container)
    pod = await space.until(name, lambda p: main(p)["state"]["waiting"]["reason"] in reasons)
    assert why in main(pod)["state"]["waiting"]["message"]
    assert pod["status"]["phase"] == "Pending"
    await space.kube.delete(PODS, name, space.name)
    await space.gone(name)


async def test_a_volume_that_comes_later(space: Space) -> None:
    volumes = [{"name": "v", "configMap": {"name": "later"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    await space.run("waits", "sh", "-c", "cat /v/a; sleep inf", pod={"volumes": volumes}, volumeMounts=mounts)
    assert 'configmap "later" not found' in (await space.event("waits", "FailedMount"))["message"]
    await space.create(CONFIG_MAPS, {"metadata": {"name": "later"}, "data": {"a": "one"}})
    await space.until("waits", is_ready)


async def test_a_mounted_config_map_follows_its_changes(space: Space) -> None:
    await space.create(CONFIG_MAPS, {"metadata": {"name": "live"}, "data": {"a": "one"}})
    script = "while ! grep -q two /v/a; do sleep 0.1; done; echo changed"
    await space.run(
        "follows",
        "sh",
        "-c",
        script,
        pod={"restartPolicy": "Never", "volumes": [{"name": "v", "configMap": {"name": "live"}}]},
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    await space.until("follows", is_ready)
    await space.kube.patch(CONFIG_MAPS, "live", {"data": {"a": "two"}}, space.name)
    await space.until("follows", lambda p: p["status"]["phase"] == "Succeeded")


async def test_out_of_memory_is_told(space: Space) -> None:
    await space.run(
        "hungry",
        "python3",
        "-c",
        "x = bytearray(300 << 20)",
        pod={"restartPolicy": "Never"},
        image=SWITCHBOARD,
        resources={"limits": {"memory": "64Mi"}},
    )
    pod = await space.until("hungry", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    if main(pod)["state"]["terminated"]["exitCode"] == 0:
        pytest.skip("memory limits are not enforced on this machine")
    assert main(pod)["state"]["terminated"]["reason"] == "OOMKilled"


async def test_listening_on_all_addresses_is_named(space: Space) -> None:
    script = (
        "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); "
        "print(s.getsockname()[1], flush=True); time.sleep(99)"
    )
    await space.run("greedy", "python3", "-c", script, image=SWITCHBOARD)
    message = (await space.event("greedy", "BindsAllAddresses"))["message"]

    async def printed() -> bool:
        return (await space.log("greedy")).endswith("\n")  # it listens before it says so

    await wait(printed, "it doesn't say its port")
    assert f"port {(await space.log('greedy')).strip()}:" in message


async def test_a_deadline_ends_a_pod(space: Space) -> None:
    await space.run("late", "sleep", "inf", pod={"activeDeadlineSeconds": 1})
    pod = await space.until("late", lambda p: p["status"]["phase"] == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_a_job(space: Space) -> None:
    container = {"name": "main", "image": "debian:bookworm", "command": ["true"]}
    body = {
        "metadata": {"name": "job"},
        "spec": {
            "template": {"spec": {"nodeName": NODE, "restartPolicy": "Never", "containers": [container]}}
        },
    }
    await space.create(JOBS, body)
    await space.until("job", lambda j: j["status"].get("succeeded") == 1, JOBS)
