"""A change of one component changes that component's objects and no other's.

By what the program declares; that Pulumi then touches no more is shown on a running cloud (`tests/test_cloud.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from infra import config
from infra.declared import Declared, declare
from switchboard.paths import ROOT

Values = dict[str, Any]
NEW = "registry.bank.example/switchboard/switchboard@sha256:" + "f" * 64


def values() -> Values:
    document = yaml.safe_load((ROOT / "Pulumi.staging.yaml").read_text())
    return {key.removeprefix("switchboard:"): value for key, value in document["config"].items()}


def changed(change: Callable[[Values], Any]) -> set[str]:
    """What is new, gone or different after a change of the stack file: `site/Kind/name`."""
    before, after = values(), values()
    change(after)
    first, second = (
        {
            f"{one.site}/{one.kind}/{one.name}": one
            for one in declare(config.parse(given, "x"), name="staging")
        }
        for given in (before, after)
    )
    return {
        key for key in first.keys() | second.keys() if _manifest(first.get(key)) != _manifest(second.get(key))
    }


def _manifest(one: Declared | None) -> Any:
    return None if one is None else one.revealed()


def _server(**fields: Any) -> Callable[[Values], None]:
    return lambda stack: stack["modelServers"][0].update(fields)


def _image(part: str) -> Callable[[Values], None]:
    return lambda stack: stack["images"].update({"overrides": {part: NEW}})


CHAT = {"public/ModelServer/chat", "public/ModelServer/chat-cn-beijing"}
GATEWAYS = {"public/Deployment/gateway", "public/Deployment/gateway-cn-beijing"}


@pytest.mark.parametrize(
    ("change", "objects"),
    [
        (_image("chat"), CHAT),
        (_image("gateway"), GATEWAYS),
        (_image("mlflow"), {"private/Deployment/mlflow", "private/Job/mlflow-upgrade"}),
        (_image("training"), {"private/Job/train-chat-intent"}),
        (lambda stack: stack["images"].update(envoy=NEW), GATEWAYS),
        (lambda stack: stack["images"].update(alertmanager=NEW), {"private/Deployment/alertmanager"}),
        (
            lambda stack: stack["images"].update(prometheus=NEW),
            {"private/Deployment/prometheus", "public/Deployment/prometheus"},
        ),
        (_server(scaling={"minReplicas": 5, "maxReplicas": 9}), {"public/ModelServer/chat"}),
        (_server(replicas=5), {"public/ModelServer/chat"}),
        (_server(edgeScaling={"maxReplicas": 2}), {"public/ModelServer/chat-cn-beijing"}),
        (_server(edgeReplicas=0), {
            "public/ModelServer/chat-cn-beijing",
            "public/ServiceAccount/chat-cn-beijing",
        }),
        (_server(capacity={"concurrency": 8}), CHAT),
        (lambda stack: stack.update(sharedStorageClass="nfs"), {"public/ModelServer/chat"}),
        (lambda stack: stack.update(storageClass="slow"), {"public/ModelServer/chat-cn-beijing"}),
        (_image("operator"), {"public/Deployment/operator"}),
        (lambda stack: stack.update(gatewayReplicas=3), {"public/Deployment/gateway"}),
        (lambda stack: stack["mlflow"].update(replicas=3), {"private/Deployment/mlflow"}),
    ],
    ids=[
        "chat image", "gateway image", "mlflow image", "training image", "envoy", "alertmanager", "prometheus",
        "chat scaling", "chat replicas", "edges' scaling", "no chat on edges", "chat concurrency",
        "shared storage", "storage", "operator image", "gateway replicas", "mlflow replicas",
    ],
)  # fmt: skip
def test_one_component_changes_alone(change: Callable[[Values], Any], objects: set[str]) -> None:
    assert changed(change) == objects


def test_a_change_of_nothing_changes_nothing() -> None:
    assert changed(lambda stack: None) == set()


def test_switchboards_image_is_that_of_all_its_own_parts() -> None:
    found = changed(lambda stack: stack["images"].update(switchboard=NEW))
    jobs = {"private/Deployment/mlflow", "private/Job/mlflow-upgrade", "private/Job/train-chat-intent"}
    assert found == CHAT | GATEWAYS | jobs | {"public/Deployment/operator"}
