"""What must be there, what is, and how it is told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import config, status
from infra.status import Endpoints, Part, SiteStatus, Status
from switchboard import paths
from switchboard.kube import DEPLOYMENTS
from switchboard.paths import ROOT
from tests.conftest import stack_document

LOCAL = {
    "private": {
        *("deployment/mlflow", "deployment/alertmanager", "deployment/prometheus"),
        *("endpoint/mlflow", "endpoint/alertmanager", "endpoint/prometheus"),
    },
    "public": {
        *("deployment/gateway", "deployment/gateway-cn-beijing", "deployment/gateway-cn-hongkong"),
        *("deployment/operator", "deployment/prometheus"),
        *("modelserver/chat", "modelserver/chat-cn-beijing", "modelserver/chat-cn-hongkong"),
        *("endpoint/gateway", "endpoint/edge-cn-beijing", "endpoint/edge-cn-hongkong", "endpoint/prometheus"),
    },
}


def _local(**server: Any) -> config.Stack:
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    values = copy.deepcopy({k.removeprefix("switchboard:"): v for k, v in document["config"].items()})
    values["modelServers"][0].update(server)
    return config.parse(values, "Pulumi.x.yaml")


def test_what_the_stack_file_implies() -> None:
    assert {site: set(parts) for site, parts in status.expected(_local()).items()} == LOCAL


def test_an_edge_without_servers_of_its_own_has_a_gateway_only() -> None:
    parts = set(status.expected(_local(edgeReplicas=0))["public"])
    assert LOCAL["public"] - parts == {"modelserver/chat-cn-beijing", "modelserver/chat-cn-hongkong"}


def test_expected_names_are_the_programs_own() -> None:
    """`config` refuses names that collide; it and `status` must mean the same ones."""
    stack = _local()
    for site in stack.sites:
        workloads = {
            p.split("/")[1] for p in status.expected(stack)[site.name] if not p.startswith("endpoint/")
        }
        assert workloads == set(stack.workloads(site))


@pytest.mark.parametrize(
    ("wanted", "present", "gone"),
    [
        ([], set(), []),
        (["deployment/a"], {"deployment/a", "deployment/b"}, []),
        (["deployment/a", "endpoint/a"], {"deployment/a"}, ["endpoint/a"]),
        (["deployment/a"], {"statefulset/a"}, ["deployment/a"]),
    ],
)
def test_missing_parts_are_unhealthy(wanted: list[str], present: set[str], gone: list[str]) -> None:
    parts = status.missing(wanted, present)
    assert parts == [Part(name=name, healthy=False, note="missing") for name in gone]


@pytest.mark.parametrize(
    ("spec", "now", "generation", "healthy"),
    [
        ({"replicas": 2}, {"readyReplicas": 2, "observedGeneration": 1}, 1, True),
        ({"replicas": 2}, {"readyReplicas": 1, "observedGeneration": 1}, 1, False),
        ({"replicas": 2}, {"readyReplicas": 2, "observedGeneration": 1}, 2, False),
        ({}, {"readyReplicas": 1, "observedGeneration": 1}, 1, True),
        ({}, {}, 1, False),
        ({"replicas": 0}, {"observedGeneration": 1}, 1, True),
    ],
)
def test_a_workload_is_healthy_when_its_replicas_are_ready(
    spec: dict[str, Any], now: dict[str, Any], generation: int, healthy: bool
) -> None:
    item = {"metadata": {"name": "chat", "generation": generation}, "spec": spec, "status": now}
    part = status._workload(DEPLOYMENTS, item)
    assert (part.name, part.healthy) == ("deployment/chat", healthy)


READY = {"type": "Ready", "status": "True", "reason": "ReplicasReady", "observedGeneration": 2, "message": ""}
SERVES = {"readyReplicas": 2, "desiredReplicas": 2, "observedGeneration": 2}


@pytest.mark.parametrize(
    ("condition", "now", "healthy", "note"),
    [
        ({}, {}, True, "2/2 ready"),
        (
            {"message": "QuotaExceeded: no more\nthan 2 pods"},
            {"desiredReplicas": 4},
            True,
            "2/4 ready: QuotaExceeded: no more than 2 pods",
        ),
        (
            {"reason": "ScaledToZero", "message": "the first request starts a replica"},
            {"readyReplicas": 0, "desiredReplicas": 0},
            True,
            "0/0 ready: ScaledToZero: the first request starts a replica",
        ),
        (
            {"status": "False", "reason": "ImagePullFailed", "message": "no such image"},
            {"readyReplicas": 1},
            False,
            "1/2 ready: ImagePullFailed: no such image",
        ),
        ({"observedGeneration": 1}, {}, False, "2/2 ready: the operator hasn't looked at it as it is now"),
    ],
    ids=["serves", "serves, and can't have more", "waits for a request", "fails", "was another then"],
)
def test_a_model_server_is_healthy_when_its_operator_says_so(
    condition: dict[str, Any], now: dict[str, Any], healthy: bool, note: str
) -> None:
    item = {
        "metadata": {"name": "chat", "generation": 2},
        "status": {
            **SERVES,
            **now,
            "conditions": [{"type": "AbleToScale", "status": "False"}, {**READY, **condition}],
        },
    }
    assert status._model_server(item) == Part(name="modelserver/chat", healthy=healthy, note=note)


def test_a_model_server_that_no_operator_has_seen_is_not_healthy() -> None:
    part = status._model_server({"metadata": {"name": "chat", "generation": 1}, "spec": {}})
    assert (part.healthy, part.note) == (False, "0/0 ready: the operator hasn't looked at it as it is now")


def test_a_deployment_that_the_operator_made_is_not_told_twice() -> None:
    meta = {"name": "chat"}
    assert not status._is_made({"metadata": meta})
    assert status._is_made({"metadata": {**meta, "ownerReferences": [{"kind": "ModelServer"}]}})
    assert not status._is_made({"metadata": {**meta, "ownerReferences": [{"kind": "Other"}]}})


@pytest.mark.parametrize(
    ("name", "endpoint", "role", "called", "found"),
    [
        ("gateway", "gateway", "public", "gateway", {"gateway": "http://127.9.9.9:80"}),
        ("gateway-r", "edge", "public", "edge-r", {"edges": {"r": "http://127.9.9.9:80"}}),
        ("mlflow", "mlflow", "private", "mlflow", {"mlflow": "http://127.9.9.9:80"}),
        ("prometheus", "prometheus", "private", "prometheus", {"prometheus": "http://127.9.9.9:80"}),
        ("prometheus", "prometheus", "public", "prometheus", {}),
        ("x", "something-newer", "public", "something-newer", {}),
    ],
)
def test_addresses_are_noted(name: str, endpoint: str, role: str, called: str, found: dict[str, Any]) -> None:
    endpoints = Endpoints()
    service: dict[str, Any] = {
        "metadata": {"name": name, "labels": {status.ENDPOINT: endpoint}},
        "spec": {"ports": [{"port": 80}]},
    }
    assert status._endpoint(service, role, endpoints) is None, "it has no address yet"
    assert endpoints == Endpoints()
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "127.9.9.9"}]}}
    assert status._endpoint(service, role, endpoints) == called
    assert endpoints == Endpoints(**found)


def test_the_table_names_what_is_wrong() -> None:
    site = SiteStatus(kubeconfig=Path("/k"), workloads=status.missing(["deployment/gateway"], set()))
    sick = Status(
        stack="x", healthy=False, endpoints=Endpoints(edges={"r": "http://e"}), sites={"public": site}
    )
    text = status.table(sick)
    assert "public  workload  deployment/gateway  Unhealthy           missing" in text
    assert "unhealthy: deployment/gateway" in text
    assert "edge r" in text
    well = Status(stack="x", healthy=True, endpoints=Endpoints(), sites={})
    assert "stack x: healthy" in status.table(well)
    assert "not up" in status.table(well.model_copy(update={"healthy": False}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "clusters: 3",
    ],
    ids=["empty", "no YAML", "no kubeconfig"],
)
def test_a_spoilt_kubeconfig_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    stack = "spoilt"
    file = tmp_path / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(stack_document([f"127.{190 + index}.0.0/16" for index in range(4)])))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(file))
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    kubeconfig = paths.state_dir(stack) / "sites" / "public" / "kubeconfig"
    kubeconfig.parent.mkdir(parents=True)
    kubeconfig.write_text(text)
    found = status.read(stack)
    assert found.healthy is False
    (api,) = found.sites["public"].workloads
    assert (api.name, api.healthy) == ("api", False)
    assert api.note
    assert "\n" not in api.note
    assert found.sites["private"].workloads == [], "it was never up"
