"""Property bags survive the way to the engine and back; what Kubernetes can't take is named."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from infra.plugin.wire import (
    UNKNOWN,
    UNKNOWN_STRING,
    Secret,
    WireError,
    decode,
    encode,
    from_kubernetes,
    has_unknown,
    hide,
    reveal,
    to_kubernetes,
)

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"

leaves = st.one_of(
    st.text(max_size=10),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer()),
    st.just(UNKNOWN),
)
plain = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
values = st.recursive(
    leaves | plain.map(Secret),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
bags = st.dictionaries(st.text(max_size=5), values, max_size=4)


@given(bags)
def test_a_round_trip_changes_nothing(bag: dict[str, Any]) -> None:
    assert decode(encode(bag)) == bag


@given(bags)
def test_hiding_what_was_revealed_gives_the_secrets_back(bag: dict[str, Any]) -> None:
    assert hide(reveal(bag), bag) == bag
    assert has_unknown(reveal(bag)) == has_unknown(bag)


@given(bags)
def test_the_engine_sees_the_agreed_strings(bag: dict[str, Any]) -> None:
    text = str(encode(bag))
    assert (SECRET in text) == ("Secret(" in repr(bag))
    assert (UNKNOWN_STRING in text) == has_unknown(bag)


def struct(**fields: Any) -> Struct:
    found = Struct()
    found.update(fields)
    return found


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param(3.0, 3, id="a whole number is an int, as the API server wants it"),
        pytest.param(0.5, 0.5, id="a fraction stays"),
        pytest.param(2.0**60, 2.0**60, id="beyond a double's whole numbers nothing is pretended"),
        pytest.param({"a": None, "b": 1}, {"b": 1}, id="null means not given"),
        pytest.param([None, 1], [None, 1], id="but keeps its place in a list"),
        pytest.param({}, {}, id="an empty object is something (emptyDir)"),
        pytest.param({SIGNATURE: SECRET, "value": {"a": 1.0}}, Secret({"a": 1}), id="secret"),
        pytest.param(
            {SIGNATURE: SECRET, "value": {SIGNATURE: SECRET, "value": "x"}},
            Secret("x"),
            id="secret in secret",
        ),
        pytest.param(
            {SIGNATURE: "d0e6a833031e9bbcd3f4e8bde6ca49a4", "secret": True, "value": "x"},
            Secret("x"),
            id="output value",
        ),
        pytest.param(
            {SIGNATURE: "d0e6a833031e9bbcd3f4e8bde6ca49a4"}, UNKNOWN, id="output that isn't there yet"
        ),
        pytest.param("6a19a0b0-7e62-4c92-b797-7f8e31da9cc2", UNKNOWN, id="unknown of another type"),
        pytest.param(
            {SIGNATURE: "5cf8f73096256a8f31e491e813e4eb8e", "urn": "u", "id": "ns/x"}, "ns/x", id="resource"
        ),
    ],
)
def test_what_is_sent_is_read_as(sent: Any, read: Any) -> None:
    assert decode(struct(value=sent)).get("value") == read


def test_an_asset_is_refused_by_name() -> None:
    bag = struct(data={"file": [{SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": "x"}]})
    with pytest.raises(WireError, match=r"data\.file\[0\]: an asset"):
        decode(bag)


def test_crd_schemas_get_their_dashes() -> None:
    typed = {"spec": {"x_kubernetes_list_type": "map", "my_field": 1}}
    real = {"spec": {"x-kubernetes-list-type": "map", "my_field": 1}}
    assert to_kubernetes(typed) == real
    assert from_kubernetes(real) == typed
