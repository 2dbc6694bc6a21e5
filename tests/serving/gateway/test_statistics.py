"""What a gateway counts: each request of a customer's once, whatever becomes of it."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from switchboard.gateway_stats import PATH, Counters, Key, parse
from tests import pods
from tests.pods import until
from tests.serving.gateway.world import World


async def counters(world: World) -> dict[Key, Counters]:
    async with world.session.get(URL(f"http://{world.ip}:9902{PATH}", encoded=True)) as answer:
        return parse(await answer.read())


async def counted(world: World, before: dict[Key, Counters], expected: dict[str, int]) -> None:
    """Wait until so many have arrived since, by tier."""
    found: dict[Key, float] = {}

    async def so_many() -> bool:
        now = await counters(world)
        found.update({key: one.arrivals - before[key].arrivals for key, one in now.items()})
        return found == {("chat", tier): value for tier, value in expected.items()}

    try:
        await until(so_many)
    except AssertionError:
        raise AssertionError(f"{found}, not {expected}") from None


async def ask(world: World, count: int) -> set[int]:
    return {status for status, _, _ in await asyncio.gather(*(world.ask() for _ in range(count)))}


async def test_each_request_is_counted_once(gateway: World) -> None:
    one, two = await gateway.backends("a", "b")
    before = await counters(gateway)
    assert await ask(gateway, 40) == {200}
    await counted(gateway, before, {"core": 40})

    before = await counters(gateway)
    await one.mode(status=503)
    assert await ask(gateway, 40) == {200}
    await counted(gateway, before, {"core": 40})
    assert (await counters(gateway))["chat", "core"].retries > 0
    await one.mode()

    before = await counters(gateway)
    one.kill()
    assert await ask(gateway, 40) == {200}
    two.kill()
    assert await ask(gateway, 40) == {503}
    await counted(gateway, before, {"core": 80})

    before = await counters(gateway)
    await pods.gone(gateway.kube, gateway.space, "a")
    await pods.gone(gateway.kube, gateway.space, "b")
    await gateway.given("chat", set())

    async def nobody() -> bool:
        assert (await gateway.ask())[0] == 503
        asked.append(1)
        # Some of those before it may have been refused, too: where the two that ended were already known for unhealthy.
        return (await counters(gateway))["chat", "core"].refused >= before["chat", "core"].refused + 3

    asked: list[int] = []
    await until(nobody)
    await counted(gateway, before, {"core": len(asked)})


async def test_health_checks_and_what_is_for_nobody_are_not_counted(gateway: World) -> None:
    (one,) = await gateway.backends("a")
    before = await counters(gateway)
    checks = await one.checks()
    assert (await gateway.ask(path="/v1/nobody"))[0] == 404
    assert (await gateway.ask(json={"text": "x" * 70_000}))[0] == 413

    async def checked() -> bool:
        return await one.checks() >= checks + 2

    await until(checked)
    await counted(gateway, before, {"core": 0})


class TestHeld:
    @pytest.fixture
    def gateway_environ(self) -> dict[str, str]:
        return {"GATEWAY_TIER": "core", "GATEWAY_REGION": "cn-shenzhen", "HOLD_REQUESTS": "10"}

    async def test_what_is_held_is_counted_when_it_comes(self, world: World) -> None:
        await world.model_server()
        await world.start()
        await world.holding()
        before = await counters(world)
        held = [asyncio.create_task(world.ask()) for _ in range(10)]
        await world.waiting(10)
        assert await ask(world, 3) == {503}
        await counted(world, before, {"core": 13})
        now = (await counters(world))["chat", "core"]
        assert (now.queued, now.refused, now.in_service) == (10, 3, 0)
        held[0].cancel()
        await world.waiting(9)

        one = await world.backend("a", ready=False)
        await one.mode(holds=True)
        await pods.set_ready(world.kube, world.space, "a", True)

        async def in_both() -> bool:
            now = (await counters(world))["chat", "core"]
            return (now.queued, now.in_service) == (9, 9)

        await until(in_both, what="those that held ones are at work on are in both")
        await one.mode()
        assert {status for status, _, _ in await asyncio.gather(*held[1:])} == {200}
        await counted(world, before, {"core": 13})

        async def over() -> bool:
            now = (await counters(world))["chat", "core"]
            return (now.queued, now.refused, now.in_service) == (0, 3, 0)

        await until(over)


class TestEdge:
    @pytest.fixture
    def gateway_environ(self) -> dict[str, str]:
        return {"GATEWAY_TIER": "edge", "GATEWAY_REGION": "cn-beijing"}

    async def test_an_edge_counts_for_the_core_and_for_itself(self, gateway: World) -> None:
        one, two = await gateway.backend("a"), await gateway.backend("b")
        own = await gateway.backend("own", tier="edge", region="cn-beijing")
        await gateway.healthy(own.ip)
        await gateway.used({one.ip, two.ip})
        before = await counters(gateway)
        assert await ask(gateway, 40) == {200}
        await counted(gateway, before, {"core": 40, "edge": 0})

        before = await counters(gateway)
        one.kill()
        two.kill()
        assert await ask(gateway, 8) == {200}
        await counted(gateway, before, {"core": 8, "edge": 8})
