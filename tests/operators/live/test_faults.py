"""What goes wrong around the operator: its answer is bounded, explained, and takes no capacity away."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import pytest

from operators.settings import TICK_S
from switchboard.kinds import Kind
from switchboard.kube import PODS
from tests.conftest import ControlPlane
from tests.operators.live.rig import Rig, enough, watch_replicas

pytestmark = pytest.mark.asyncio(loop_scope="session")


QUOTAS = Kind("v1", "resourcequotas", "ResourceQuota")
AWAY_S = 60.0
"""Longer than a lease, and than the nodes may be silent: they are back when it is."""


async def holds(world: Rig, name: str, before: int, *, ticks: int) -> None:
    """What there was when the signals ended stays: it may have been on its way up after `before` was read."""
    held = await world.replicas(name)
    assert held >= before
    assert (await watch_replicas(world, name, ticks=ticks))[name] == (held, held)


async def test_without_signals_nothing_goes_down_and_the_fallback_comes(world: Rig) -> None:
    world.service("blind", rate=60)
    world.service("fallback", rate=10)
    await world.server("blind", minReplicas=1)
    await world.server("fallback", minReplicas=1, fallbackReplicas=7, fallbackAfterSeconds=10)
    before = await world.until_replicas("blind", lambda count: count >= 6)
    await world.until_ready("blind")
    world.exporter.silent = True
    try:
        await world.until_replicas("fallback", lambda count: count == 7)
        await world.until_condition("blind", "ScalingActive", "NoSignals")
        await holds(world, "blind", before, ticks=3)
    finally:
        world.exporter.silent = False

    async def sees() -> bool:
        return (await world.condition("blind", "ScalingActive"))["status"] == "True"

    await world.until("signals are back", sees)


async def test_a_prometheus_that_hangs_delays_no_tick(world: Rig) -> None:
    world.service("hung", rate=60)
    await world.server("hung", minReplicas=1)
    before = await world.until_replicas("hung", lambda count: count >= 6)
    world.prometheus.process.send_signal(signal.SIGSTOP)
    try:
        await world.until_condition("hung", "ScalingActive", "NoSignals")
        begun = time.monotonic()
        await holds(world, "hung", before, ticks=4)
        # A look is given up after a second and a half: the next tick is on time, but for a busy machine. One that
        # waited for its answer would take as long as Prometheus does.
        assert (time.monotonic() - begun) / 4 < 5 * TICK_S
    finally:
        world.prometheus.process.send_signal(signal.SIGCONT)

    await world.until_condition("hung", "ScalingActive", "PrometheusAnswers")
    assert await world.replicas("hung") >= 6


async def test_without_prometheus_the_gateways_are_asked(world: Rig) -> None:
    asked = world.service("asked", rate=30)
    await world.server("asked", minReplicas=1)
    await world.until_replicas("asked", lambda count: count >= 3)
    await world.until_ready("asked")
    async with world.counting_gateway("gateway-counts"):
        world.prometheus.process.send_signal(signal.SIGSTOP)
        try:
            await world.until_condition("asked", "ScalingActive", "GatewaysAnswer")
            asked.rate = 120
            await world.until_replicas("asked", lambda count: 12 <= count <= 18)
        finally:
            world.prometheus.process.send_signal(signal.SIGCONT)

        await world.until_condition("asked", "ScalingActive", "PrometheusAnswers")
        await world.until_replicas("asked", lambda count: 12 <= count <= 18)


async def test_a_prometheus_that_sees_nothing_is_completed(world: Rig) -> None:
    """Nothing can be scraped, but Prometheus answers: with nothing. The gateways say what there is."""
    empty = world.service("empty", rate=30)
    await world.server("empty", minReplicas=1)
    await world.until_replicas("empty", lambda count: count >= 3)
    await world.until_ready("empty")
    async with world.counting_gateway("gateway-sees"):
        world.exporter.silent = True
        try:
            await world.until_condition("empty", "ScalingActive", "GatewaysAnswer")
            empty.rate = 120
            await world.until_replicas("empty", lambda count: 12 <= count <= 18)
        finally:
            world.exporter.silent = False


async def test_a_gateway_that_is_not_seen_is_not_taken_for_silent(world: Rig) -> None:
    """Half of the traffic is missing: it came through a gateway that Prometheus can't scrape. It knows of one."""
    world.service("parted", rate=60)
    await world.server("parted", minReplicas=1)
    await world.until_replicas("parted", lambda count: count >= enough(60))
    await world.until_ready("parted")
    before = await world.replicas("parted")
    for name in ("gateway-x", "gateway-y"):
        await world.gateway(name)
    try:
        await world.until_condition("parted", "ScalingActive", "SeenInPart")
        world.exporter.services["parted"].rate = 30
        least, _ = (await watch_replicas(world, "parted", ticks=6))["parted"]
        assert least >= before
    finally:
        for name in ("gateway-x", "gateway-y"):
            await world.kube.delete(PODS, name, world.namespace, grace_period_s=0)
    await world.until_replicas("parted", lambda count: count < before)


