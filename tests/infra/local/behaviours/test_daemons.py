"""DaemonSets: one pod on every node that is meant, updated and rolled back node by node."""

from __future__ import annotations

from typing import Any

from switchboard.kube import DAEMON_SETS, NODES, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.conftest import GENERAL
from tests.infra.local.behaviours.manifests import (
    CONTROLLER_REVISIONS,
    FOREVER,
    ready,
    status_of,
    workload,
)
from tests.infra.local.behaviours.scenario import behaviour
from tests.infra.local.behaviours.test_controllers import change, env, version


def daemons(name: str, *containers: Object | str, **spec: Any) -> Object:
    body = workload(name, 0, *containers, **spec)
    del body["spec"]["replicas"]
    return body


def place(p: Object) -> str:
    return str(p["spec"].get("nodeName", ""))


def nodes_of(pods: list[Object]) -> list[str]:
    return sorted(place(p) for p in pods if ready(p))


def ends(p: Object) -> bool:
    return "deletionTimestamp" in p["metadata"]


@behaviour(
    "[sig-apps] Daemon set should run and stop simple daemon [Conformance] [Serial]",
    "[sig-apps] Daemon set should retry creating failed daemon pods [Conformance] [Serial]",
)
async def test_one_on_every_node(space: Space) -> None:
    await space.create(DAEMON_SETS, daemons("ds", env("1")))
    pods = await space.until_all(lambda pods: nodes_of(pods) == list(GENERAL), app="ds")
    gone = pods[0]["metadata"]["name"]
    await space.delete(gone)
    await space.gone(gone)
    await space.until_all(lambda pods: nodes_of(pods) == list(GENERAL), app="ds")
    victim = space.all(app="ds")[0]["metadata"]
    await space.patch(victim["name"], {"status": {"phase": "Failed"}}, subresource="status")
    await space.until_all(
        lambda pods: (
            nodes_of(pods) == list(GENERAL) and victim["uid"] not in {p["metadata"]["uid"] for p in pods}
        ),
        app="ds",
    )


@behaviour(
    "[sig-apps] Daemon set should run and stop complex daemon [Conformance] [Serial]",
    "[sig-apps] Daemon set should run and stop complex daemon with node affinity [Serial]",
)
async def test_where_the_label_is(space: Space) -> None:
    label = f"test.switchboard.dev/{space.name}"
    body = daemons("ds", FOREVER, pod={"nodeSelector": {label: "blue"}})
    await space.create(DAEMON_SETS, body)
    await space.until("ds", lambda d: d["status"]["observedGeneration"] == 1, DAEMON_SETS)
    assert space.all(app="ds") == []
    await space.kube.patch(NODES, GENERAL[1], {"metadata": {"labels": {label: "blue"}}})
    await space.until_all(lambda pods: nodes_of(pods) == [GENERAL[1]], app="ds")
    await space.kube.patch(NODES, GENERAL[1], {"metadata": {"labels": {label: "green"}}})
    await space.until_all(lambda pods: not pods, app="ds")
    await space.kube.patch(NODES, GENERAL[1], {"metadata": {"labels": {label: None}}})


@behaviour(
    "[sig-apps] Daemon set should update pod when spec was updated and update strategy is RollingUpdate "
    "[Conformance] [Serial]",
    "[sig-apps] ControllerRevision should manage the lifecycle of a ControllerRevision [Conformance] [Serial]",
)
async def test_daemons_updated(space: Space) -> None:
    await space.create(DAEMON_SETS, daemons("ds", env("1")))
    await space.until_all(lambda pods: nodes_of(pods) == list(GENERAL), app="ds")
    await space.patch("ds", change("2"), DAEMON_SETS, patch_type="strategic")
    await space.until_all(
        lambda pods: nodes_of(pods) == list(GENERAL) and {version(p) for p in pods} == {"2"}, app="ds"
    )
    await space.until_all(lambda revisions: len(revisions) == 2, CONTROLLER_REVISIONS, app="ds")
    await space.kubectl("rollout", "undo", "daemonset/ds")
    await space.until_all(
        lambda pods: nodes_of(pods) == list(GENERAL) and {version(p) for p in pods} == {"1"}, app="ds"
    )


@behaviour("[sig-apps] Daemon set should rollback without unnecessary restarts [Conformance] [Serial]")
async def test_daemons_rolled_back(space: Space) -> None:
    """From a template that can't start, in the midst of the rollout: who was not replaced yet is left alone."""
    await space.create(DAEMON_SETS, daemons("ds", env("1")))
    before = await space.until_all(lambda pods: nodes_of(pods) == list(GENERAL), app="ds")
    broken = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nothing/there:1"}]}}}}
    await space.patch("ds", broken, DAEMON_SETS, patch_type="strategic")
    await space.until_all(
        lambda pods: any("nothing" in p["spec"]["containers"][0]["image"] and place(p) for p in pods),
        app="ds",
    )
    runs = {p["metadata"]["uid"]: status_of(p)["containerID"] for p in before}
    left = {uid for p in space.all(app="ds") if (uid := p["metadata"]["uid"]) in runs and not ends(p)}
    assert len(left) == len(GENERAL) - 1, "one node at a time"
    await space.kubectl("rollout", "undo", "daemonset/ds")
    after = await space.until_all(
        lambda pods: nodes_of(pods) == list(GENERAL) and {version(p) for p in pods} == {"1"}, app="ds"
    )
    by_uid = {p["metadata"]["uid"]: p for p in after}
    assert left <= set(by_uid), "not replaced"
    for uid in left:
        assert (status_of(by_uid[uid])["containerID"], status_of(by_uid[uid])["restartCount"]) == (
            runs[uid],
            0,
        )
