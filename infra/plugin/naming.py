"""Names and namespaces of objects that don't give their own.

An object without `metadata.name` is called after its resource with eight random hex digits, and says so by an
annotation, so that a replacement can be made beside it; the name stays as long as the resource does.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from infra.plugin.annotations import AUTONAMED
from infra.plugin.wire import Properties, Secret

_HEX = 8


def random_hex(seed: bytes, salt: str = "") -> str:
    """Eight hex digits that follow from `seed`, or random ones without a seed."""
    if not seed:
        return secrets.token_hex(_HEX // 2)
    return hashlib.sha256(seed + salt.encode()).hexdigest()[:_HEX]


def metadata_of(properties: Properties) -> dict[str, Any] | None:
    """The `metadata` of properties, to be read or changed in place; None where it isn't an object (unknown)."""
    meta = properties.get("metadata")
    if isinstance(meta, Secret):
        meta = meta.value
    return meta if isinstance(meta, dict) else None


def with_metadata(properties: Properties) -> Properties:
    """`properties` with its own copy of `metadata` (an empty one where there is none) and of its annotations."""
    meta = properties.get("metadata", {})
    if isinstance(meta, Secret):
        return {**properties, "metadata": Secret(_copied(meta.value))}
    return {**properties, "metadata": _copied(meta)}


def _copied(meta: Any) -> Any:
    if not isinstance(meta, dict):
        return meta
    copy = dict(meta)
    if isinstance(copy.get("annotations"), dict):
        copy["annotations"] = dict(copy["annotations"])
    return copy


def is_autonamed(properties: Properties) -> bool:
    annotations = (metadata_of(properties) or {}).get("annotations")
    return isinstance(annotations, dict) and annotations.get(AUTONAMED) == "true"


def keep_autoname(new: Properties, old: Properties) -> None:
    """Give `new` the autoname of `old`, in place, where it has no name of its own."""
    meta, old_meta = metadata_of(new), metadata_of(old)
    if meta is None or old_meta is None or meta.get("name") is not None or not is_autonamed(old):
        return
    _set(meta, old_meta["name"])


def autoname(new: Properties, resource_name: str, seed: bytes, proposed: str | None = None) -> None:
    """Name `new`, in place, where it has no name: `proposed`, or `<resource name>-<8 hex digits>`."""
    meta = metadata_of(new)
    if meta is None or meta.get("name") is not None:
        return
    _set(meta, proposed or f"{resource_name}-{random_hex(seed, resource_name)}")


def _set(meta: dict[str, Any], name: str) -> None:
    meta["name"] = name
    annotations = meta.get("annotations")
    if annotations is None:
        meta["annotations"] = {AUTONAMED: "true"}
    elif isinstance(annotations, dict):
        annotations[AUTONAMED] = "true"


def field_manager() -> str:
    """A field manager's name for a new object."""
    return f"pulumi-kubernetes-{random_hex(b'')}"


def object_id(namespace: str | None, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def parse_id(identifier: str) -> tuple[str | None, str]:
    """Namespace (None: none given) and name in a resource's id."""
    namespace, slash, name = identifier.rpartition("/")
    return (namespace or None, name) if slash else (None, identifier)
