"""The machine's clock jumps, hours ahead and back again: nothing ends early, nothing waits for hours."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from infra.local.node.records import parse_time
from switchboard.kube import LEASES, Object
from tests.infra.local.node.conftest import NODE, RunningNode, Space, is_ready, main, wait
from tests.infra.local.node.test_survival import FOREVER, workers

AHEAD = timedelta(hours=3)


@pytest.fixture
def clock(node: RunningNode) -> Iterator[list[timedelta]]:
    """How far the agent's clock is off, as its one item."""
    off = [timedelta(0)]
    before, node.agent.context.now = node.agent.context.now, lambda: datetime.now(UTC) + off[0]
    yield off
    node.agent.context.now = before


async def renewed(node: RunningNode) -> datetime:
    lease = await node.kube.get(LEASES, NODE, "kube-node-lease")
    return parse_time(lease["spec"]["renewTime"])


async def renewed_after(node: RunningNode, last: datetime) -> datetime:
    async def later() -> bool:
        return await renewed(node) > last

    await wait(later, "the control plane sees no sign of life")
    return await renewed(node)


def restarted(times: int) -> Callable[[Object], bool]:
    """Ready again after so many restarts?"""
    return lambda pod: is_ready(pod) and main(pod)["restartCount"] == times


async def test_a_clock_that_jumps(node: RunningNode, space: Space, clock: list[timedelta]) -> None:
    await space.run(
        "steady",
        *FOREVER,
        pod={"activeDeadlineSeconds": 3600},
        readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1},
    )
    await space.run("limited", *FOREVER, pod={"activeDeadlineSeconds": 8})
    before = await space.until("steady", is_ready)
    await space.until("limited", is_ready)
    last = await renewed(node)
    for restarts, jump in ((1, AHEAD), (2, -AHEAD)):
        clock[0] = jump
        last = await renewed_after(node, last)
        os.kill(workers(node, space)["steady"].runs.pids["main"], signal.SIGKILL)
        again = await space.until("steady", restarted(restarts))
        assert again["metadata"]["uid"] == before["metadata"]["uid"]
    over = await space.until("limited", lambda p: p["status"]["phase"] == "Failed")
    assert over["status"]["reason"] == "DeadlineExceeded", "and the deadline holds all the same"
    clock[0] = timedelta(0)
    await renewed_after(node, last)
