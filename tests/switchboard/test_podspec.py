"""What every pod has in common."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard import labels, podspec, quantities


@pytest.mark.parametrize(
    ("request_", "limit"),
    [("10m", "2"), ("250m", "2"), ("500m", "2"), ("501m", "3"), ("1500m", "6"), ("2", "8"), ("0.75", "3")],
)
def test_cpu_limits_are_not_felt(request_: str, limit: str) -> None:
    assert podspec.usual_cpu_limit(request_) == limit


@given(st.integers(1, 64_000))
def test_a_cpu_limit_is_never_below_the_request(milli: int) -> None:
    assert quantities.parse(podspec.usual_cpu_limit(f"{milli}m")) >= quantities.parse(f"{milli}m")


@pytest.mark.parametrize(
    ("scratch", "disk"), [("0", "64Mi"), ("256Mi", "320Mi"), ("1Gi", "1088Mi"), ("1500k", "66Mi")]
)
def test_what_is_written_on_a_nodes_disk_is_kept_for_it(scratch: str, disk: str) -> None:
    made = podspec.resources("250m", "512Mi", "1Gi", scratch=scratch)
    assert made["requests"] == {"cpu": "250m", "memory": "512Mi", "ephemeral-storage": disk}
    assert made["limits"] == {"cpu": "2", "memory": "1Gi", "ephemeral-storage": disk}
    assert podspec.resources("250m", "512Mi", "1Gi", "300m")["limits"]["cpu"] == "300m"


def rules(tier: Any, region: str | None = None) -> list[Any]:
    required = podspec.placement(tier, region)["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    (term,) = required["nodeSelectorTerms"]
    return [(rule["key"], rule["operator"], rule["values"]) for rule in term["matchExpressions"]]


def test_core_pods_stay_off_edges_and_edge_pods_on_their_own() -> None:
    assert rules("core") == [(labels.TIER, "NotIn", ["edge"])]  # also on nodes without the label
    assert rules("edge") == [(labels.TIER, "In", ["edge"])]
    assert rules("edge", "cn-beijing") == [
        (labels.TIER, "In", ["edge"]),
        (labels.REGION, "In", ["cn-beijing"]),
    ]


@pytest.mark.parametrize(("tier", "seconds"), [("core", podspec.LOST_NODE_S), ("edge", None)])
def test_how_long_a_pod_stays_on_a_node_that_is_lost(tier: Any, seconds: int | None) -> None:
    found = podspec.tolerations(tier)
    assert {one["key"] for one in found} == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert [one.get("tolerationSeconds") for one in found] == [seconds, seconds]


@pytest.mark.parametrize("strict", [True, False])
def test_replicas_are_spread_over_zones_as_far_as_there_is_room(strict: bool) -> None:
    match = {"app": "chat"}
    zones, nodes = podspec.spread(match, strict=strict)
    assert (zones["topologyKey"], zones["whenUnsatisfiable"]) == (labels.ZONE, "ScheduleAnyway")
    assert (nodes["topologyKey"], nodes["whenUnsatisfiable"]) == (
        labels.HOSTNAME,
        "DoNotSchedule" if strict else "ScheduleAnyway",
    )
    assert zones["labelSelector"] == nodes["labelSelector"] == {"matchLabels": match}
    match["app"] = "voice"
    assert zones["labelSelector"] == {"matchLabels": {"app": "chat"}}  # a copy


def test_variables() -> None:
    found = podspec.environment({"HOME": "/tmp"})
    fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in found if "valueFrom" in one}
    assert fields == {
        "POD_IP": "status.podIP",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
    }
    assert found[-1] == {"name": "HOME", "value": "/tmp"}
    assert podspec.environment() == found[:-1]


def test_the_restricted_level() -> None:
    """`test_workload.py` asks an API server."""
    pod, container = podspec.security(), podspec.container_security()
    assert pod["runAsNonRoot"]
    assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == podspec.UID
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["readOnlyRootFilesystem"] is True
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_a_pod_is_found_by_prometheus() -> None:
    assert podspec.scraped(9902, "/stats/prometheus") == {
        labels.SCRAPE: "true",
        labels.SCRAPE_PORT: "9902",
        labels.SCRAPE_PATH: "/stats/prometheus",
    }
