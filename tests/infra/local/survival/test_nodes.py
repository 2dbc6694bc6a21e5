"""What the nodes of a site live through: dying processes, a line that is cut, a disk that is full.

All on one site (`shaky`), whose parts work when a test begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from infra.local import controlplane
from infra.local.health import node_is_ready
from infra.local.node.agent import runtime_dir
from infra.local.node.records import PodRecord
from infra.local.runtime.record import Folder
from switchboard.kube import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    ApiError,
    Object,
    Unreachable,
)
from tests.infra.local.node.conftest import Space, condition, is_ready, main, wait
from tests.infra.local.survival.conftest import CORE, EDGE, GRACE_S, SMALL, Site, SmallDisk

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done")
UNTIL_TOLD = ("sh", "-c", "while ! test -e /space/go; do sleep 0.05; done; exit 3")


def work(node: str, **more: Any) -> dict[str, Any]:
    """What a pod on that node with a folder `/space` has."""
    return {
        "pod": {"nodeName": node, "volumes": [{"name": "work", "emptyDir": {}}], **more},
        "volumeMounts": [{"name": "work", "mountPath": "/space"}],
    }


def tell(shaky: Site, pod: Object) -> None:
    """Have a pod of `UNTIL_TOLD` end."""
    node = shaky.node(pod["spec"]["nodeName"])
    (node.pods_dir / pod["metadata"]["uid"] / "volumes" / "work" / "go").touch()


async def ended(shaky: Site, pod: Object, pid: int) -> None:
    async def so() -> bool:
        return pid not in shaky.pids(pod).values()

    await wait(so, f"{pod['metadata']['name']} still runs")


async def test_a_killed_agent_finds_its_pods_again(shaky: Site, space: Space) -> None:
    """Same processes, right restart counts, and the exit codes of what ended while nobody looked."""
    names = ("stays", "ends", "restarts", "goes")
    for name in names:
        policy = "Never" if name == "ends" else "Always"
        command = UNTIL_TOLD if name in ("ends", "restarts") else FOREVER
        await space.run(name, *command, **work(EDGE, restartPolicy=policy))
    before = {name: await space.until(name, is_ready) for name in names}
    pids = {name: shaky.pids(pod)["main"] for name, pod in before.items()}
    shaky.kill(f"node-{EDGE}")
    for name in ("ends", "restarts"):
        tell(shaky, before[name])
        await ended(shaky, before[name], pids[name])
    await space.kube.delete(PODS, "goes", space.name, grace_period_s=0)
    await space.run("comes", *FOREVER, **work(EDGE))
    await shaky.start(f"node-{EDGE}")
    await space.until("comes", is_ready)
    over = await space.until("ends", lambda p: p["status"]["phase"] == "Failed")
    assert main(over)["state"]["terminated"]["exitCode"] == 3
    again = await space.until("restarts", lambda p: main(p)["restartCount"] >= 1)
    assert main(again)["lastState"]["terminated"]["exitCode"] == 3
    await ended(shaky, before["goes"], pids["goes"])
    after = await space.get("stays")
    assert shaky.pids(after)["main"] == pids["stays"]
    assert main(after)["restartCount"] == 0
    assert main(after)["containerID"] == main(before["stays"])["containerID"]
    assert after["status"]["podIP"] == before["stays"]["status"]["podIP"]


async def test_an_api_server_that_is_gone_for_long(shaky: Site, space: Space) -> None:
    """Longer than a node may be silent: pods go on, restart, and nothing is ended when it returns."""
    for node in (CORE, EDGE):
        await space.run(f"stays-{node}", *FOREVER, **work(node))
    await space.run("crashes", *FOREVER, **work(EDGE))
    names = (f"stays-{CORE}", f"stays-{EDGE}", "crashes")
    before = {name: await space.until(name, is_ready) for name in names}
    pids = {name: shaky.pids(pod)["main"] for name, pod in before.items()}
    shaky.kill(controlplane.API_SERVER)
    os.kill(pids["crashes"], signal.SIGKILL)

    async def restarted() -> bool:
        return shaky.pids(before["crashes"]).get("main", pids["crashes"]) != pids["crashes"]

    await wait(restarted, "not restarted while the API server is away")
    await asyncio.sleep(GRACE_S)  # the condition is time itself: that the lease has run out
    await shaky.start(controlplane.API_SERVER)
    reported = await space.until("crashes", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
    assert main(reported)["lastState"]["terminated"]["exitCode"] == 137
    for node in (CORE, EDGE):
        await shaky.until_node(node, "True")
    await asyncio.sleep(2)  # two looks of the controller manager: whatever it orders, it has ordered by then
    for name in names:
        after = await space.until(name, is_ready)
        assert after["metadata"]["uid"] == before[name]["metadata"]["uid"]
        assert "deletionTimestamp" not in after["metadata"]
        if name != "crashes":
            assert shaky.pids(after)["main"] == pids[name]
            assert main(after)["restartCount"] == 0

    async def untainted() -> bool:
        taints = [t for seen in await shaky.kube.list(NODES) for t in seen["spec"].get("taints") or []]
        return "NoExecute" not in {taint["effect"] for taint in taints}

    await wait(untainted, "pods are still sent away")


async def test_etcd_is_killed_and_comes_back(shaky: Site, space: Space) -> None:
    """The API server stays and reconnects; watches go on, and what came before is still there."""
    await space.run("before", *FOREVER, **work(EDGE))
    there = await space.until("before", is_ready)
    server = shaky.record(controlplane.API_SERVER)
    shaky.kill(controlplane.ETCD)
    with pytest.raises((ApiError, Unreachable)):
        await shaky.kube.create(PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}}, space.name)
    await shaky.start(controlplane.ETCD)

    async def created() -> bool:
        try:
            await space.run("after", *FOREVER, **work(EDGE))
        except (ApiError, Unreachable) as error:
            return isinstance(error, ApiError) and error.reason == "AlreadyExists"
        return True

    await wait(created, "the API server takes no requests")
    await space.until("after", is_ready)
    assert shaky.record(controlplane.API_SERVER).pid == server.pid
    assert (await space.get("before"))["metadata"]["uid"] == there["metadata"]["uid"]
    await space.kube.delete(PODS, "before", space.name)
    await space.gone("before")


# A node that is cut off

SCRIPT = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def there_first(name: str) -> Object:
    """Affinity to a node, which isn't a must."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}
    preferred = [{"weight": 1, "preference": {"matchExpressions": [expression]}}]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def workload(name: str, *, node: str = "", pod: Object | None = None, **spec: Any) -> Object:
    """A Deployment, StatefulSet or DaemonSet whose pods leave a lost node after 2 s."""
    labels = {"app": name}
    tolerations = [
        {
            "key": f"node.kubernetes.io/{why}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 2,
        }
        for why in ("unreachable", "not-ready")
    ]
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": tolerations,
                    "containers": [
                        {"name": "main", "image": "debian:bookworm", "command": ["sh", "-c", SCRIPT]}
                    ],
                    **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
                    **(pod or {}),
                },
            },
            **spec,
        },
    }


