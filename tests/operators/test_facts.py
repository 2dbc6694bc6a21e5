"""What is kept of pods, Deployments and the rest: tables of objects as the API server sends them."""

from __future__ import annotations

from typing import Any

import pytest

from operators import facts
from operators.facts import Trouble
from switchboard import labels
from switchboard.kube import Object

MADE = "2026-01-05T08:00:00Z"
MADE_S = 1767600000.0
READY = "2026-01-05T08:00:40Z"


def condition(kind: str, status: str = "True", **more: str) -> Object:
    return {"type": kind, "status": status, **more}


READY_NOW = condition("Ready", lastTransitionTime=READY)


def pod(
    *,
    conditions: list[Object] | None = None,
    containers: list[Object] | None = None,
    notes: Object | None = None,
    own: Object | None = None,
    meta: Object | None = None,
    **status: Any,
) -> Object:
    """A pod that serves, but for what is said."""
    return {
        "metadata": {
            "name": "chat-1",
            "namespace": "core",
            "uid": "u-1",
            "resourceVersion": "7",
            "creationTimestamp": MADE,
            "labels": {facts.NAME: "chat", labels.ZONE: "zone-a", **(own or {})},
            "annotations": notes or {},
            **(meta or {}),
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "chat"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [READY_NOW] if conditions is None else conditions,
            "containerStatuses": containers or [],
            **status,
        },
    }


def test_a_pod_that_serves() -> None:
    assert facts.pod(pod()) == facts.Pod(
        name="chat-1",
        uid="u-1",
        zone="zone-a",
        created=MADE_S,
        ready=True,
        ready_at=MADE_S + 40,
        restarts=0,
        draining=False,
        ip="10.0.0.1",
    )


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(pod(conditions=[condition("Ready", "False")]), {"ready": False}, id="not ready"),
        pytest.param(pod(conditions=[]), {"ready": False, "ready_at": None}, id="no conditions"),
        pytest.param(pod(podIP=None), {"ready": False}, id="ready without an address"),
        pytest.param(
            pod(conditions=[condition("Ready")]),
            {"ready": True, "ready_at": None},
            id="ready, not known since when",
        ),
        pytest.param(
            pod(conditions=[condition("Ready", lastTransitionTime="yesterday")]),
            {"ready_at": None},
            id="a time that is none",
        ),
        pytest.param(
            pod(containers=[{"restartCount": 2}, {"restartCount": 1}]),
            {"restarts": 3},
            id="restarts of all containers",
        ),
        pytest.param(pod(notes={labels.DRAINING: MADE}), {"draining": True}, id="on its way out"),
        pytest.param(
            pod(notes={labels.DRAINING: "please"}),
            {"draining": True},
            id="drained by hand: gateways leave it out, so it is on its way out",
        ),
        pytest.param(pod(own={labels.ZONE: ""}), {"zone": "node-1"}, id="without zones a node is one"),
        pytest.param(pod(meta={"creationTimestamp": None}), {"created": 0.0}, id="made at no time"),
    ],
)
def test_what_is_kept_of_a_pod(obj: Object, expected: Object) -> None:
    found = facts.pod(obj)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "obj",
    [
        pod(meta={"deletionTimestamp": MADE}),
        pod(phase="Succeeded"),
        pod(phase="Failed"),
    ],
    ids=["terminating", "ended", "failed"],
)
def test_what_is_on_its_way_out_is_no_replica(obj: Object) -> None:
    assert facts.pod(obj) is None


def waiting(reason: str, message: str | None = None, **more: Any) -> Object:
    said = {"reason": reason} if message is None else {"reason": reason, "message": message}
    return {"name": "chat", "image": "chat:1", "state": {"waiting": said}, **more}


UNSCHEDULABLE = condition("PodScheduled", "False", reason="Unschedulable", message="0/2 nodes have room")


@pytest.mark.parametrize(
    ("obj", "trouble"),
    [
        pytest.param(pod(conditions=[]), None, id="it has only just been made"),
        pytest.param(
            pod(conditions=[], containers=[waiting("ContainerCreating")]), None, id="it is being started"
        ),
        pytest.param(
            pod(conditions=[], containers=[waiting("ErrImagePull", "no such image")]),
            Trouble("ImagePullFailed", "no such image"),
            id="no image",
        ),
        pytest.param(
            pod(conditions=[], containers=[waiting("ImagePullBackOff")]),
            Trouble("ImagePullFailed", "chat:1: ImagePullBackOff"),
            id="no image, and nothing said",
        ),
        pytest.param(
            pod(conditions=[], containers=[waiting("CrashLoopBackOff", "back-off 10s")]),
            Trouble("ReplicasFailing", "back-off 10s"),
            id="it ends again and again",
        ),
        pytest.param(
            pod(
                conditions=[],
                containers=[waiting("CrashLoopBackOff", lastState={"terminated": {"reason": "OOMKilled"}})],
            ),
            Trouble("ReplicasFailing", "CrashLoopBackOff (OOMKilled)"),
            id="and why",
        ),
        pytest.param(
            pod(conditions=[], containers=[waiting("CreateContainerConfigError", "no secret")]),
            Trouble("ReplicasFailing", "no secret"),
            id="it can't be configured",
        ),
        pytest.param(
            pod(conditions=[UNSCHEDULABLE]),
            Trouble("Unschedulable", "0/2 nodes have room"),
            id="no room for it",
        ),
        pytest.param(
            pod(conditions=[condition("PodScheduled", "False", reason="SchedulingGated")]),
            None,
            id="it is held on purpose",
        ),
        pytest.param(
            pod(containers=[waiting("CrashLoopBackOff")]),
            None,
            id="what serves has no trouble, whatever a sidecar has",
        ),
        pytest.param(
            pod(conditions=[], containers=[waiting("ErrImagePull", "x" * 5000)]),
            Trouble("ImagePullFailed", "x" * 300),
            id="a long story",
        ),
    ],
)
def test_why_a_pod_does_not_serve(obj: Object, trouble: Trouble | None) -> None:
    found = facts.pod(obj)
    assert found is not None
    assert found.trouble == trouble


