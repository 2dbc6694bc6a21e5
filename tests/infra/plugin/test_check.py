"""Inputs as they are kept: named, placed, secrets marked, mistakes found before any server is asked."""

from __future__ import annotations

from typing import Any

import pytest

from infra.plugin.check import Naming, checked, failures
from infra.plugin.kinds import TypeToken
from infra.plugin.naming import object_id, parse_id, random_hex
from infra.plugin.wire import UNKNOWN, Secret

CONFIG_MAP = TypeToken("v1", "ConfigMap")
NAMING = Naming("settings", b"seed")
NAME = f"settings-{random_hex(b'seed', 'settings')}"
AUTONAMED = {"pulumi.com/autonamed": "true"}


def check(news: dict[str, Any], olds: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "token": CONFIG_MAP,
        "naming": NAMING,
        "default_namespace": "default",
        **more,
    }
    return checked(news, olds, **arguments)


@pytest.mark.parametrize(
    ("metadata", "olds", "expected"),
    [
        pytest.param(
            None,
            None,
            {"name": NAME, "namespace": "default", "annotations": AUTONAMED},
            id="no name: one is made up",
        ),
        pytest.param(
            {"annotations": {"a": "b"}, "namespace": "n"},
            None,
            {"name": NAME, "namespace": "n", "annotations": {"a": "b", **AUTONAMED}},
            id="beside what else is there",
        ),
        pytest.param({"name": "x"}, None, {"name": "x", "namespace": "default"}, id="the user's name"),
        pytest.param(
            {},
            {"metadata": {"name": "settings-old", "annotations": AUTONAMED}},
            {"name": "settings-old", "namespace": "default", "annotations": AUTONAMED},
            id="the old autoname is kept",
        ),
        pytest.param(
            {},
            {"metadata": {"name": "x"}},
            {"name": NAME, "namespace": "default", "annotations": AUTONAMED},
            id="the user's old name is not",
        ),
        pytest.param(
            {"name": "x"},
            {"metadata": {"name": "settings-old", "annotations": AUTONAMED}},
            {"name": "x", "namespace": "default"},
            id="a name instead of an autoname",
        ),
        pytest.param({"name": UNKNOWN}, None, {"name": UNKNOWN, "namespace": "default"}, id="not known yet"),
        pytest.param(
            {"name": "x", "namespace": UNKNOWN},
            None,
            {"name": "x", "namespace": UNKNOWN},
            id="nor its namespace",
        ),
        pytest.param(UNKNOWN, None, UNKNOWN, id="nor any of it"),
        pytest.param(
            Secret({"name": "x"}), None, Secret({"name": "x", "namespace": "default"}), id="secret metadata"
        ),
    ],
)
def test_metadata(metadata: Any, olds: dict[str, Any] | None, expected: Any) -> None:
    news = {} if metadata is None else {"metadata": metadata}
    assert check(news, olds)["metadata"] == expected


def test_the_program_s_own_values_are_not_changed() -> None:
    news = {"metadata": {"annotations": {"a": "b"}}}
    check(news)
    assert news == {"metadata": {"annotations": {"a": "b"}}}


def test_names_follow_from_the_seed_and_differ_without_one() -> None:
    assert random_hex(b"a", "x") == random_hex(b"a", "x") != random_hex(b"b", "x")
    assert random_hex(b"") != random_hex(b"")


def test_the_engine_s_naming_configuration() -> None:
    proposed = Naming("settings", b"seed", proposed="prod-settings")
    assert check({}, naming=proposed)["metadata"]["name"] == "prod-settings"
    disabled = Naming("settings", b"seed", disabled=True)
    inputs = check({}, naming=disabled)
    assert [f.path for f in failures(inputs, CONFIG_MAP, disabled)] == ["metadata.name"]


def test_a_kind_without_namespaces_gets_none() -> None:
    inputs = check({"metadata": {"name": "x", "namespace": "n"}}, default_namespace=None)
    assert inputs["metadata"] == {"name": "x"}


@pytest.mark.parametrize("key", ["data", "stringData"])
def test_a_secret_s_data_is_secret(key: str) -> None:
    inputs = check({key: {"a": Secret("b")}, "type": "Opaque"}, token=TypeToken("v1", "Secret"))
    assert inputs[key] == Secret({"a": "b"})
    assert inputs["type"] == "Opaque"


def test_a_config_map_s_data_is_not() -> None:
    assert check({"data": {"a": Secret("b"), "c": "d"}})["data"] == {"a": Secret("b"), "c": "d"}


@pytest.mark.parametrize(
    ("inputs", "path", "reason"),
    [
        ({"metadata": "x"}, "metadata", "must be an object"),
        ({"metadata": {"generateName": "x-", "name": "x"}}, "metadata.generateName", "needs a name"),
        ({"metadata": {"name": "x"}, "kind": "Secret"}, "kind", "the resource's type says 'ConfigMap'"),
        (
            {"metadata": {"name": "x", "annotations": {"pulumi.com/waitFor": "ready"}}},
            'metadata.annotations["pulumi.com/waitFor"]',
            "neither `condition=",
        ),
    ],
)
def test_mistakes(inputs: dict[str, Any], path: str, reason: str) -> None:
    (failure,) = failures(inputs, CONFIG_MAP, NAMING)
    assert failure.path == path
    assert reason in failure.reason


def test_a_patch_needs_a_name() -> None:
    token = TypeToken("v1", "ConfigMap", patch=True)
    inputs = check({"data": {"a": "b"}}, token=token)
    assert [f.reason for f in failures(inputs, token, NAMING)] == [
        "a patch needs the name of the object that it changes"
    ]


@pytest.mark.parametrize(("id_", "parts"), [("n/x", ("n", "x")), ("x", (None, "x"))])
def test_ids(id_: str, parts: tuple[str | None, str]) -> None:
    assert parse_id(id_) == parts
    assert object_id(*parts) == id_