async def pods(space: Space, app: str) -> list[Object]:
    return await space.kube.list(PODS, space.name, label_selector=f"app={app}")


async def ready_pod(space: Space, app: str, node: str, *, but: str = "") -> Object:
    """The ready pod of a workload on that node (and not the one with the uid `but`)."""
    found: list[Object] = []

    async def there() -> bool:
        found[:] = [
            pod
            for pod in await pods(space, app)
            if (pod["spec"].get("nodeName"), pod["metadata"]["uid"] == but) == (node, False)
            and "deletionTimestamp" not in pod["metadata"]
            and node_is_ready(pod)  # a pod's condition looks like a node's
        ]
        return bool(found)

    await wait(there, f"no ready pod of {app} on {node}")
    return found[0]


async def test_a_lost_node_s_pods_go_elsewhere_and_the_stale_ones_end_when_it_is_back(
    shaky: Site, space: Space
) -> None:
    preferring = {"affinity": there_first(EDGE)}
    await space.create(DEPLOYMENTS, workload("app", pod=preferring, replicas=1))
    await space.create(STATEFUL_SETS, workload("db", node=EDGE, serviceName="db", replicas=1))
    await space.create(DAEMON_SETS, workload("each", node=EDGE))
    before = {app: await ready_pod(space, app, EDGE) for app in ("app", "db", "each")}
    pids = {app: shaky.pids(pod)["main"] for app, pod in before.items()}
    shaky.lines[EDGE].cut()
    await shaky.until_node(EDGE, "Unknown")
    lost = await shaky.kube.get(NODES, EDGE)
    assert (
        next(c["reason"] for c in lost["status"]["conditions"] if c["type"] == "Ready") == "NodeStatusUnknown"
    )
    await ready_pod(space, "app", CORE)
    given_up = await space.until(
        "db-0", lambda p: "deletionTimestamp" in p["metadata"] and condition(p, "Ready") == "False"
    )
    assert given_up["metadata"]["uid"] == before["db"]["metadata"]["uid"], "never two of one identity"
    (kept,) = await pods(space, "each")
    assert "deletionTimestamp" not in kept["metadata"], "a DaemonSet's pod waits for its node"
    assert {app: shaky.pids(pod).get("main") for app, pod in before.items()} == pids, (
        "they go on all the while"
    )

    shaky.lines[EDGE].join()
    await shaky.until_node(EDGE, "True")
    await ready_pod(space, "db", EDGE, but=before["db"]["metadata"]["uid"])

    async def stale_ones_gone() -> bool:
        names = {p["metadata"]["name"] for p in await pods(space, "app")}
        stale = [shaky.pids(before[app]) for app in ("app", "db")]
        return before["app"]["metadata"]["name"] not in names and not any(stale)

    await wait(stale_ones_gone, "what was replaced meanwhile still runs")
    each = await ready_pod(space, "each", EDGE)
    assert each["metadata"]["uid"] == before["each"]["metadata"]["uid"]
    assert (main(each)["restartCount"], shaky.pids(each)) == (0, {"main": pids["each"]})