def deployment(
    *, spec: Object | None = None, notes: Object | None = None, managed: Any = (), **status: Any
) -> Object:
    return {
        "metadata": {
            "uid": "u-d",
            "resourceVersion": "12",
            "generation": 3,
            "annotations": notes,
            "managedFields": managed,
        },
        "spec": {"replicas": 4, **(spec or {})},
        "status": {
            "observedGeneration": 3,
            "replicas": 4,
            "updatedReplicas": 4,
            "readyReplicas": 4,
            **status,
        },
    }


def manager(name: str, *fields: str) -> Object:
    return {"manager": name, "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(
            deployment(),
            {"uid": "u-d", "version": 12, "replicas": 4, "ready": 4, "applied": None, "scaled_by_us": False},
            id="settled",
        ),
        pytest.param(deployment(notes={facts.APPLIED: "abc"}), {"applied": "abc"}, id="what was applied"),
        pytest.param(
            {"metadata": {"uid": "u-d"}, "spec": {}},
            {
                "version": 0,
                "generation": 0,
                "replicas": 1,
                "total": 0,
                "ready": 0,
                "failure": None,
                "stuck": False,
            },
            id="only just made",
        ),
        pytest.param(
            deployment(managed=[manager(facts.SCALER, "replicas")]), {"scaled_by_us": True}, id="scaled"
        ),
        pytest.param(
            deployment(managed=[manager("kubectl", "replicas"), manager(facts.SCALER)]),
            {"scaled_by_us": False},
            id="by somebody else",
        ),
        pytest.param(
            deployment(managed=[{"manager": facts.SCALER}]), {"scaled_by_us": False}, id="with no fields"
        ),
        pytest.param(
            deployment(conditions=[condition("ReplicaFailure", message="exceeded quota")]),
            {"failure": "exceeded quota"},
            id="pods are refused",
        ),
        pytest.param(
            deployment(conditions=[condition("ReplicaFailure", "False", message="exceeded quota")]),
            {"failure": None},
            id="they were",
        ),
        pytest.param(
            deployment(conditions=[condition("Progressing", "False", reason="ProgressDeadlineExceeded")]),
            {"stuck": True},
            id="a rollout that gets nowhere",
        ),
        pytest.param(
            deployment(conditions=[condition("Progressing", reason="NewReplicaSetAvailable")]),
            {"stuck": False},
            id="one that is through",
        ),
    ],
)
def test_what_is_kept_of_a_deployment(obj: Object, expected: Object) -> None:
    found = facts.deployment(obj)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("obj", "rolling"),
    [
        pytest.param(deployment(), False, id="settled"),
        pytest.param(deployment(observedGeneration=2), True, id="not yet seen by its controller"),
        pytest.param(deployment(replicas=5, updatedReplicas=1), True, id="the first new one is there"),
        pytest.param(deployment(replicas=5, updatedReplicas=4), True, id="the last old one is still there"),
        pytest.param(
            deployment(replicas=2, updatedReplicas=2), False, id="only fewer than wanted: a quota, say"
        ),
        pytest.param(
            deployment(replicas=6, updatedReplicas=6), False, id="more than wanted, all new: a step down"
        ),
        pytest.param(
            deployment(spec={"replicas": 0}, replicas=0, updatedReplicas=0, readyReplicas=0),
            False,
            id="none wanted",
        ),
        pytest.param(deployment(replicas=0, updatedReplicas=0, readyReplicas=0), False, id="none there yet"),
    ],
)
def test_whether_a_rollout_is_under_way(obj: Object, rolling: bool) -> None:
    assert facts.deployment(obj).rolling is rolling


def test_a_stub_says_whose_it_is_and_little_more() -> None:
    kept = facts.stub(pod())
    assert kept == {
        "metadata": {
            "namespace": "core",
            "name": "chat-1",
            "resourceVersion": "7",
            "labels": {facts.NAME: "chat"},
        }
    }
    assert facts.owner_of(kept) == "chat"
    assert facts.owner_of({"metadata": {"labels": None}}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("never", None),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.500000Z", 10.5),
        ("1970-01-01T08:00:10+08:00", 10.0),
    ],
)
def test_times(text: str | None, expected: float | None) -> None:
    assert facts.seconds(text) == expected
