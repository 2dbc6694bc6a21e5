"""ModelServers of one service at one place share its traffic by the replicas that get it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.servers.server import Server
from operators.servers.sharing import shares
from operators.signals.values import Traffic
from tests.operators.servers.build import server

EDGE = {"placement": {"tier": "edge", "region": "cn-beijing"}}


def named(name: str, **values: object) -> Server:
    made = server(**values)
    made.name = name
    return made


@pytest.mark.parametrize(
    ("servers", "ready", "expected"),
    [
        pytest.param([named("chat")], {"chat": 3}, {}, id="one alone has all of it"),
        pytest.param(
            [named("chat"), named("chat-next", service="chat")],
            {"chat": 9, "chat-next": 1},
            {"chat": 0.9, "chat-next": 0.1},
            id="two of one service",
        ),
        pytest.param(
            [named("chat"), named("chat-next", service="chat")],
            {"chat": 4, "chat-next": 0},
            {"chat": 1.0, "chat-next": 0.0},
            id="one of them serves nobody yet",
        ),
        pytest.param(
            [named("chat"), named("chat-next", service="chat")],
            {"chat": 0, "chat-next": 0},
            {"chat": 0.5, "chat-next": 0.5},
            id="nobody serves",
        ),
        pytest.param(
            [named("chat"), named("chat-cn-beijing", service="chat", **EDGE), named("voice")],
            {"chat": 4, "chat-cn-beijing": 2, "voice": 1},
            {},
            id="another place and another service are others",
        ),
    ],
)
def test_shares(servers: list[Server], ready: dict[str, int], expected: dict[str, float]) -> None:
    assert shares(servers, lambda one: ready[one.name]) == expected


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6))
def test_together_they_have_all_of_it(counts: list[int]) -> None:
    servers = [named(f"chat-{number}", service="chat") for number in range(len(counts))]
    found = shares(servers, lambda one: counts[int(one.name.removeprefix("chat-"))])
    assert sum(found.values()) == pytest.approx(1)


def test_a_part_of_the_traffic() -> None:
    whole = Traffic(
        rate=40.0, latest_rate=44.0, in_service=8.0, queued=None, cpu=2.0, answered=38.0, measured=10
    )
    assert whole.part(0.25) == Traffic(
        rate=10.0, latest_rate=11.0, in_service=2.0, queued=None, cpu=0.5, answered=9.5, measured=2
    )
    assert Traffic().part(0.25) == Traffic()
