"""What a node lives through: its agent's restart, pods removed meanwhile, a stop of the node, a site that is away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from infra.local.leftovers import mounts_below
from infra.local.node import usage
from infra.local.node.agent import runtime_dir
from infra.local.node.pod_worker import PodWorker
from infra.local.node.stop import stop_pods
from infra.local.runtime import leftovers
from infra.local.runtime.record import Folder
from switchboard.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Object,
)
from tests.infra.local.node.conftest import NODE, RunningNode, Space, is_ready, main, wait

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done")


def run_of(pod: Object) -> str:
    return str(main(pod)["containerID"])


def is_there(what: int | Path) -> bool:
    """A process or a folder."""
    return (Path(f"/proc/{what}") if isinstance(what, int) else what).exists()


async def test_an_agent_s_restart_is_not_felt(node: RunningNode, space: Space) -> None:
    await space.run("stays", *FOREVER, readinessProbe={"exec": {"command": ["true"]}})
    await space.run("removed", *FOREVER)
    await space.run(
        "exits",
        "sh",
        "-c",
        "while ! test -e /tmp/go; do sleep 0.05; done; exit 3",
        pod={"restartPolicy": "Never"},
    )
    before = {name: await space.until(name, is_ready) for name in ("stays", "removed", "exits")}
    pids = {name: worker.runs.pids["main"] for name, worker in workers(node, space).items()}
    await node.stop()
    await space.kube.delete(PODS, "removed", space.name, grace_period_s=0)
    os.kill(pids["exits"], signal.SIGKILL)
    await space.run("comes", *FOREVER)
    await node.start()
    await space.until("comes", is_ready)
    ended = await space.until("exits", lambda p: p["status"]["phase"] == "Failed")
    assert main(ended)["state"]["terminated"]["exitCode"] == 137

    async def gone() -> bool:
        return not is_there(pids["removed"])

    await wait(gone, "the removed pod still runs")
    after = await space.get("stays")
    assert run_of(after) == run_of(before["stays"])
    assert main(after)["restartCount"] == 0
    ready = next(c for c in after["status"]["conditions"] if c["type"] == "Ready")
    was = next(c for c in before["stays"]["status"]["conditions"] if c["type"] == "Ready")
    assert ready == was, "ready all the time"
    assert after["status"]["podIP"] == before["stays"]["status"]["podIP"]


def workers(node: RunningNode, space: Space) -> dict[str, PodWorker]:
    own = [w for w in node.agent.workers.values() if w.pod["metadata"]["namespace"] == space.name]
    return {w.pod["metadata"]["name"]: w for w in own}


@pytest.mark.parametrize("later", ["whole", "broken"])
async def test_a_pod_that_cannot_be_read_is_left_as_it_is(
    node: RunningNode, space: Space, later: str
) -> None:
    """Until it can be: then it is taken over, or begins anew where its manifest turns out to be broken."""
    await space.run("unread", *FOREVER)
    before = await space.until("unread", is_ready)
    (worker,) = workers(node, space).values()
    pid, manifest = worker.runs.pids["main"], worker.directory.path / "pod.json"
    whole = manifest.read_text()
    await node.stop()
    manifest.unlink()
    manifest.symlink_to("/proc/self/mem")  # EIO, as of a bad disk
    await node.start()
    await space.run("beside", *FOREVER)
    await space.until("beside", is_ready)
    assert is_there(pid) and worker.directory.volumes.is_dir()
    assert list(workers(node, space)) == ["beside"]
    again = manifest.with_name("pod.json.again")
    again.write_text(whole if later == "whole" else "{")
    again.replace(manifest)

    async def taken_over() -> bool:
        return "unread" in workers(node, space)

    await wait(taken_over, "it isn't taken over although it can be read")
    if later == "whole":
        assert workers(node, space)["unread"].runs.pids["main"] == pid
        assert run_of(await space.get("unread")) == run_of(before)
        os.kill(pid, signal.SIGKILL)
        await space.until("unread", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
    else:

        async def new_process() -> bool:
            return not is_there(pid) and "main" in workers(node, space)["unread"].runs.pids

        await wait(new_process, "what nobody can say what it is for still runs")
    beside = await space.get("beside")
    assert beside["status"]["podIP"] != before["status"]["podIP"]


@pytest.mark.parametrize("policy", ["Never", "Always"])
async def test_a_container_that_was_lost_while_nobody_looked(
    node: RunningNode, space: Space, policy: str
) -> None:
    """Its shim is dead and the runtime's record of it gone: nobody knows how it ended, and that is said."""
    await space.run("lost", *FOREVER, pod={"restartPolicy": policy})
    before = await space.until("lost", is_ready)
    await node.stop()
    folder = Folder(runtime_dir(node.plane.layout.node(NODE)) / run_of(before).removeprefix("switchboard://"))
    shim, pid = folder.read_raw()["shim"], folder.read_raw()["pid"]
    os.kill(shim, signal.SIGKILL)

    async def dead() -> bool:
        return not is_there(pid)

    await wait(dead, "a container outlives its shim")
    folder.delete()
    await node.start()
    if policy == "Never":
        after = await space.until("lost", lambda p: p["status"]["phase"] == "Failed")
        ended = main(after)["state"]["terminated"]
    else:
        after = await space.until("lost", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
        ended = main(after)["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("ContainerStatusUnknown", 137)
    assert ended["containerID"] == run_of(before)
    assert ended["startedAt"] == main(before)["state"]["running"]["startedAt"]


async def test_a_stateful_set_keeps_its_volume_and_its_name(node: RunningNode, space: Space) -> None:
    script = "echo $HOSTNAME >> /data/log; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    container = {
        "name": "main",
        "image": "debian:bookworm",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    labels = {"app": "sts"}
    await space.create(
        SERVICES, {"metadata": {"name": "sts"}, "spec": {"clusterIP": "None", "selector": labels}}
    )
    body = {
        "metadata": {"name": "sts"},
        "spec": {
            "serviceName": "sts",
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": NODE},
                    "terminationGracePeriodSeconds": 2,
                    "containers": [container],
                },
            },
            "volumeClaimTemplates": [claim],
        },
    }
    await space.create(STATEFUL_SETS, body)
    first = await space.until("sts-0", is_ready)
    await space.kube.delete(PODS, "sts-0", space.name)
    second = await space.until(
        "sts-0", lambda p: p["metadata"]["uid"] != first["metadata"]["uid"] and is_ready(p)
    )
    bound = await space.get("data-sts-0", PERSISTENT_VOLUME_CLAIMS)
    volume = await node.kube.get(PERSISTENT_VOLUMES, bound["spec"]["volumeName"])
    path = Path(volume["spec"]["local"]["path"])

    async def written_twice() -> bool:
        return (path / "log").read_text() == "sts-0\nsts-0\n"

    await wait(written_twice, "the second pod didn't get the first one's volume")

    async def named() -> bool:
        hosts = node.agent.context.checkpoint.pod(second["metadata"]["uid"]).hosts.read_text()
        return f"sts-0.sts.{space.name}.svc.cluster.local" in hosts

    await wait(named, "no name")
    await space.kube.delete(STATEFUL_SETS, "sts", space.name)
    await space.gone("sts-0")
    await space.kube.delete(PERSISTENT_VOLUME_CLAIMS, "data-sts-0", space.name)

    async def deleted() -> bool:
        gone = await node.kube.get_or_none(PERSISTENT_VOLUMES, volume["metadata"]["name"]) is None
        return gone and not is_there(path)

    await wait(deleted, "the volume was not deleted with its claim")