async def test_a_quota_is_said(world: Rig) -> None:
    world.service("bound", rate=10)
    serves = world.service("serves", rate=10)
    await world.server("serves", minReplicas=1)
    await world.until_replicas("serves", lambda count: count >= enough(10))
    before = await world.until_all_serve("serves")
    quota = {
        "metadata": {"name": "pods", "namespace": world.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    await world.kube.apply(QUOTAS, quota, field_manager="test")
    try:

        async def counted() -> bool:
            found = await world.kube.get(QUOTAS, "pods", world.namespace)
            return bool(found.get("status", {}).get("hard"))

        await world.until("the quota is in force", counted)
        await world.server("bound", minReplicas=3)
        serves.rate = 60

        await world.until_condition("bound", "Ready", "QuotaExceeded")
        assert (await world.condition("bound", "AbleToScale"))["status"] == "False"
        await world.until_replicas("serves", lambda count: count >= 6)

        async def serves_on() -> bool:
            able, ready = [await world.condition("serves", kind) for kind in ("AbleToScale", "Ready")]
            return able.get("reason") == "ReplicasRefused" and ready.get("status") == "True"

        await world.until("one that serves goes on, and says why it can't grow", serves_on)
        assert len(await world.pods_of("serves")) == before
    finally:
        await world.kube.delete(QUOTAS, "pods", world.namespace)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_other_operator_takes_over_and_goes_on(world: Rig, number: signal.Signals) -> None:
    name = "killed" if number is signal.SIGKILL else "frozen"
    follows = world.service(name, rate=60)
    # With a stabilisation by which the new leader has to see for itself, longer than what is watched.
    await world.server(name, minReplicas=1, stabilizationSeconds=60, headroom={})
    before = await world.until_replicas(name, lambda count: count >= enough(60))
    await world.until_ready(name)
    leader = await world.leader()
    await leader.stop(number)
    try:

        async def another() -> bool:
            return await world.leader() is not leader

        await world.until("another leads", another)
        follows.rate = 10
        least, _ = (await watch_replicas(world, name, ticks=3))[name]
        assert least >= before, "a new leader takes nothing away before it knows what was"
        follows.rate = 120
        await world.until_replicas(name, lambda count: count >= 12)
    finally:
        if number is signal.SIGKILL:
            world.operators.remove(leader)
            await world.operator(f"operator-{name}")
        else:
            leader.process.send_signal(signal.SIGCONT)

    async def one_leads() -> bool:
        return [await world.leads(one) for one in world.operators].count(True) == 1

    await world.until("one leads", one_leads)


async def test_while_the_api_server_is_away_nothing_is_lost(world: Rig, control_plane: ControlPlane) -> None:
    away = world.service("away", rate=30)
    await world.server("away", minReplicas=1)
    before = await world.until_replicas("away", lambda count: count >= 3)
    await world.until_ready("away")
    server = _api_server(control_plane)
    pids = [one.process.pid for one in world.operators]
    server.suspend()
    try:
        away.rate = 120
        await asyncio.sleep(AWAY_S)  # the fault itself
    finally:
        server.resume()
    least, _ = (await watch_replicas(world, "away", ticks=3))["away"]
    assert least >= before
    assert [one.process.pid for one in world.operators if one.process.returncode is None] == pids
    after = await world.until_replicas("away", lambda count: count >= 12)
    assert after > before


def _api_server(control_plane: ControlPlane) -> psutil.Process:
    marks = ("kube-apiserver", str(control_plane.layout.control_plane_ip))
    for one in psutil.process_iter(["cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if all(mark in line for mark in marks) and "kube-apiserver" in (one.info["cmdline"] or [""])[0]:
            return one
    raise AssertionError("there is no API server")
