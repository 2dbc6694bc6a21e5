from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.last_known import dump, load
from serving.gateway.model_servers import CONCURRENCY, Server, parse, servers
from switchboard.api.model_server import Capacity, Spec
from switchboard.kube import Object


def model_server(name: str = "chat", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": spec}


ZERO = {"minReplicas": 0, "maxReplicas": 3}
EDGE = {"tier": "edge", "region": "bj"}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(model_server(scaling={"maxReplicas": 3}), Server("chat"), id="keeps one"),
        pytest.param(model_server(scaling=ZERO), Server("chat", from_zero=True), id="from zero"),
        pytest.param(model_server(scaling=ZERO | {"mode": "shadow"}), Server("chat"), id="decided on only"),
        pytest.param(model_server(scaling=ZERO | {"mode": "paused"}), Server("chat"), id="paused"),
        pytest.param(model_server(scaling=ZERO | {"pause": {"up": True}}), Server("chat"), id="not up"),
        pytest.param(
            model_server(scaling=ZERO | {"pause": {"down": True}}),
            Server("chat", from_zero=True),
            id="not down",
        ),
        pytest.param(
            model_server("chat-bj", service="chat", placement=EDGE),
            Server("chat", "edge", "bj"),
            id="an edge's",
        ),
        pytest.param(
            model_server(capacity={"concurrency": 8}, scaling=ZERO),
            Server("chat", concurrency=8, from_zero=True),
            id="concurrency",
        ),
        pytest.param(
            model_server(capacity={"hedgeMilliseconds": 150}, scaling=ZERO),
            Server("chat", from_zero=True, hedge_s=0.15),
            id="hedged",
        ),
        pytest.param(
            model_server(capacity={"hedgeMilliseconds": "150"}), Server("chat"), id="hedged by no number"
        ),
        pytest.param(
            model_server("chat-candidate", service="chat", arm="candidate", scaling=ZERO),
            Server("chat_candidate", from_zero=True),
            id="an arm",
        ),
        pytest.param(model_server(arm=["candidate"]), None, id="no arm"),
        pytest.param(model_server(scaling={"minReplicas": "0"}), None, id="no number"),
        pytest.param(model_server(service=7), None, id="no name"),
        pytest.param({}, None, id="nothing"),
        pytest.param({"spec": [], "metadata": {"name": "chat"}}, Server("chat"), id="no spec"),
    ],
)
def test_parse(obj: Object, expected: Server | None) -> None:
    assert parse(obj) == expected


@pytest.mark.parametrize(
    ("more", "parsed"),
    [
        ({"scaling": ZERO}, Server("chat", from_zero=True)),
        ({"scaling": {"maxReplicas": 3}, "placement": EDGE}, Server("chat", "edge", "bj")),
    ],
)
def test_defaults_are_those_of_the_api(more: dict[str, Any], parsed: Server) -> None:
    assert Capacity().concurrency == CONCURRENCY
    model = {"name": "m", "alias": "champion"}
    made = Spec.model_validate({"model": model, "image": "i", "dataRegions": ["bj"], **more})
    whole = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert parse(model_server("chat", **whole)) == parsed


@pytest.mark.parametrize(
    ("server", "tier", "region", "used"),
    [
        (Server("chat"), "core", "", True),
        (Server("chat"), "edge", "bj", True),
        (Server("chat", "edge", "bj"), "edge", "bj", True),
        (Server("chat", "edge", "hk"), "edge", "bj", False),
        (Server("chat", "edge", "bj"), "core", "bj", False),
    ],
)
def test_who_uses_it(server: Server, tier: str, region: str, used: bool) -> None:
    assert server.used_by(tier, region) == used


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["spec", "metadata", "name", "scaling", "minReplicas", "service"]), inner
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), JSON))
def test_any_object(obj: Object) -> None:
    found = servers([obj])
    assert load(json.dumps(dump(found)), Server) == found


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"known": [{}]}', '{"known": [{"x": 1}]}', "7"])
def test_a_file_that_is_something_else(text: str) -> None:
    assert load(text, Server) == ()
