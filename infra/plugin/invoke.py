"""The functions that programs call: `kubernetes:yaml:decode`, by which the SDK's YAML resources read manifests."""

from __future__ import annotations

from typing import Any

import yaml

from infra.plugin.kinds import BUILT_IN, Unsupported
from infra.plugin.wire import Properties, has_unknown, reveal


def invoke(token: str, args: Properties) -> Properties:
    """The function's result.

    Raises:
        Unsupported: a function that this stand-in doesn't have.
        ValueError: the text is not YAML, or holds something that isn't an object.
    """
    if token != "kubernetes:yaml:decode":  # noqa: S105 - a function's name
        raise Unsupported(
            f"{token} needs the official Kubernetes plugin; this stand-in only has kubernetes:yaml:decode"
        )
    if has_unknown(args):
        return {}
    plain = reveal(args)
    return {"result": decode_yaml(plain.get("text", ""), plain.get("defaultNamespace"))}


def decode_yaml(text: str, default_namespace: str | None = None) -> list[dict[str, Any]]:
    """The objects in a YAML stream, lists taken apart."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    objects: list[dict[str, Any]] = []
    for document in documents:
        objects += _objects(document)
    for obj in objects:
        kind = BUILT_IN.get((str(obj["apiVersion"]), str(obj["kind"])))
        if default_namespace and (kind is None or kind.namespaced):
            obj.setdefault("metadata", {}).setdefault("namespace", default_namespace)
    return objects


def _objects(document: Any) -> list[dict[str, Any]]:
    if document is None:
        return []
    if not isinstance(document, dict) or not document.get("apiVersion") or not document.get("kind"):
        raise ValueError(f"not a Kubernetes object (no apiVersion or kind): {str(document)[:80]}")
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        return [obj for item in document["items"] for obj in _objects(item)]
    return [document]
