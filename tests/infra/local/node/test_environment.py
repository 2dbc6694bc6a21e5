"""Environment and command line as Kubernetes defines them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.node.environment import (
    Sources,
    argv,
    container_env,
    expand,
    pod_field,
    references,
    service_env,
    service_links,
)
from infra.local.node.podspec import ConfigError
from switchboard.kube import Object
from tests.infra.local.node.pods import container, pod

CONFIG: Object = {"kind": "ConfigMap", "data": {"a": "1", "b-c": "2", "9bad": "3"}}
SECRET: Object = {"kind": "Secret", "type": "Opaque", "data": {"pw": base64.b64encode(b"s3cret").decode()}}
SOURCES = Sources(
    pod_ip="127.1.1.5",
    host_ip="127.1.0.11",
    allocatable={"cpu": "4", "memory": "8Gi"},
    service_env={"KUBERNETES_SERVICE_HOST": "127.9.0.1"},
    objects={("ConfigMap", "c"): CONFIG, ("Secret", "s"): SECRET, ("ConfigMap", "gone"): None},
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, shown: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == shown


@given(st.text(alphabet="ab $()", max_size=30))
def test_expansion_without_variables_only_halves_double_dollars(text: str) -> None:
    assert expand(text, {}).replace("$", "") == text.replace("$", "")
    if "$$" not in text:
        assert expand(text, {}) == text


def env(**entry: Any) -> dict[str, str]:
    """The environment that one entry makes, without the Services' variables."""
    one = container(env=[{"name": "X", **entry}])
    found = container_env(pod(one), one, SOURCES)
    found.pop("KUBERNETES_SERVICE_HOST")
    return found


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.uid"}}, "uid-of-p"),
        ({"fieldRef": {"fieldPath": "metadata.labels['app']"}}, "a"),
        ({"fieldRef": {"fieldPath": "metadata.annotations['none']"}}, ""),
        ({"fieldRef": {"fieldPath": "spec.nodeName"}}, "node-1"),
        ({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}, "default"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "127.1.1.5"),
        ({"fieldRef": {"fieldPath": "status.hostIP"}}, "127.1.0.11"),
        ({"configMapKeyRef": {"name": "c", "key": "a"}}, "1"),
        ({"secretKeyRef": {"name": "s", "key": "pw"}}, "s3cret"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "4"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "8192"),
        ({"resourceFieldRef": {"resource": "requests.cpu"}}, "0"),
    ],
)
def test_value_from(source: Object, value: str) -> None:
    assert env(valueFrom=source) == {"X": value}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "a"}}, 'configmap "gone" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "z"}}, "couldn't find key z in ConfigMap c"),
        ({"secretKeyRef": {"name": "none", "key": "a"}}, 'secret "none" not found'),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "unsupported fieldPath"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "other"}}, "other"),
    ],
)
def test_what_is_missing_is_named(source: Object, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        env(valueFrom=source)
    assert caught.value.reason == "CreateContainerConfigError"


def test_optional_references_are_left_out() -> None:
    assert env(valueFrom={"secretKeyRef": {"name": "none", "key": "a", "optional": True}}) == {}
    assert env(valueFrom={"configMapKeyRef": {"name": "c", "key": "z", "optional": True}}) == {}


def test_whole_maps_with_a_prefix_and_order() -> None:
    one = container(
        envFrom=[
            {"prefix": "P_", "configMapRef": {"name": "c"}},
            {"configMapRef": {"name": "gone", "optional": True}},
        ],
        env=[
            {"name": "P_a", "value": "over"},
            {"name": "Q", "value": "$(P_a)/$(KUBERNETES_SERVICE_HOST)/$(R)"},
        ],
    )
    found = container_env(pod(one), one, SOURCES)
    assert found["P_a"] == "over"
    assert found["P_b-c"] == "2"
    assert found["Q"] == "over/127.9.0.1/$(R)"


def test_a_key_that_can_be_no_variable_is_left_out() -> None:
    one = container(envFrom=[{"configMapRef": {"name": "c"}}])
    assert "9bad" not in container_env(pod(one), one, SOURCES)


def test_references_know_what_is_needed() -> None:
    one = container(
        envFrom=[{"configMapRef": {"name": "c", "optional": True}}],
        env=[
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a", "optional": True}}},
        ],
    )
    assert references(pod(one)) == {("ConfigMap", "c"): True, ("Secret", "s"): False}


@pytest.mark.parametrize(
    ("manifest", "whole"),
    [
        ({}, ("entry", "cmd")),
        ({"args": ["x"]}, ("entry", "x")),
        ({"command": ["c"]}, ("c",)),
        ({"command": ["c"], "args": ["$(A)"]}, ("c", "1")),
    ],
)
def test_command_and_args(manifest: Object, whole: tuple[str, ...]) -> None:
    assert argv({"name": "m", **manifest}, ("entry",), ("cmd",), {"A": "1"}) == whole


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="no command"):
        argv({"name": "m"}, (), (), {})


def test_labels_as_a_file() -> None:
    assert pod_field(pod(), "metadata.annotations", SOURCES) == 'note="say \\"hi\\""'


def test_services_of_the_namespace_are_variables() -> None:
    def service(name: str, namespace: str, address: str, *ports: Object) -> Object:
        meta = {"name": name, "namespace": namespace}
        return {"metadata": meta, "spec": {"clusterIP": address, "ports": list(ports)}}

    listed = [
        service(
            "my-db", "ns", "127.9.0.5", {"name": "sql-port", "port": 5432}, {"port": 53, "protocol": "UDP"}
        ),
        service("headless", "ns", "None", {"port": 80}),
        service("others", "other", "127.9.0.6", {"port": 80}),
    ]
    assert service_links(listed, "ns") == {
        "MY_DB_SERVICE_HOST": "127.9.0.5",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL_PORT": "5432",
        "MY_DB_PORT": "tcp://127.9.0.5:5432",
        "MY_DB_PORT_5432_TCP": "tcp://127.9.0.5:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "127.9.0.5",
        "MY_DB_PORT_53_UDP": "udp://127.9.0.5:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "127.9.0.5",
    }


def test_the_api_server_is_found_by_variables() -> None:
    found = service_env("127.21.0.1", 6443)
    assert (found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"]) == ("127.21.0.1", "6443")
    assert found["KUBERNETES_PORT_6443_TCP"] == "tcp://127.21.0.1:6443"
