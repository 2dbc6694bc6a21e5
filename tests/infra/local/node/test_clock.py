"""The machine's clock jumps, hours ahead and back again: nothing ends early, nothing waits for hours."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from infra.local.node.records import Moment, PodRecord, parse_time
from switchboard.kube import LEASES, PODS, Object
from tests.infra.local.node.conftest import NODE, RunningNode, Space, is_ready, main, wait
from tests.infra.local.node.test_survival import FOREVER, run_of, workers

AHEAD = timedelta(hours=3)


@pytest.fixture
def clock(node: RunningNode) -> Iterator[RunningNode]:
    """The node, whose agents' clock is off as far as the test says."""
    yield node
    node.clock_is_off = timedelta(0)


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


def began(pod: Object) -> bool:
    """Did it come to run? On a machine that is busy its time may be up already."""
    return pod["status"]["phase"] == "Failed" or is_ready(pod)


async def test_a_clock_that_jumps(clock: RunningNode, space: Space) -> None:
    node = clock
    await space.run(
        "steady",
        *FOREVER,
        pod={"activeDeadlineSeconds": 3600},
        readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1},
    )
    await space.run("limited", *FOREVER, pod={"activeDeadlineSeconds": 8})
    before = await space.until("steady", is_ready)
    await space.until("limited", began)
    last = await renewed(node)
    for restarts, jump in ((1, AHEAD), (2, -AHEAD)):
        node.clock_is_off = jump
        last = await renewed_after(node, last)
        os.kill(workers(node, space)["steady"].runs.pids["main"], signal.SIGKILL)
        again = await space.until("steady", restarted(restarts))
        assert again["metadata"]["uid"] == before["metadata"]["uid"]
    over = await space.until("limited", lambda p: p["status"]["phase"] == "Failed")
    assert over["status"]["reason"] == "DeadlineExceeded", "and the deadline holds all the same"
    node.clock_is_off = timedelta(0)
    await renewed_after(node, last)


@pytest.mark.parametrize("jump", [AHEAD, -AHEAD])
async def test_a_clock_that_jumps_while_the_agent_is_down(
    clock: RunningNode, space: Space, jump: timedelta
) -> None:
    """A deadline neither comes early nor late for it; nor does one that is set later."""
    for name, spec in (("hour", {"activeDeadlineSeconds": 3600}), ("limited", {"activeDeadlineSeconds": 12})):
        await space.run(name, *FOREVER, pod=spec)
    await space.run("later", *FOREVER)
    before = {name: await space.until(name, is_ready) for name in ("hour", "later")}
    await space.until("limited", began)
    await clock.stop()
    clock.clock_is_off = jump
    await clock.start()
    await space.kube.patch(PODS, "later", {"spec": {"activeDeadlineSeconds": 3600}}, space.name)
    over = await space.until("limited", lambda p: p["status"]["phase"] == "Failed")
    assert over["status"]["reason"] == "DeadlineExceeded"
    for name in ("hour", "later"):
        generation = (await space.get(name))["metadata"]["generation"]
        after = await space.until(
            name, lambda p, seen=generation: p["status"]["observedGeneration"] == seen and is_ready(p)
        )
        assert run_of(after) == run_of(before[name])


BOOT, START_S = "this", 1000.0
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CASES = [
    # (what is known of its start, the machine's clock after how long, for how long it was active)
    ("a new pod", None, timedelta(0), 0.0),
    ("one of before there was a record", None, timedelta(seconds=30), 30.0),
    ("the same boot", Moment(boot=BOOT, at_s=START_S - 7), timedelta(seconds=7), 7.0),
    ("and a clock that was put ahead", Moment(boot=BOOT, at_s=START_S - 7), AHEAD, 7.0),
    ("or back", Moment(boot=BOOT, at_s=START_S - 7), -AHEAD, 7.0),
    ("another boot", Moment(boot="other", at_s=5000.0), timedelta(minutes=5), 300.0),
    ("another boot and a clock that was put back", Moment(boot="other", at_s=5.0), -AHEAD, 0.0),
]


@pytest.mark.parametrize(
    ("begun", "passed", "active_s"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_how_long_a_pod_is_active(begun: Moment | None, passed: timedelta, active_s: float) -> None:
    record = PodRecord(started_at=STARTED, containers={}, begun=begun)
    assert record.active_s(Moment(boot=BOOT, at_s=START_S), STARTED + passed) == active_s
    kept = PodRecord.model_validate_json(record.model_dump_json())
    assert kept.active_s(Moment(boot=BOOT, at_s=START_S + 5), STARTED + AHEAD) == active_s + 5
