"""Scale to zero, end to end: requests for a model server without a replica wait for the first one."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import pytest

from switchboard.kube import PODS
from tests import pods
from tests.conftest import ControlPlane
from tests.pods import until
from tests.serving.gateway.relay import relay_to
from tests.serving.gateway.test_gateway import LOST
from tests.serving.gateway.world import World

REFUSED = {"code": "unavailable", "message": "The service can't answer right now; try again."}


@pytest.fixture
def hold() -> dict[str, str]:
    """HOLD_S and HOLD_REQUESTS, where a test sets them."""
    return {}


@pytest.fixture
def gateway_environ(hold: dict[str, str]) -> dict[str, str]:
    return {"GATEWAY_TIER": "core", "GATEWAY_REGION": "cn-shenzhen", **hold}


@pytest.fixture
async def empty(world: World) -> World:
    """A gateway before a model server that has no replica yet, and gets one on demand."""
    await world.model_server()
    await world.start()
    await world.holding()
    return world


def asks(world: World, count: int, **options: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(world.ask(f"s-{i}", json={"n": i}, **options)) for i in range(count)]


async def test_all_that_wait_are_answered_by_the_first_replica(empty: World) -> None:
    held = asks(empty, 80)
    await empty.waiting(80)
    one = await empty.backend("a")
    answers = await asyncio.gather(*held)
    assert [status for status, _, _ in answers] == [200] * 80
    assert [json.loads(body["body"])["n"] for _, body, _ in answers] == list(range(80))
    assert {body["from"] for _, body, _ in answers} == {one.ip}
    await empty.waiting(0)
    assert (await empty.ask())[1]["from"] == one.ip


async def test_a_held_request_and_its_answer_are_as_any_other(empty: World) -> None:
    headers = {
        "Idempotency-Key": "turn-1",
        "X-Request-Id": "held-1",
        "X-Long": "x" * 20_000,
        "Content-Type": "application/json; charset=utf-8",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "Accept-Encoding": "identity",
    }
    text = json.dumps({"text": "我的卡丢了" * 4000}, ensure_ascii=False)

    async def ask() -> Any:
        return await empty.ask("s-1", headers=headers, json=None, data=text.encode(), path="/v1/chat?x=%2F&y")

    held = asyncio.create_task(ask())
    await empty.waiting(1)
    await empty.backend("a")
    answers = [await held, await ask()]
    for status, body, answer in answers:
        assert (status, body["session"], body["body"]) == (200, "s-1", text)
        assert answer["x-request-id"] == "held-1"
    one, other = ({name.lower(): value for name, value in body["headers"].items()} for _, body, _ in answers)
    assert one == other
    assert one["idempotency-key"] == "turn-1"
    one, other = ({name.lower() for name in answer} for _, _, answer in answers)
    assert one == other


@pytest.mark.parametrize("hold", [{"HOLD_REQUESTS": "5"}])
async def test_more_than_may_wait_are_refused_at_once(empty: World) -> None:
    held = asks(empty, 5)
    await empty.waiting(5)
    status, body, headers = await empty.ask()
    assert (status, body["error"], int(headers["retry-after"])) == (503, REFUSED, 1)
    assert body["request_id"] == headers["x-request-id"]
    assert not any(one.done() for one in held)
    await empty.backend("a")
    assert {status for status, _, _ in await asyncio.gather(*held)} == {200}


@pytest.mark.parametrize("hold", [{"HOLD_S": "1"}])
async def test_nobody_waits_for_ever(empty: World) -> None:
    started = time.monotonic()
    status, body, headers = await empty.ask()
    assert time.monotonic() - started >= 1
    assert (status, body["error"], int(headers["retry-after"])) == (503, REFUSED, 5)
    assert body["request_id"] == headers["x-request-id"]


async def test_who_goes_is_forgotten(empty: World) -> None:
    held = asks(empty, 6)
    await empty.waiting(6)
    for one in held[::2]:
        one.cancel()
    await empty.waiting(3)
    await empty.backend("a")
    answers = await asyncio.gather(*held[1::2])
    assert sorted(body["number"] for _, body, _ in answers) == [1, 2, 3]


async def test_first_come_first_served_and_no_more_at_once_than_a_replica_takes(world: World) -> None:
    await world.model_server(capacity={"concurrency": 1})
    await world.start()
    await world.holding()
    held = []
    for i in range(10):
        held.append(asyncio.create_task(world.ask(json={"n": i})))
        await world.waiting(i + 1)
    one = await world.backend("a")
    answers = await asyncio.gather(*held)
    assert [(body["number"], body["peak"]) for _, body, _ in answers] == [(i + 1, 1) for i in range(10)]

    await world.model_server(capacity={"concurrency": 4})
    await world.remove("a", one)
    await world.holding()
    held = asks(world, 40)
    await world.waiting(40)
    two = await world.backend("b", ready=False)
    await two.mode(delay_s=0.1)  # or one may be answered before the next one comes
    await pods.set_ready(world.kube, world.space, "b", True)
    answers = await asyncio.gather(*held)
    assert max(body["peak"] for _, body, _ in answers) == 4


async def test_who_finds_a_full_replica_is_the_next_one_again(empty: World) -> None:
    one = await empty.backend("a", ready=False)
    held = asks(empty, 20)
    await empty.waiting(20)
    await one.mode(status=503)
    await pods.set_ready(empty.kube, empty.space, "a", True)
    await until(lambda: "may go" in empty.log("agent"))
    await empty.waiting(20)
    await one.mode()
    assert {status for status, _, _ in await asyncio.gather(*held)} == {200}


async def test_to_zero_and_back_under_load(empty: World) -> None:
    one = await empty.backend("a")
    async with empty.load(at_least=1000) as load:
        for old, new in ("ab", "bc", "cd"):
            await until(lambda ip=one.ip: load.by.get(ip, 0) > 100)
            await empty.remove(old, one)
            await empty.waiting(6)
            one = await empty.backend(new)
    assert load.failed == 0, empty.explain(load)
    assert len(load.by) == 4


async def test_the_api_server_is_away_while_requests_wait(world: World, control_plane: ControlPlane) -> None:
    relay, kubeconfig = relay_to(control_plane, world.directory)
    await relay.open()
    try:
        await world.model_server()
        world.init()
        world.start_envoy()
        world.start_agent(kubeconfig)
        await until(world.ready)
        await world.holding()
        held = asks(world, 5)
        await world.waiting(5)
        await relay.cut()
        await until(lambda: LOST in world.log("agent"))
        await world.backend("a")
        held += asks(world, 5)
        await world.waiting(10)
        await relay.open()
        assert {status for status, _, _ in await asyncio.gather(*held)} == {200}
    finally:
        await relay.cut()


async def test_the_agent_dies_while_requests_wait(empty: World) -> None:
    agent = empty.agent
    assert agent is not None
    held = asks(empty, 20)
    await empty.waiting(20)
    agent.kill()
    agent.wait()
    empty.start_agent()
    await empty.backend("a")
    assert {status for status, _, _ in await asyncio.gather(*held)} == {200}


async def test_a_new_agent_goes_on_with_what_the_last_one_knew(
    empty: World, control_plane: ControlPlane
) -> None:
    """It can't see ModelServers any more; and what it can't see it doesn't take for gone."""
    agent = empty.agent
    assert agent is not None
    agent.kill()
    agent.wait()
    lost = "modelservers lost"
    before = empty.log("agent").count(lost)
    empty.start_agent(await empty.only_pods())
    await until(lambda: empty.log("agent").count(lost) > before)
    held = asks(empty, 3)
    await empty.waiting(3)
    one = await empty.backend("a")
    assert {body["from"] for _, body, _ in await asyncio.gather(*held)} == {one.ip}


