"""What the program declares, for the local stack and for one on existing clusters, seen without a cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from infra import config, declared
from infra.made import manifests
from switchboard import labels
from switchboard.paths import ROOT

Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def declare(stack: config.Stack) -> list[tuple[str, Object]]:
    """All objects that the program declares for `stack`."""
    return [(one.kind, one.revealed()) for one in declared.declare(stack, name="test")]


def made(objects: list[tuple[str, Object]]) -> list[tuple[str, Object]]:
    """And what the operator makes of them."""
    servers = [obj for kind, obj in objects if kind == "ModelServer"]
    return [*objects, *((obj["kind"], obj) for server in servers for obj in manifests(server))]


@pytest.fixture(scope="module")
def local() -> list[tuple[str, Object]]:
    return made(declare(config.load("local")))


def pods(objects: list[tuple[str, Object]]) -> list[tuple[str, Object]]:
    return [
        (f"{kind}/{obj['metadata']['name']}", obj["spec"]["template"]["spec"])
        for kind, obj in objects
        if kind in WORKLOADS
    ]


def test_namespaces_are_restricted(local: list[tuple[str, Object]]) -> None:
    found = [obj["metadata"] for kind, obj in local if kind == "Namespace"]
    assert {meta["name"] for meta in found} == {"switchboard-core", "switchboard-serving"}
    for meta in found:
        assert meta["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_container_is_restricted_and_bounded(local: list[tuple[str, Object]]) -> None:
    seen = 0
    for name, spec in pods(local):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            seen += 1
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            for bound in ("requests", "limits"):
                assert set(container["resources"][bound]) == {"cpu", "memory", "ephemeral-storage"}, name
    assert seen >= 14


def test_only_those_that_ask_the_api_server_have_a_token(local: list[tuple[str, Object]]) -> None:
    with_token = {
        name.split("/")[1]
        for name, spec in pods(local)
        if spec.get("automountServiceAccountToken") is not False
    }
    assert with_token == {"prometheus", "operator", "gateway", "gateway-cn-beijing", "gateway-cn-hongkong"}
    for kind, obj in local:
        if kind in ("Role", "ClusterRole"):
            for rule in obj["rules"]:
                assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
                reads = {"get", "list", "watch"}
                assert set(rule["verbs"]) <= reads or obj["metadata"]["name"] == "operator"


def test_selectors_find_only_their_own_pods(local: list[tuple[str, Object]]) -> None:
    templates: dict[tuple[str, str], dict[str, str]] = {}
    for kind, obj in local:
        if kind in WORKLOADS:
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            templates[key] = obj["spec"]["template"]["metadata"]["labels"]
    for kind, obj in local:
        if kind == "Service":
            namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
            selector = obj["spec"]["selector"].items()
            chosen = [
                key for key, have in templates.items() if key[0] == namespace and selector <= have.items()
            ]
            assert [key[1] for key in chosen] == [name]


def test_the_chat_servers_are_found_by_their_labels(local: list[tuple[str, Object]]) -> None:
    servers = {obj["metadata"]["name"] for kind, obj in local if kind == "ModelServer"}
    assert servers == {"chat", "chat-cn-beijing", "chat-cn-hongkong"}
    sets = {
        obj["metadata"]["name"]: obj
        for kind, obj in local
        if kind == "Deployment" and obj["metadata"]["name"] in servers
    }
    for name, obj in sets.items():
        have = obj["spec"]["template"]["metadata"]["labels"]
        assert have[labels.MODEL_SERVER] == "chat"
        assert have[labels.TIER] == ("core" if name == "chat" else "edge")
    environ = {
        item["name"]: item.get("value")
        for item in sets["chat"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environ["MODEL_URI"] == "models:/chat-intent@champion"
    assert environ["MLFLOW_TRACKING_URI"].startswith("http://mlflow.private.")


def test_existing_clusters_have_no_annotations_of_the_embedded_cloud() -> None:
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    values = {
        key.removeprefix("switchboard:"): copy.deepcopy(value) for key, value in document["config"].items()
    }
    for site in values["sites"]:
        del site["embedded"]
        site["cluster"] = {"context": f"bank-{site['name']}"}
    objects = declare(config.parse(values, "Pulumi.test.yaml"))
    services = [obj["metadata"] for kind, obj in objects if kind == "Service"]
    assert services
    assert not [meta for meta in services if "pulumi.com/skipAwait" in (meta.get("annotations") or {})]


def test_mlflow_answers_to_its_own_names_only(local: list[tuple[str, Object]]) -> None:
    (deployment,) = [
        obj for kind, obj in local if kind == "Deployment" and obj["metadata"]["name"] == "mlflow"
    ]
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    (allowed,) = [item.split("=", 1)[1] for item in arguments if item.startswith("--allowed-hosts=")]
    assert "*" not in allowed
    assert {"mlflow:5000", "$(POD_IP):5000"} < set(allowed.split(","))
    assert any(host.startswith("mlflow.private.") for host in allowed.split(","))
