"""`kubernetes:yaml:decode`: manifests into objects."""

from __future__ import annotations

import pytest

from infra.plugin.invoke import invoke
from infra.plugin.kinds import Unsupported
from infra.plugin.wire import UNKNOWN

TEXT = """
apiVersion: v1
kind: Namespace
metadata: {name: n}
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: own}}
"""


def test_documents_and_lists_become_objects() -> None:
    result = invoke("kubernetes:yaml:decode", {"text": TEXT, "defaultNamespace": "d"})["result"]
    assert [(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in result] == [
        ("Namespace", "n", None),
        ("ConfigMap", "a", "d"),
        ("ConfigMap", "b", "own"),
    ]


def test_text_that_is_not_known_yet_has_no_result_yet() -> None:
    assert invoke("kubernetes:yaml:decode", {"text": UNKNOWN}) == {}


@pytest.mark.parametrize(
    ("text", "why"), [("{", "not YAML"), ("a: 1", "not a Kubernetes object"), ("- 1", "not a")]
)
def test_what_is_no_manifest(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        invoke("kubernetes:yaml:decode", {"text": text})


def test_other_functions_are_the_official_plugin_s() -> None:
    with pytest.raises(Unsupported, match="official Kubernetes plugin"):
        invoke("kubernetes:helm:template", {})