async def test_without_the_right_to_see_model_servers_it_serves(world: World) -> None:
    await world.model_server()
    world.init()
    world.start_envoy()
    world.start_agent(await world.only_pods())
    await until(world.ready)
    one = await world.backend("a")
    await world.used({one.ip})
    await world.remove("a", one)

    async def refused() -> bool:
        return (await world.ask())[0] == 503

    await until(refused)


async def test_the_gateway_ends_while_requests_wait(empty: World) -> None:
    agent = empty.agent
    assert agent is not None
    held = asks(empty, 3)
    await empty.waiting(3)
    agent.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*held)
    assert {(status, body["error"]["code"]) for status, body, _ in answers} == {(503, "unavailable")}
    await empty.session.close()
    await until(lambda: agent.poll() is not None, what="the agent's end")
    assert agent.returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"scaling__minReplicas": 1}, id="it keeps a replica from now on"),
        pytest.param({"scaling__mode": "paused"}, id="nobody starts one"),
    ],
)
async def test_the_model_server_changes_while_requests_wait(empty: World, change: dict[str, Any]) -> None:
    """Those that wait go on waiting; the next ones are refused."""
    held = asks(empty, 3)
    await empty.waiting(3)
    await empty.model_server(**change)
    await empty.holding(False)
    assert (await empty.ask())[0] == 503
    one = await empty.backend("a")
    assert {body["from"] for _, body, _ in await asyncio.gather(*held)} == {one.ip}


