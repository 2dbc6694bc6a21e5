"""What is sent to a release's arms as well: the same to both, and nothing that its customer could notice."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.pods import until
from tests.serving.gateway.test_canary import ARM, both, counted, healthy, ips, saw
from tests.serving.gateway.world import World


async def done(world: World, *clusters: str) -> None:
    """Wait until nothing is under way there. What is mirrored is on its way before its customer has an answer."""
    names = [
        f"cluster.{one}.upstream_rq_{which}" for one in clusters for which in ("active", "pending_active")
    ]

    async def idle() -> bool:
        return not any((await world.stats(*names)).values())

    await until(idle)


class TestMirror:
    async def test_both_arms_get_the_same_and_customers_the_champions(self, gateway: World) -> None:
        champion, candidate = await both(gateway)
        baseline = await gateway.backend("base", fleet="chat_baseline")
        await healthy(gateway, "chat_baseline@core", 1)
        await gateway.release(mirror=100)
        await gateway.routed(lambda table: "chat_baseline@core" in table)
        before = await counted(gateway)
        names = [f"request-{i}" for i in range(100)]
        answers = await asyncio.gather(
            *(gateway.ask(headers={"X-Request-Id": name, "Host": "bank-shadow"}) for name in names)
        )
        assert {body["from"] for _, body, _ in answers} == ips(champion)
        assert {body["headers"]["Host"] for _, body, _ in answers} == {"gateway"}, (
            "nobody can pass for a shadow"
        )
        for one in (candidate[0], baseline):
            await until(lambda one=one: saw(one, 100))
            assert sorted(await one.seen()) == sorted(("gateway-shadow", name) for name in names)
        after = await counted(gateway)
        assert (after[0] - before[0], after[1] - before[1]) == (100, 0)

    async def test_a_part_of_them(self, gateway: World) -> None:
        _, candidate = await both(gateway)
        baseline = await gateway.backend("base", fleet="chat_baseline")
        await healthy(gateway, "chat_baseline@core", 1)
        await gateway.release(mirror=30)
        await gateway.routed(lambda table: "chat_baseline@core" in table)
        await asyncio.gather(*(gateway.ask() for _ in range(300)))
        await done(gateway, "chat_candidate@core", "chat_baseline@core")
        seen = await candidate[0].seen()
        assert 50 <= len(seen) <= 130
        assert sorted(seen) == sorted(await baseline.seen()), "the same for both"

    @pytest.mark.parametrize("how", ["hangs", "is dead", "refuses"])
    async def test_what_becomes_of_a_mirrored_request_is_nothing_to_its_customer(
        self, gateway: World, how: str
    ) -> None:
        champion, candidate = await both(gateway)
        await gateway.release(mirror=100)
        await gateway.routed(lambda table: "request_mirror_policies" in table)
        await {
            "hangs": lambda: candidate[0].mode(delay_s=60),
            "refuses": lambda: candidate[0].mode(status=503),
            "is dead": lambda: asyncio.to_thread(candidate[0].kill),
        }[how]()
        before = await counted(gateway)
        for _ in range(400):
            started = time.monotonic()
            status, body, _ = await gateway.ask()
            assert (status, body["from"] in ips(champion)) == (200, True)
            assert time.monotonic() - started < 8, "a mirrored request may take 10 s"
        assert await counted(gateway) == (before[0] + 400, before[1])

    async def test_a_customers_host_is_not_told(self, gateway: World) -> None:
        await both(gateway)
        await gateway.release(weight=50)
        for host in ("x-shadow", "x-shadow:8080", "gateway-shadow"):
            for arm in ("candidate", "champion", "none"):
                _, body, _ = await gateway.ask(headers={"Host": host, ARM: arm})
                assert body["headers"]["Host"] == "gateway"