async def test_a_stopped_node_leaves_nothing_and_starts_its_pods_again(
    node: RunningNode, space: Space
) -> None:
    layout = node.plane.layout.node(NODE)
    init = {
        "name": "init",
        "image": "debian:bookworm",
        "command": ["sh", "-c", "echo made > /mem/file"],
        "volumeMounts": [{"name": "mem", "mountPath": "/mem"}],
    }
    await space.run(
        "again",
        "sh",
        "-c",
        "trap 'echo bye; exit 0' TERM; cat /mem/file; while :; do sleep 0.1; done",
        pod={
            "initContainers": [init],
            "volumes": [{"name": "mem", "emptyDir": {"medium": "Memory"}}],
            "terminationGracePeriodSeconds": 10,
        },
        volumeMounts=[{"name": "mem", "mountPath": "/mem"}],
    )
    before = await space.until("again", is_ready)
    await space.said("again", "made\n")
    await node.stop()
    await stop_pods(layout)
    assert leftovers(runtime_dir(layout)) == []
    assert mounts_below(layout.directory) == []
    await node.start()
    after = await space.until("again", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert main(after)["lastState"]["terminated"]["exitCode"] == 0, "it was stopped gracefully"
    await space.said("again", "made\n")  # its volume in memory was made anew
    assert await space.log("again", previous="true") == "made\nbye\n"


async def test_a_site_that_is_away(node: RunningNode, space: Space) -> None:
    """A node that can't reach its site starts its pods alone, keeps them running, and reports when it can."""
    await space.run("alone", "sh", "-c", "echo up; while ! test -e /tmp/go; do sleep 0.05; done")
    await space.until("alone", is_ready)
    await node.stop()
    await stop_pods(node.plane.layout.node(NODE))
    credentials = node.plane.layout.node(NODE).kubeconfig
    whole = credentials.read_text()
    server = str(node.plane.layout.control_plane_ip)
    credentials.write_text(whole.replace(f"{server}:6443", f"{server}:6444"))  # nobody listens there
    try:
        await node.start()
        (worker,) = (w for n, w in workers(node, space).items() if n == "alone")
        record = worker.record.containers["main"]

        async def runs_again() -> bool:
            return record.phase == "running" and record.attempt >= 1

        await wait(runs_again, "not started from the checkpoint")
        attempt = record.attempt
        os.kill(worker.runs.pids["main"], signal.SIGKILL)

        async def restarted() -> bool:
            return record.phase == "running" and record.attempt > attempt

        await wait(restarted, "not restarted while the site is away")
    finally:
        credentials.write_text(whole)
        await node.restart()
    await space.until("alone", lambda p: is_ready(p) and main(p)["restartCount"] >= 2)


async def test_a_pod_deleted_by_force_is_ended(node: RunningNode, space: Space) -> None:
    await space.run("forced", *FOREVER)
    await space.until("forced", is_ready)
    pid = workers(node, space)["forced"].runs.pids["main"]
    await space.kube.delete(PODS, "forced", space.name, grace_period_s=0)
    await space.gone("forced")
    await space.run("forced", *FOREVER)
    again = await space.until("forced", is_ready)

    async def only_the_new_one() -> bool:
        held = [w for w in node.agent.workers.values() if w.pod["metadata"]["namespace"] == space.name]
        return [w.uid for w in held] == [again["metadata"]["uid"]] and not is_there(pid)

    await wait(only_the_new_one, "the old pod still runs")


async def test_a_foreign_change_of_the_status_is_put_right(node: RunningNode, space: Space) -> None:
    """As the control plane makes it when a node was away for a while: every pod of it not ready."""
    await space.run("marked", *FOREVER)
    await space.until("marked", is_ready)
    body = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    marked = await node.kube.patch(
        PODS, "marked", body, space.name, patch_type="strategic", subresource="status"
    )
    assert not is_ready(marked)
    await space.until("marked", is_ready)


async def test_an_agent_killed_between_a_start_and_its_note_of_it(node: RunningNode, space: Space) -> None:
    """The record is a run behind, and that run is over by now: it counts, and the next one has a number of its own."""
    await space.run("behind", *FOREVER)
    await space.until("behind", is_ready)
    (worker,) = (w for n, w in workers(node, space).items() if n == "behind")
    os.kill(worker.runs.pids["main"], signal.SIGKILL)
    before = await space.until("behind", lambda p: is_ready(p) and main(p)["restartCount"] == 1)
    pid = worker.runs.pids["main"]
    await node.stop()
    container = worker.record.containers["main"]
    assert container.previous is not None
    container.phase, container.ended = "exited", container.previous
    container.attempt, container.run_id = 0, container.previous.run_id
    worker.directory.save_record(worker.record)
    os.kill(pid, signal.SIGKILL)
    await node.start()
    after = await space.until("behind", lambda p: is_ready(p) and main(p)["restartCount"] == 2)
    assert main(after)["lastState"]["terminated"]["containerID"] == run_of(before)


async def test_who_keeps_more_on_disk_than_allowed_is_evicted(
    node: RunningNode, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the first look failed, of all there are."""
    measure, looks = usage.measure, iter((True,))

    def fails_at_first(pod: Object, directory: Path) -> dict[str, int]:
        if next(looks, False):
            raise RuntimeError("a fault of the first look")
        return measure(pod, directory)

    monkeypatch.setattr(usage, "measure", fails_at_first)
    await space.run(
        "greedy",
        "sh",
        "-c",
        "dd if=/dev/zero of=/cache/file bs=1M count=3; exec sleep inf",
        pod={"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}]},
        volumeMounts=[{"name": "cache", "mountPath": "/cache"}],
    )
    evicted = await space.until("greedy", lambda p: p["status"]["phase"] == "Failed")
    assert evicted["status"]["reason"] == "Evicted"
    assert 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi"' in evicted["status"]["message"]
    await space.event("greedy", "Evicted")
    folder = node.agent.context.checkpoint.pod(evicted["metadata"]["uid"]).volumes / "cache"

    async def freed() -> bool:
        return not is_there(folder)

    await wait(freed, "what it kept is still on the disk")
    assert next(looks, None) is None, "the first look was not tried"