async def test_an_answer_that_breaks_off_does_not_look_whole(empty: World) -> None:
    one = await empty.backend("a", ready=False)
    await one.mode(breaks=True)
    held = asks(empty, 1)
    await empty.waiting(1)
    await pods.set_ready(empty.kube, empty.space, "a", True)
    (answer,) = await asyncio.gather(*held, return_exceptions=True)
    assert isinstance(answer, Exception)


class TestEdge:
    @pytest.fixture
    def gateway_environ(self) -> dict[str, str]:
        return {"GATEWAY_TIER": "edge", "GATEWAY_REGION": "cn-beijing"}

    async def test_an_edge_holds_where_neither_the_core_nor_itself_has_a_replica(self, empty: World) -> None:
        held = asks(empty, 10)
        await empty.waiting(10)
        await empty.backend("foreign", tier="edge", region="cn-hongkong")
        core = await empty.backend("core")
        assert {body["from"] for _, body, _ in await asyncio.gather(*held)} == {core.ip}

        own = await empty.backend("own", tier="edge", region="cn-beijing")
        await empty.healthy(own.ip)
        async with empty.load(at_least=300) as load:
            await empty.remove("core", core)
        assert load.failed == 0, empty.explain(load)
        await empty.used({own.ip})

        await empty.remove("own", own)
        await empty.holding()
        held = asks(empty, 10)
        await empty.waiting(10)
        own = await empty.backend("own2", tier="edge", region="cn-beijing")
        assert {body["from"] for _, body, _ in await asyncio.gather(*held)} == {own.ip}


async def test_a_pod_that_is_marked_to_go_gets_nothing_new(gateway: World) -> None:
    one, two = await gateway.backends("a", "b")
    session = await gateway.session_of(one)
    await one.mode(delay_s=1.5)
    slow = asyncio.create_task(gateway.ask(session, headers={"X-Request-Id": "slow"}))

    async def came() -> bool:
        return any(request_id == "slow" for _, request_id in await one.seen())

    await until(came)
    await gateway.mark("a")
    await gateway.given("chat", {two.ip})
    async with gateway.load(at_least=500) as load:
        pass
    status, body, _ = await slow
    assert (status, body["from"]) == (200, one.ip), "what was under way is finished"
    assert load.failed == 0, gateway.explain(load)
    assert set(load.by) == {two.ip}

    await one.mode()
    await gateway.mark("b")
    await gateway.used({one.ip, two.ip})
    three = await gateway.backend("c")
    await gateway.used({three.ip})
    await gateway.kube.patch(PODS, "b", {"metadata": {"annotations": None}}, gateway.space)
    await gateway.used({two.ip, three.ip})
