"""Properties as they travel between the engine and the plugin, to and from plain Python values.

A property bag is a protobuf `Struct`, in which unknown values and secrets are encoded by agreed strings. Here they
are `UNKNOWN` and `Secret`; nulls inside objects mean "not given" and are dropped; whole numbers are ints, since the
API server refuses `3.0` where it wants an integer. Assets and archives have no meaning for Kubernetes objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value

Properties = dict[str, Any]
"""A property bag: JSON-like values, with `Secret` and `UNKNOWN` anywhere inside."""

SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the protocol's mark of a secret
_RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_FILES = {"c44067f5952c0a294b673a41bacd8c17": "asset", "0def7320c3a5731c473e5ecbe6d01bc7": "archive"}
UNKNOWN_STRING = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)
_EXACT = 2**53  # beyond it a double no longer holds every whole number


class _Unknown:
    """A value that is not known before the program has run for real."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, _: object) -> _Unknown:
        return self


UNKNOWN: Final = _Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that the engine encrypts in the state and hides on the screen."""

    value: Any


class WireError(ValueError):
    """A property bag that can't be a Kubernetes object's; names the property."""


def decode(struct: Struct, only: Iterable[str] | None = None) -> Properties:
    """The properties in `struct` (`only`: those of these names).

    Raises:
        WireError: for an asset or archive, naming where it is.
    """
    fields = struct.fields
    keys = fields if only is None else [key for key in only if key in fields]
    return {key: found for key in keys if (found := _decode(fields[key], key)) is not None}


def _decode(value: Value, path: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text in _UNKNOWNS else text
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE in fields:
            return _decode_signed(value.struct_value, path)
        return {
            key: found
            for key, item in fields.items()
            if (found := _decode(item, f"{path}.{key}")) is not None
        }
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item, f"{path}[{i}]") for i, item in enumerate(value.list_value.values)]
    return None


def _decode_signed(struct: Struct, path: str) -> Any:
    fields = struct.fields
    signature = fields[SIGNATURE].string_value
    if signature == _SECRET:
        inner = _decode(fields["value"], path)
        return inner if inner is None or isinstance(inner, Secret) else Secret(inner)
    if signature == _OUTPUT:
        inner = _decode(fields["value"], path) if "value" in fields else UNKNOWN
        return Secret(inner) if "secret" in fields and fields["secret"].bool_value else inner
    if signature == _RESOURCE:
        return _decode(fields["id"], path) if "id" in fields else fields["urn"].string_value
    what = _FILES.get(signature, f"value of an unknown type ({signature})")
    raise WireError(f"{path}: an {what} can't be part of a Kubernetes object; give its contents as a string")


def encode(properties: Properties) -> Struct:
    """The `Struct` of `properties`; None inside objects is left out."""
    struct = Struct()
    _encode_fields(properties, struct)
    return struct


def _encode_fields(properties: Properties, struct: Struct) -> None:
    fields = struct.fields
    for key, value in properties.items():
        if value is not None:
            _encode(value, fields[key])


def _encode(value: Any, into: Value) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        _encode_fields(value, into.struct_value)
    elif isinstance(value, list | tuple):
        into.list_value.SetInParent()
        for item in value:
            _encode(item, into.list_value.values.add())
    elif isinstance(value, Secret):
        fields = into.struct_value.fields
        fields[SIGNATURE].string_value = _SECRET
        _encode(value.value, fields["value"])
    elif value is UNKNOWN:
        into.string_value = UNKNOWN_STRING
    elif value is None:
        into.null_value = 0  # type: ignore[assignment]
    else:
        raise TypeError(f"a property can't be a {type(value).__name__}")


def reveal(value: Any) -> Any:
    """`value` with every secret replaced by what it holds (a copy)."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, dict):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def hide(value: Any, like: Any) -> Any:
    """`value` with a `Secret` wherever `like` has one (lists by position)."""
    if isinstance(like, Secret):
        return value if isinstance(value, Secret) or value is None else Secret(value)
    if isinstance(like, dict) and isinstance(value, dict):
        return {key: hide(item, like[key]) if key in like else item for key, item in value.items()}
    if isinstance(like, list) and isinstance(value, list):
        return [hide(item, like[i]) if i < len(like) else item for i, item in enumerate(value)]
    return value


def has_unknown(value: Any) -> bool:
    """Whether `value` is or contains `UNKNOWN`."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return has_unknown(value.value) if isinstance(value, Secret) else value is UNKNOWN


def rename_keys(value: Any, rename: Callable[[str], str]) -> Any:
    """`value` with the keys of all its objects renamed."""
    if isinstance(value, dict):
        return {rename(key): rename_keys(item, rename) for key, item in value.items()}
    if isinstance(value, list):
        return [rename_keys(item, rename) for item in value]
    return Secret(rename_keys(value.value, rename)) if isinstance(value, Secret) else value


def to_kubernetes(properties: Any) -> Any:
    """The Kubernetes form of properties: no secrets' wrappers, `x_kubernetes_…` of CRD schemas with dashes."""
    # One pass for both: this runs for every object in every operation.
    if isinstance(properties, dict):
        return {
            key.replace("_", "-") if key.startswith("x_kubernetes_") else key: to_kubernetes(value)
            for key, value in properties.items()
        }
    if isinstance(properties, list):
        return [to_kubernetes(item) for item in properties]
    return to_kubernetes(properties.value) if isinstance(properties, Secret) else properties


def from_kubernetes(obj: Any) -> Any:
    """The inverse: `x-kubernetes-…` as the typed SDKs name it."""
    return rename_keys(obj, lambda key: key.replace("-", "_") if key.startswith("x-kubernetes-") else key)
