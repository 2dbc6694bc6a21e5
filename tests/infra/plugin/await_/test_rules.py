"""Each kind's conditions of success, case by case: ready, still missing something (which is named), or failed."""

from __future__ import annotations

from typing import Any

import pytest

from infra.plugin.await_ import RULES, rule_for
from infra.plugin.await_.rule import selector_of


def obj(version: str, kind: str, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "x", "namespace": "n", "generation": 2},
        "spec": spec or {},
        "status": status,
    }


def condition(type_: str, status: str = "True", **more: str) -> list[dict[str, str]]:
    return [{"type": type_, "status": status, **more}]


READY = "ready"
TWO = {"replicas": 2}


def deployment(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return obj("apps/v1", "Deployment", spec or TWO, **status)


def stateful(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return obj("apps/v1", "StatefulSet", spec or TWO, observedGeneration=2, **status)


def daemons(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return obj("apps/v1", "DaemonSet", spec, observedGeneration=2, desiredNumberScheduled=2, **status)


def job(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return obj("batch/v1", "Job", spec, **status)


def claim(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return obj("v1", "PersistentVolumeClaim", spec, **status)


def service(spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    return obj("v1", "Service", spec, **status)


LATER = {"metadata": {"name": "later"}, "volumeBindingMode": "WaitForFirstConsumer"}
NOW = {
    "metadata": {"name": "now", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "volumeBindingMode": "Immediate",
}
CLASSES = {"storageclasses": [LATER, NOW]}
SLICES = {"endpointslices": [{"endpoints": [{"conditions": {"ready": True}}]}]}
UNREADY = {"endpointslices": [{"endpoints": [{"conditions": {"ready": False}}]}, {"endpoints": None}]}
ALL: dict[str, Any] = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("all replicas available", deployment(**ALL), {}, READY),
    ("one replica by default", deployment({"x": 1}, observedGeneration=2), {}, "0 of 1 replicas available"),
    ("none wanted", deployment({"replicas": 0}, observedGeneration=2), {}, READY),
    ("status of an earlier spec", deployment(**{**ALL, "observedGeneration": 1}), {}, "has not seen it yet"),
    ("one isn't available", deployment(**{**ALL, "availableReplicas": 1}), {}, "1 of 2 replicas available"),
    ("an old one is left", deployment(**{**ALL, "replicas": 3}), {}, "1 of an earlier revision left"),
    ("paused", deployment({"replicas": 2, "paused": True}), {}, READY),
    (
        "quota exceeded",
        deployment(observedGeneration=2, conditions=condition("ReplicaFailure", message="exceeded quota")),
        {},
        "0 of 2 replicas available; exceeded quota",
    ),
    (
        "past its deadline",
        deployment(
            observedGeneration=2,
            conditions=condition("Progressing", "False", reason="ProgressDeadlineExceeded"),
        ),
        {},
        "ProgressDeadlineExceeded",
    ),
    (
        "ready and of the latest revision",
        stateful(readyReplicas=2, replicas=2, currentRevision="a", updateRevision="a"),
        {},
        READY,
    ),
    ("one isn't ready", stateful(readyReplicas=1, replicas=2), {}, "1 of 2 replicas ready"),
    (
        "rolling",
        stateful(readyReplicas=2, replicas=2, currentRevision="a", updateRevision="b", updatedReplicas=1),
        {},
        "1 of 2 replicas of the latest revision",
    ),
    (
        "rolled down to the partition",
        stateful(
            {"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
            readyReplicas=2,
            replicas=2,
            currentRevision="a",
            updateRevision="b",
            updatedReplicas=1,
        ),
        {},
        READY,
    ),
    (
        "on delete",
        stateful(
            {"replicas": 2, "updateStrategy": {"type": "OnDelete"}},
            readyReplicas=2,
            replicas=2,
            currentRevision="a",
            updateRevision="b",
        ),
        {},
        READY,
    ),
    ("on all nodes", daemons(updatedNumberScheduled=2, numberAvailable=2), {}, READY),
    (
        "on one node",
        daemons(updatedNumberScheduled=2, numberAvailable=1),
        {},
        "1 of 2 nodes have it available",
    ),
    ("an old one on one node", daemons(updatedNumberScheduled=1, numberAvailable=2), {}, "1 of 2 nodes"),
    (
        "on delete, old ones count",
        daemons({"updateStrategy": {"type": "OnDelete"}}, currentNumberScheduled=2, numberAvailable=2),
        {},
        READY,
    ),
    ("complete", job(conditions=condition("Complete")), {}, READY),
    ("suspended", job({"suspend": True}), {}, READY),
    ("tries", job({"completions": 3}, succeeded=1, failed=2), {}, "1 of 3 completions, 2 failed tries"),
    (
        "failed",
        job(conditions=condition("Failed", reason="BackoffLimitExceeded", message="too often")),
        {},
        "!failed: BackoffLimitExceeded: too often",
    ),
    ("a ready pod", obj("v1", "Pod", phase="Running", conditions=condition("Ready")), {}, READY),
    ("a finished pod", obj("v1", "Pod", phase="Succeeded"), {}, READY),
    ("a pending pod", obj("v1", "Pod", phase="Pending"), {}, "phase is Pending, not ready yet"),
    (
        "an evicted pod",
        obj("v1", "Pod", phase="Failed", reason="Evicted", message="disk"),
        {},
        "!Evicted: disk",
    ),
    (
        "a failed pod",
        obj(
            "v1",
            "Pod",
            phase="Failed",
            containerStatuses=[{"name": "c", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}],
        ),
        {},
        "!container c: exit code 3",
    ),
    ("bound", claim(phase="Bound"), CLASSES, READY),
    ("bound later", claim({"storageClassName": "later"}, phase="Pending"), CLASSES, READY),
    ("of the default class", claim(phase="Pending"), CLASSES, "phase is Pending, not Bound"),
    ("of no class", claim({"storageClassName": ""}, phase="Pending"), CLASSES, "phase is Pending, not Bound"),
    (
        "of an absent class",
        claim({"storageClassName": "z"}, phase="Pending"),
        CLASSES,
        "there is no storage class z",
    ),
    ("lost", claim(phase="Lost"), CLASSES, "!its volume is lost"),
    (
        "established",
        obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", conditions=condition("Established")),
        {},
        READY,
    ),
    ("not yet", obj("apiextensions.k8s.io/v1", "CustomResourceDefinition"), {}, "not established yet"),
    (
        "names taken",
        obj(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            conditions=condition("NamesAccepted", "False", message="taken"),
        ),
        {},
        "!names not accepted: taken",
    ),
    ("active", obj("v1", "Namespace", phase="Active"), {}, READY),
    ("terminating", obj("v1", "Namespace", phase="Terminating"), {}, "phase is Terminating"),
    ("a name elsewhere", service({"type": "ExternalName", "selector": {"a": "b"}}), {}, READY),
    ("no selector", service({"type": "ClusterIP"}), {}, READY),
    ("an endpoint", service({"selector": {"a": "b"}}), SLICES, READY),
    ("no endpoint", service({"selector": {"a": "b"}}), {}, "no ready endpoint"),
    ("an unready endpoint", service({"selector": {"a": "b"}}), UNREADY, "no ready endpoint"),
    ("no address", service({"type": "LoadBalancer"}), SLICES, "no load balancer address"),
    (
        "an address",
        service({"type": "LoadBalancer"}, loadBalancer={"ingress": [{"ip": "127.0.0.9"}]}),
        {},
        READY,
    ),
]


@pytest.mark.parametrize(
    ("live", "seen", "expected"), [case[1:] for case in CASES], ids=[f"{c[1]['kind']}: {c[0]}" for c in CASES]
)
def test_verdict(live: dict[str, Any], seen: dict[str, Any], expected: str) -> None:
    verdict = RULES[live["apiVersion"], live["kind"]].check(live, seen)
    assert verdict.done is (expected == READY)
    assert verdict.failed is expected.startswith("!")
    assert expected.lstrip("!") in verdict.message


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"a": "b", "c": "d"}}, "a=b,c=d"),
        (
            {
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["x", "y"]},
                    {"key": "b", "operator": "NotIn", "values": ["z"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ]
            },
            "a in (x,y),b notin (z),c,!d",
        ),
    ],
)
def test_selectors(selector: dict[str, Any], text: str) -> None:
    assert selector_of({"spec": {"selector": selector}}) == text


def test_annotations_choose_the_rule() -> None:
    live = deployment()
    assert rule_for(live) is RULES["apps/v1", "Deployment"]
    assert rule_for({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}) is None
    live["metadata"]["annotations"] = {"pulumi.com/waitFor": "condition=Available"}
    own = rule_for(live)
    assert own is not None
    assert own.check(deployment(conditions=condition("Available")), {}).done
    live["metadata"]["annotations"]["pulumi.com/skipAwait"] = "true"
    assert rule_for(live) is None
