"""The annotations by which a manifest speaks to the plugin (the official plugin's names)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTONAMED = "pulumi.com/autonamed"
SKIP_AWAIT = "pulumi.com/skipAwait"
WAIT_FOR = "pulumi.com/waitFor"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
REPLACE_UNREADY = "pulumi.com/replaceUnready"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"


def annotation(obj: Mapping[str, Any], name: str) -> str | None:
    """The annotation's value in a plain object; None where it is absent or isn't a string."""
    metadata = obj.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    value = annotations.get(name) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else None


def is_true(obj: Mapping[str, Any], name: str) -> bool:
    return annotation(obj, name) == "true"
