"""The sum of a workload's time limits, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.policy.manifest import UNKNOWN
from infra.policy.recovery import alone, budget
from switchboard import labels

LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def tolerations(seconds: int | None, keys: tuple[str, ...] = LOST) -> list[dict[str, Any]]:
    given = {} if seconds is None else {"tolerationSeconds": seconds}
    return [{"key": key, "operator": "Exists", "effect": "NoExecute", **given} for key in keys]


def affinity(tier: str, operator: str = "In") -> dict[str, Any]:
    term = {"matchExpressions": [{"key": labels.TIER, "operator": operator, "values": [tier]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def workload(
    kind: str = "Deployment",
    *,
    pod: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
    tier: str = "core",
    **spec: Any,
) -> dict[str, Any]:
    inner = {
        "tolerations": tolerations(30),
        "containers": [{"name": "a", **(container or {})}],
        "affinity": affinity(tier),
        **(pod or {}),
    }
    return {
        "kind": kind,
        "spec": {"template": {"metadata": {"labels": {labels.TIER: tier}}, "spec": inner}, **spec},
    }


STARTS_IN_60 = {"startupProbe": {"periodSeconds": 1, "failureThreshold": 60}}

CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "nothing but the loss itself": (workload(), 50 + 30),
    "Kubernetes' own tolerations": (workload(pod={"tolerations": []}), 50 + 300),
    "one of the two is not enough": (workload(pod={"tolerations": tolerations(30, LOST[:1])}), 50 + 300),
    "of two for one taint the shorter": (
        workload(pod={"tolerations": [*tolerations(200), *tolerations(20)]}),
        50 + 20,
    ),
    "a toleration of everything, for good": (workload(pod={"tolerations": [{"operator": "Exists"}]}), None),
    "a toleration for good": (workload(pod={"tolerations": tolerations(None)}), None),
    "a negative time is none": (workload(pod={"tolerations": tolerations(-5)}), 50),
    "a toleration of another effect is none": (
        workload(pod={"tolerations": [{**one, "effect": "NoSchedule"} for one in tolerations(5)]}),
        350,
    ),
    "a toleration of a value that the taint hasn't": (
        workload(pod={"tolerations": [{"key": key, "value": "x", "tolerationSeconds": 5} for key in LOST]}),
        350,
    ),
    "the startup probe": (workload(container=STARTS_IN_60), 80 + 60),
    "the liveness probe, where there is no startup probe": (
        workload(container={"livenessProbe": {"initialDelaySeconds": 7}}),
        80 + 7 + 10 * 3,
    ),
    "the startup probe before the liveness probe": (
        workload(container={**STARTS_IN_60, "livenessProbe": {"initialDelaySeconds": 100}}),
        80 + 60,
    ),
    "readiness: a delay, and successes in a row": (
        workload(
            container={
                "readinessProbe": {"initialDelaySeconds": 5, "successThreshold": 3, "periodSeconds": 2}
            }
        ),
        80 + 5 + 2 * 2,
    ),
    "the slowest container": (
        workload(pod={"containers": [{"name": "a"}, {"name": "b", **STARTS_IN_60}]}),
        80 + 60,
    ),
    "sidecars start one after another, before": (
        workload(
            pod={"initContainers": [{"restartPolicy": "Always", **STARTS_IN_60}] * 2 + [{"name": "init"}]},
            container=STARTS_IN_60,
        ),
        80 + 60 * 3,
    ),
    "minReadySeconds": (workload(minReadySeconds=15), 80 + 15),
    "a rolling update waits for no end": (workload(pod={"terminationGracePeriodSeconds": 100}), 80),
    "Recreate waits for the end": (
        workload(pod={"terminationGracePeriodSeconds": 100}, strategy={"type": "Recreate"}),
        80 + 100,
    ),
    "an edge's pod stays with its node": (
        workload(tier="edge", pod={"tolerations": [{"operator": "Exists"}]}, container=STARTS_IN_60),
        60,
    ),
    "an edge's pod by its nodeSelector": (
        workload(tier="edge", pod={"affinity": {}, "nodeSelector": {labels.TIER: "edge"}, "tolerations": []}),
        0,
    ),
    "a label alone makes no edge": (workload(tier="edge", pod={"affinity": {}, "tolerations": []}), 350),
    "whoever keeps off the edges is no edge": (
        workload(tier="edge", pod={"affinity": affinity("edge", "NotIn"), "tolerations": []}),
        350,
    ),
    "what an edge is only preferred for": (
        workload(
            tier="edge",
            pod={
                "tolerations": [],
                "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            },
        ),
        350,
    ),
}


OURS = {"matchLabels": {labels.TIER: "core"}}


def stateful(
    *rules: dict[str, Any], replicas: Any = 2, tier: str = "core", pod: dict[str, Any] | None = None
) -> dict[str, Any]:
    given = {"topologySpreadConstraints": list(rules), **(pod or {})}
    return workload("StatefulSet", replicas=replicas, tier=tier, pod=given, container=STARTS_IN_60)


def spread(key: str = labels.HOSTNAME, **more: Any) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": OURS, **more}


def apart(how: str, term: dict[str, Any]) -> dict[str, Any]:
    """A pod that keeps away from others of the term."""
    terms = [term if how == "required" else {"weight": 1, "podAffinityTerm": term}]
    rule = {f"{how}DuringSchedulingIgnoredDuringExecution": terms}
    return {"affinity": {**affinity("core"), "podAntiAffinity": rule}}


ALONE, TOGETHER = "it has no other replica", "its replicas aren't spread over nodes or zones"
STATEFUL: dict[str, tuple[dict[str, Any], str]] = {
    "two, spread over nodes": (stateful(spread()), ""),
    "over zones": (stateful(spread(labels.ZONE)), ""),
    "as well as there is room": (stateful(spread(whenUnsatisfiable="ScheduleAnyway")), ""),
    "two that keep away from each other": (stateful(pod=apart("required", spread())), ""),
    "two that would rather": (stateful(pod=apart("preferred", spread())), ""),
    "by an expression": (
        stateful(
            spread(
                labelSelector={
                    "matchExpressions": [{"key": labels.TIER, "operator": "In", "values": ["core"]}]
                }
            )
        ),
        "",
    ),
    "three, of which two may be together": (stateful(spread(maxSkew=2), replicas=3), ""),
    "none, which nobody misses": (stateful(replicas=0), ""),
    "not spread": (stateful(), TOGETHER),
    "spread over racks, which are no nodes": (stateful(spread("rack")), TOGETHER),
    "spread away from others": (stateful(spread(labelSelector={"matchLabels": {"app": "other"}})), TOGETHER),
    "spread away from nobody": (stateful(spread(labelSelector=None)), TOGETHER),
    "so loosely that both may be together": (stateful(spread(maxSkew=2)), TOGETHER),
    "two that keep away from others": (
        stateful(pod=apart("required", spread(labelSelector={"matchLabels": {"app": "x"}}))),
        TOGETHER,
    ),
    "one": (stateful(spread(), replicas=1), ALONE),
    "one, where none is stated": (workload("StatefulSet"), ALONE),
    "on an edge": (stateful(spread(), tier="edge"), "its replicas are all on the edge's node"),
}


@pytest.mark.parametrize("case", STATEFUL)
def test_a_stateful_set_is_back_by_its_other_replicas_or_not_by_itself(case: str) -> None:
    manifest, why = STATEFUL[case]
    found = budget(manifest)
    assert found is not None
    assert alone(manifest).startswith(why) and bool(alone(manifest)) is bool(why)
    # What a new pod would take doesn't count: the others are there.
    assert found.total_s == (None if why else 50), str(found)


@pytest.mark.parametrize("case", CASES)
def test_the_sum(case: str) -> None:
    manifest, expected = CASES[case]
    found = budget(manifest)
    assert found is not None
    assert found.total_s == expected, str(found)


@pytest.mark.parametrize(
    "manifest",
    [
        {"kind": "Job", "spec": {"template": {"spec": {"containers": []}}}},
        {"kind": "DaemonSet", "spec": {"template": {"spec": {"containers": []}}}},
        workload(pod={"tolerations": UNKNOWN}),
        workload(container={"startupProbe": UNKNOWN}),
        workload(container={"startupProbe": {"periodSeconds": UNKNOWN}}),
        workload(minReadySeconds=UNKNOWN),
        workload(pod={"affinity": UNKNOWN}),
        workload(pod={"nodeSelector": UNKNOWN}),
        {"kind": "Deployment", "spec": UNKNOWN},
        stateful(replicas=UNKNOWN),
        stateful(UNKNOWN),
        stateful(spread(labelSelector=UNKNOWN)),
        stateful(spread(maxSkew=UNKNOWN)),
        stateful(pod={"affinity": {"podAntiAffinity": UNKNOWN}}),
    ],
)
def test_what_is_not_judged(manifest: dict[str, Any]) -> None:
    assert budget(manifest) is None
    assert alone(manifest) == ""


def test_the_parts_are_shown_in_order() -> None:
    found = budget(workload(container=STARTS_IN_60))
    assert str(found) == "node grace 50 + toleration 30 + startup 60"
    forever = budget(workload(pod={"tolerations": tolerations(None)}))
    assert str(forever) == "node grace 50 + toleration for ever"
    assert str(budget(stateful())) == "node grace 50 + a person's help for ever"
    assert str(budget(stateful(spread()))) == "node grace 50"


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 60), st.integers(0, 60))
def test_no_limit_that_grows_makes_it_shorter(toleration: int, period: int, failures: int, more: int) -> None:
    def total(extra: int) -> int:
        probe = {"periodSeconds": period, "failureThreshold": failures + extra}
        pod = {"tolerations": tolerations(toleration + extra)}
        found = budget(workload(pod=pod, container={"startupProbe": probe}))
        assert found is not None and found.total_s is not None
        return found.total_s

    assert total(0) == 50 + toleration + period * failures
    assert total(more) >= total(0)
