"""Events at a real API server: there, counted when they are the same again, and never in the way of the work."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from switchboard import events
from switchboard.events import Events
from switchboard.kinds import MODEL_SERVERS
from switchboard.kube import EVENTS, Credentials, Kube, Object
from tests.conftest import ControlPlane

LONG_S = 120.0


@pytest_asyncio.fixture(loop_scope="session")
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig), timeout_s=30) as found:
        yield found


@pytest.fixture
def about() -> Object:
    name = f"chat-{uuid.uuid4().hex[:8]}"
    return {
        "apiVersion": MODEL_SERVERS.api_version,
        "kind": MODEL_SERVERS.kind,
        "metadata": {"name": name, "namespace": "default", "uid": name},
    }


@asynccontextmanager
async def sending(made: Events) -> AsyncIterator[None]:
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def told(kube: Kube, about: Object) -> dict[str, int]:
    """What was said, and how often."""
    chosen = f"involvedObject.name={about['metadata']['name']}"
    found = await kube.list(EVENTS, "default", field_selector=chosen)
    return {one["message"]: one["count"] for one in found}


async def until(kube: Kube, about: Object, holds: Callable[[dict[str, int]], Any]) -> dict[str, int]:
    async with asyncio.timeout(LONG_S):
        while not holds(found := await told(kube, about)):
            await asyncio.sleep(0.05)
    return found


async def test_an_event_says_of_what_and_by_whom(kube: Kube, about: Object) -> None:
    made = Events(kube, "switchboard-operator", "operator-0")
    async with sending(made):
        made.emit(about, "Normal", "ScaledUp", "from 3 to 5")
        await until(kube, about, lambda found: found)
    chosen = f"involvedObject.name={about['metadata']['name']}"
    (event,) = await kube.list(EVENTS, "default", field_selector=chosen)
    assert event["involvedObject"] == {
        "apiVersion": about["apiVersion"],
        "kind": "ModelServer",
        **about["metadata"],
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "ScaledUp", "from 3 to 5")
    assert event["source"] == {"component": "switchboard-operator", "host": "operator-0"}


async def test_the_same_again_is_a_count(kube: Kube, about: Object) -> None:
    made = Events(kube, "test", "test-0")
    async with sending(made):
        for number in (1, 2, 3):
            made.emit(about, "Warning", "Refused", "no")
            await until(kube, about, lambda found, number=number: found == {"no": number})
        made.emit(about, "Warning", "Refused", "never")
        assert await until(kube, about, lambda found: len(found) == 2) == {"no": 3, "never": 1}


async def test_the_same_before_the_first_was_sent_is_a_count(kube: Kube, about: Object) -> None:
    made = Events(kube, "test", "test-0")
    for _ in range(3):
        made.emit(about, "Warning", "Refused", "no")
    async with sending(made):
        await until(kube, about, lambda found: found == {"no": 3})


async def test_what_comes_all_the_time_is_told_now_and_then(
    kube: Kube, about: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Events(kube, "test", "test-0")
    async with sending(made):
        made.emit(about, "Warning", "Refused", "no")
        await until(kube, about, lambda found: found)
        for _ in range(50):
            made.emit(about, "Warning", "Refused", "no")
        made.emit(about, "Normal", "Done", "last")
        found = await until(kube, about, lambda found: "last" in found)
        assert 1 < found["no"] <= 51
        monkeypatch.setattr(events, "_COUNT_PERIOD_S", 0.0)
        made.emit(about, "Warning", "Refused", "no")
        await until(kube, about, lambda found: found["no"] == 52)


async def test_while_the_api_server_is_away_the_last_ones_are_kept(
    control_plane: ControlPlane, kube: Kube, about: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_RETRY_S", 0.05)
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    server, credentials.server = credentials.server, f"https://{control_plane.layout.control_plane_ip}:1"
    async with Kube(credentials, timeout_s=2) as line:
        made = Events(line, "test", "test-0")
        async with sending(made):
            for number in range(events.KEPT + 50):
                made.emit(about, "Normal", "Counted", str(number))
            await asyncio.sleep(0)  # it tries, in vain
            credentials.server = server
            found = await until(kube, about, lambda found: str(events.KEPT + 49) in found)
    assert events.KEPT - 1 <= len(found) <= events.KEPT + 1
    assert str(1) not in found


async def test_what_is_refused_is_let_go(kube: Kube, about: Object) -> None:
    made = Events(kube, "test", "test-0")
    nowhere = {**about, "metadata": {**about["metadata"], "namespace": "nowhere"}}
    async with sending(made):
        made.emit(nowhere, "Normal", "Lost", "nobody reads it")
        made.emit(about, "Normal", "Found", "x" * 5000)
        (message,) = await until(kube, about, lambda found: found)
    assert len(message) == 1000  # longer ones are refused


async def test_one_that_was_deleted_is_made_anew(kube: Kube, about: Object) -> None:
    made = Events(kube, "test", "test-0")
    async with sending(made):
        made.emit(about, "Normal", "Again", "and again")
        await until(kube, about, lambda found: found)
        chosen = f"involvedObject.name={about['metadata']['name']}"
        (event,) = await kube.list(EVENTS, "default", field_selector=chosen)
        await kube.delete(EVENTS, event["metadata"]["name"], "default")
        made.emit(about, "Normal", "Again", "and again")
        await until(kube, about, lambda found: found)
