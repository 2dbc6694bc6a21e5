"""What is kept of an object in Pulumi's state, and how a refresh brings the inputs in line with the live object.

The state is the live object with `__inputs` (the inputs that made it), `__fieldManager` (whose fields they are on
the API server) and `__initialApiVersion`, as the official plugin keeps it, so that either can go on from the other's
state. `managedFields` are left out: they are long, change with every write of anybody, and nobody reads them. So is
what a plain `kubectl apply` notes of the manifest that it was given: of a Secret that is all its values.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.plugin.wire import Properties, Secret, from_kubernetes, hide, reveal, to_kubernetes
from switchboard.kube import Object

INPUTS = "__inputs"
FIELD_MANAGER = "__fieldManager"
INITIAL_API_VERSION = "__initialApiVersion"
_OURS = (INPUTS, FIELD_MANAGER, INITIAL_API_VERSION)
IDENTITY = (*_OURS, "metadata")
"""All of a state that a comparison or an update reads; the rest of the live object is for refreshes."""

READ_ONLY_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class State:
    """A state, taken apart: `inputs` with their secrets, and as kept what `live` shows in plain values."""

    inputs: Properties
    kept: Properties
    field_manager: str | None
    initial_api_version: str | None

    @cached_property
    def live(self) -> Object:
        """The object as the API server last showed it."""
        found: Object = to_kubernetes({key: value for key, value in self.kept.items() if key not in _OURS})
        return found


def checkpoint(
    inputs: Properties, live: Object, field_manager: str, initial_api_version: str | None
) -> Properties:
    """The state of an object that `inputs` made, and that the API server showed as `live`."""
    clean = {key: value for key, value in live.items() if key not in _OURS}
    if isinstance(clean.get("metadata"), dict):
        clean["metadata"] = {
            k: v
            for k, v in _without_annotations(clean["metadata"], _LAST_APPLIED).items()
            if k != "managedFields"
        }
    state: Properties = hide(from_kubernetes(clean), inputs)
    if _is_secret(live):
        for key in ("data", "stringData"):
            if key in state and not isinstance(state[key], Secret):
                state[key] = Secret(reveal(state[key]))
    state[INPUTS] = inputs
    state[FIELD_MANAGER] = field_manager
    if version := initial_api_version or live.get("apiVersion"):
        state[INITIAL_API_VERSION] = version
    return state


def _without_annotations(metadata: Object, *names: str) -> Object:
    annotations = metadata.get("annotations")
    if not isinstance(annotations, dict) or not annotations.keys() & set(names):
        return metadata
    kept = {key: value for key, value in annotations.items() if key not in names}
    rest = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**rest, "annotations": kept} if kept else rest


def parse(state: Properties, fallback_inputs: Properties | None = None) -> State:
    """The parts of a kept state."""
    inputs = state.get(INPUTS)
    if isinstance(inputs, Secret):
        inputs = inputs.value
    return State(
        inputs=inputs if isinstance(inputs, dict) else (fallback_inputs or {}),
        kept=state,
        field_manager=state.get(FIELD_MANAGER),
        initial_api_version=state.get(INITIAL_API_VERSION),
    )


def desired(inputs: Properties) -> Object:
    """The object to apply for `inputs`: plain, without what the server writes."""
    obj = to_kubernetes({key: value for key, value in inputs.items() if not key.startswith("__")})
    obj.pop("status", None)
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        obj["metadata"] = {key: value for key, value in metadata.items() if key not in READ_ONLY_METADATA}
    return obj


def imported_inputs(live: Object) -> Properties:
    """Inputs for an object that nobody here made: all that is set, without what the server writes."""
    inputs = desired(from_kubernetes(live))
    inputs["metadata"] = _without_annotations(inputs["metadata"], _LAST_APPLIED, _REVISION)
    inputs = from_kubernetes(inputs)
    if _is_secret(live) and "data" in inputs:
        inputs["data"] = Secret(inputs["data"])
    return inputs


def refreshed_inputs(inputs: Properties, was: Object, now: Object) -> Properties:
    """`inputs` with the live object's value wherever that changed from `was` to `now`.

    What the server made of an input when it took it (`1000m` became `1`) is no drift, and what others added beside
    the inputs isn't ours to show.
    """
    plain = to_kubernetes(inputs)
    merged = _merge(plain, _readable(was, plain), _readable(now, plain))
    return hide(from_kubernetes(merged), inputs)


def _merge(wanted: Any, was: Any, now: Any) -> Any:
    if was == now:
        return wanted
    if isinstance(wanted, dict) and isinstance(now, dict):
        before = was if isinstance(was, dict) else {}
        return {
            key: _merge(value, before.get(key), now.get(key))
            for key, value in wanted.items()
            if key in now or before.get(key) is None
        }
    if isinstance(wanted, list) and isinstance(now, list) and isinstance(was, list):
        return _merge_lists(wanted, was, now)
    return now


def _merge_lists(wanted: list[Any], was: list[Any], now: list[Any]) -> list[Any]:
    if all(_name(item) is not None for item in [*wanted, *was, *now]):
        before, after = {_name(item): item for item in was}, {_name(item): item for item in now}
        return [
            _merge(item, before.get(_name(item)), after[_name(item)])
            for item in wanted
            if _name(item) in after
        ]
    if len(wanted) == len(was) == len(now):
        return [_merge(*items) for items in zip(wanted, was, now, strict=True)]
    return now


def _name(item: Any) -> str | None:
    return item.get("name") if isinstance(item, dict) else None


def _is_secret(obj: Object) -> bool:
    return obj.get("kind") == "Secret" and obj.get("apiVersion") == "v1"


def _readable(live: Object, wanted: Object) -> Object:
    """`live` with a Secret's `stringData` as the inputs have it (the server only keeps `data`)."""
    if not _is_secret(live) or not isinstance(wanted.get("stringData"), dict):
        return live
    data = live.get("data") or {}
    return {
        **live,
        "stringData": {key: _text(data[key]) for key in wanted["stringData"] if key in data},
    }


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode(errors="replace")
    except ValueError:
        return encoded
