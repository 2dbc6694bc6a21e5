"""A gateway's configuration changes all the time, and customers notice nothing of it.

SWITCHBOARD_GATEWAY_CHANGES says how often: 100 times where nobody says.
"""

from __future__ import annotations

import os

from switchboard import labels
from switchboard.kinds import PODS
from tests.serving.gateway.world import World

CHANGES = int(os.environ.get("SWITCHBOARD_GATEWAY_CHANGES", "100"))


async def test_changes_under_load(gateway: World) -> None:
    """In turn of a release's weight, which are routes, and of endpoints; each is in force before the next one."""
    one, two = await gateway.backends("a", "b")
    await gateway.backend("c", fleet="chat_candidate")
    await gateway.release()
    async with gateway.load(workers=3) as load:
        for number in range(CHANGES // 2):
            await gateway.release(weight=1 + number % 99)
            goes = number % 2 == 0
            mark = {labels.DRAINING: "2026-01-01T00:00:00Z" if goes else None}
            await gateway.kube.patch(PODS, "b", {"metadata": {"annotations": mark}}, gateway.space)
            await gateway.given("chat", {one.ip} if goes else {one.ip, two.ip})
    assert load.failed == 0, gateway.explain(load)
    assert len(load.by) == 3
