"""What is kept of an object, and how a refresh tells drift from what the server made of the inputs."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from infra.plugin.state import checkpoint, desired, imported_inputs, parse, refreshed_inputs
from infra.plugin.wire import Secret


def config_map(**data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "n"},
        "data": data,
    }


def test_a_checkpoint_is_the_live_object_and_where_it_came_from() -> None:
    inputs = {**config_map(), "data": {"a": Secret("1")}}
    live = config_map(a="1", b="2")
    live["metadata"] |= {"uid": "u", "managedFields": [{}]}
    state = checkpoint(inputs, live, "pulumi-kubernetes-12345678", None)
    assert state["data"] == {"a": Secret("1"), "b": "2"}
    assert state["metadata"] == {"name": "x", "namespace": "n", "uid": "u"}
    assert (state["__fieldManager"], state["__initialApiVersion"]) == ("pulumi-kubernetes-12345678", "v1")
    old = parse(state)
    assert old.inputs == inputs
    assert old.live == {**live, "metadata": state["metadata"]}
    assert old.field_manager == "pulumi-kubernetes-12345678"


def test_a_secret_s_data_is_hidden_also_where_the_inputs_had_it_as_text() -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "stringData": Secret({"k": "v"})}
    live = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"k": "dg=="}}
    assert checkpoint(inputs, live, "m", None)["data"] == Secret({"k": "dg=="})


@pytest.mark.parametrize(("others", "kept"), [({}, {}), ({"a": "1"}, {"annotations": {"a": "1"}})])
def test_what_kubectl_noted_of_a_secret_is_not_kept(others: dict[str, str], kept: dict[str, Any]) -> None:
    """`kubectl apply` notes the manifest it was given: the values once more, and in no field that is hidden."""
    noted = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"k":"aHVudGVyMg=="}}', **others}
    live = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "x", "uid": "u", "annotations": noted},
        "data": {"k": "aHVudGVyMg=="},
    }
    for inputs in (imported_inputs(live), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}):
        state = checkpoint(inputs, live, "m", None)
        assert state["metadata"] == {"name": "x", "uid": "u", **kept}
        assert state["data"] == Secret({"k": "aHVudGVyMg=="})
    assert live["metadata"]["annotations"] == noted, "the object itself is as it was"


def test_what_the_server_writes_is_not_applied() -> None:
    inputs = {
        **config_map(a="1"),
        "status": {"x": 1},
        "__defaults": [],
        "metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "managedFields": []},
    }
    assert desired(inputs) == {**config_map(a="1"), "metadata": {"name": "x"}}


def test_an_import_takes_what_is_set() -> None:
    live = config_map(a="1")
    live["metadata"] |= {
        "uid": "u",
        "creationTimestamp": "t",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    assert imported_inputs({**live, "status": {}}) == config_map(a="1")


@pytest.mark.parametrize(
    ("wanted", "was", "now", "expected"),
    [
        pytest.param(
            {"a": "1000m"}, {"a": "1"}, {"a": "1"}, {"a": "1000m"}, id="the server's form is no drift"
        ),
        pytest.param({"a": "1000m"}, {"a": "1"}, {"a": "2"}, {"a": "2"}, id="drift"),
        pytest.param({"a": 1}, {"a": 1}, {}, {}, id="removed by others"),
        pytest.param({"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1}, id="not ours to show"),
        pytest.param({"a": 0}, {}, {}, {"a": 0}, id="left out by the server as a zero"),
        pytest.param({"a": 0}, {}, {"a": 5}, {"a": 5}, id="and then set by others"),
        pytest.param(
            {"l": ["a", "b"]}, {"l": ["a", "b"]}, {"l": ["a", "c"]}, {"l": ["a", "c"]}, id="list item"
        ),
        pytest.param({"l": ["a"]}, {"l": ["a"]}, {"l": ["a", "b"]}, {"l": ["a", "b"]}, id="list grew"),
        pytest.param(
            {"c": [{"name": "x", "cpu": "1000m"}]},
            {"c": [{"name": "x", "cpu": "1", "dflt": True}]},
            {"c": [{"name": "injected"}, {"name": "x", "cpu": "1", "dflt": False}]},
            {"c": [{"name": "x", "cpu": "1000m"}]},
            id="an injected container isn't ours",
        ),
        pytest.param(
            {"c": [{"name": "x", "image": "i"}, {"name": "y"}]},
            {"c": [{"name": "x", "image": "i"}, {"name": "y"}]},
            {"c": [{"name": "x", "image": "j"}]},
            {"c": [{"name": "x", "image": "j"}]},
            id="named items by name",
        ),
    ],
)
def test_refresh(wanted: Any, was: Any, now: Any, expected: Any) -> None:
    assert refreshed_inputs({"spec": wanted}, {"spec": was}, {"spec": now}) == {"spec": expected}


def test_refresh_keeps_secrets_secret_and_sees_drift_behind_string_data() -> None:
    def live(value: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "data": {"k": base64.b64encode(value.encode()).decode()},
        }

    inputs = {"apiVersion": "v1", "kind": "Secret", "stringData": Secret({"k": "v"})}
    assert refreshed_inputs(inputs, live("v"), live("v")) == inputs
    assert refreshed_inputs(inputs, live("v"), live("w")) == {**inputs, "stringData": Secret({"k": "w"})}