async def crash_the_machine(shaky: Site, name: str) -> None:
    """What a restart of the node's machine leaves: no process, and files of a boot that is over."""
    shaky.kill(f"node-{name}")
    folders = [Folder(path) for path in runtime_dir(shaky.node(name)).iterdir()]
    for folder in folders:
        for pid in (folder.read_raw().get("shim"), folder.read_raw().get("pid")):
            if pid and folder.shim_lives():
                with contextlib.suppress(ProcessLookupError):  # a container goes with its shim
                    os.kill(pid, signal.SIGKILL)

    async def dead() -> bool:
        return not any(folder.shim_lives() for folder in folders)

    await wait(dead, "what runs on the node outlives its machine")
    for path in shaky.node(name).pods_dir.glob("*/record.json"):
        record = PodRecord.model_validate_json(path.read_text())
        record.sandbox = "another-boot"
        path.write_text(record.model_dump_json())


async def has(log: Path, lines: int) -> bool:
    return log.exists() and log.read_text().count("\n") == lines  # noqa: ASYNC240 - no time at all


async def test_a_node_that_is_cut_off_starts_its_pods_alone_after_a_restart(
    shaky: Site, space: Space
) -> None:
    config = {"metadata": {"name": "config"}, "data": {"colour": "red"}}
    await space.create(CONFIG_MAPS, config)
    await space.create(SECRETS, {"metadata": {"name": "secret"}, "stringData": {"word": "xyzzy"}})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    await space.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": claim})
    port = {"ports": [{"port": 80}], "clusterIP": None}
    await space.create(SERVICES, {"metadata": {"name": "link"}, "spec": port})
    script = (
        "echo $(cat /config/colour) $WORD ${LINK_SERVICE_PORT:-none}"
        " $(wc -w < /var/run/secrets/kubernetes.io/serviceaccount/token)"
        " $(cat /memory/made) >> /data/log; " + SCRIPT
    )
    volumes = [
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    init: Object = {
        "name": "init",
        "image": "debian:bookworm",
        "command": ["sh", "-c", "echo made > /memory/made"],
    }
    init["volumeMounts"] = [{"name": "memory", "mountPath": "/memory"}]
    pod = {
        # By the scheduler, which chooses where the claim is provisioned.
        "nodeName": None,
        "nodeSelector": {"kubernetes.io/hostname": EDGE},
        "volumes": volumes,
        "initContainers": [init],
    }
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    env = [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "word"}}}]
    await space.run("stays", "sh", "-c", script, pod=pod, volumeMounts=mounts, env=env)
    await space.run("deleted", "sh", "-c", SCRIPT, pod={"nodeName": EDGE})
    before = {name: await space.until(name, is_ready) for name in ("stays", "deleted")}
    bound = await space.get("data", PERSISTENT_VOLUME_CLAIMS)
    log = shaky.node(EDGE).volumes_dir / bound["spec"]["volumeName"] / "log"
    await wait(lambda: has(log, 1), "its first run writes nothing")

    shaky.lines[EDGE].cut()
    await crash_the_machine(shaky, EDGE)
    await space.kube.delete(PODS, "deleted", space.name)
    await space.kube.patch(CONFIG_MAPS, "config", {"data": {"colour": "blue"}}, space.name)
    await shaky.start(f"node-{EDGE}", ready=False)

    async def alone() -> bool:
        return all(shaky.pids(pod) for pod in before.values()) and await has(log, 2)

    await wait(alone, "not started while cut off")
    assert log.read_text().splitlines() == ["red xyzzy 80 1 made"] * 2

    shaky.lines[EDGE].join()
    await space.gone("deleted")
    after = await space.until("stays", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
    assert after["metadata"]["uid"] == before["stays"]["metadata"]["uid"]
    assert after["status"]["podIP"] == before["stays"]["status"]["podIP"]
    assert main(after)["lastState"]["terminated"]["exitCode"] == 137
    folder = shaky.node(EDGE).pods_dir / after["metadata"]["uid"] / "volumes" / "config" / "colour"

    async def newer() -> bool:
        return folder.read_text() == "blue"

    await wait(newer, "the config map's change didn't arrive")
    assert not shaky.pids(before["deleted"])


async def test_a_shared_volume_outlives_the_node_that_made_it(shaky: Site, space: Space) -> None:
    """What was written there is found by the pod that takes over; another agent removes it with its claim."""
    asked = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
    await space.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": asked})
    container = {
        "name": "main",
        "image": "debian:bookworm",
        "command": ["sh", "-c", f"hostname >> /data/log; {SCRIPT}"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    template = {
        "affinity": there_first(EDGE),
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    await space.create(DEPLOYMENTS, workload("app", pod=template, replicas=1))
    lost = (await ready_pod(space, "app", EDGE))["metadata"]["name"]
    volume = (await space.get("data", PERSISTENT_VOLUME_CLAIMS))["spec"]["volumeName"]
    log = shaky.layout.volumes_dir / volume / "log"
    await wait(lambda: has(log, 1), "the first writes nothing")
    await crash_the_machine(shaky, EDGE)
    await shaky.until_node(EDGE, "Unknown")
    taking_over = (await ready_pod(space, "app", CORE))["metadata"]["name"]

    async def written() -> bool:
        return log.read_text().split() == [lost, taking_over]

    await wait(written, "what the second wrote isn't beside what the first did")

    await space.kube.delete(DEPLOYMENTS, "app", space.name)
    await space.kube.delete(PODS, lost, space.name, grace_period_s=0)  # nobody is there to say that it ended
    await space.kube.delete(PERSISTENT_VOLUME_CLAIMS, "data", space.name)
    await space.gone("data", PERSISTENT_VOLUME_CLAIMS)

    async def removed() -> bool:
        return await shaky.kube.get_or_none(PERSISTENT_VOLUMES, volume) is None

    await wait(removed, "the volume is still there")
    assert not log.parent.exists()


# A full disk


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")
async def test_a_full_disk(shaky: Site, space: Space, disk: SmallDisk) -> None:
    script = "trap 'exit 0' TERM; while :; do echo x >> /space/file 2>/dev/null || :; sleep 0.1; done"
    await space.run("writes", "sh", "-c", script, **work(SMALL))
    await space.run("ends", *UNTIL_TOLD, **work(SMALL))
    before = {name: await space.until(name, is_ready) for name in ("writes", "ends")}
    pods = disk.inside / "pods"
    told = pods / before["ends"]["metadata"]["uid"] / "volumes" / "work" / "go"
    disk.fill()
    await shaky.until_node(SMALL, "True", "DiskPressure")

    async def tainted() -> bool:
        seen = (await shaky.kube.get(NODES, SMALL))["spec"].get("taints") or []
        return any(
            (t["key"], t["effect"]) == ("node.kubernetes.io/disk-pressure", "NoSchedule") for t in seen
        )

    await wait(tainted, "pods are still sent to it")
    told.touch()  # a file system in memory has room for that
    ended = await space.until("ends", lambda p: (main(p)["lastState"] or main(p)["state"]).get("terminated"))
    assert (main(ended)["lastState"] or main(ended)["state"])["terminated"]["exitCode"] == 3

    shaky.kill(f"node-{SMALL}")  # what it could write of its checkpoint has to do
    await shaky.start(f"node-{SMALL}")
    assert await shaky.node_condition(SMALL, "DiskPressure") == "True"
    kept = await space.until("writes", is_ready)
    assert main(kept)["containerID"] == main(before["writes"])["containerID"]
    assert main(kept)["restartCount"] == 0

    told.unlink()
    disk.empty()
    await shaky.until_node(SMALL, "False", "DiskPressure")
    again = await space.until("ends", is_ready)
    assert main(again)["restartCount"] >= 1
    await space.run("new", *FOREVER, **work(SMALL))
    await space.until("new", is_ready)

    async def nothing_half_written() -> bool:
        """While the agent goes on writing: a file of its own that it is at work on is there for a moment."""
        return not list(pods.glob("*/*.new"))

    await wait(nothing_half_written, "files that were begun are left")
    for path in pods.iterdir():
        assert json.loads((path / "pod.json").read_text())["metadata"]["uid"] == path.name
        PodRecord.model_validate_json((path / "record.json").read_text())
