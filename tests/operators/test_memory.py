"""A new leader asks a real Prometheus for the past, and takes nothing away before it knows enough."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from operators.memory import GIVEN_UP_S, NEW_S, Memory
from operators.scaling import history
from operators.servers.registry import Registry
from operators.servers.server import Server
from operators.signals.prometheus import Prometheus
from switchboard.kube import Object
from tests.operators.prometheus import prometheus

NOW = time.time() // 10 * 10
LENGTH_S = 3600
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An hour of `chat` at 40 requests/s, through two gateways."""
    lines = ["# TYPE envoy_http_local_rate_limit_enabled counter"]
    for pod in ("gateway-a", "gateway-b"):
        labels = f'envoy_local_http_ratelimit_prefix="chat",pod="{pod}",tier="core",region="cn-shenzhen"'
        for second in range(0, LENGTH_S + 1, 2):
            at = NOW - LENGTH_S + second
            lines.append(f"envoy_http_local_rate_limit_enabled{{{labels}}} {20.0 * second} {at}")
    with prometheus(tmp_path_factory.mktemp("memory"), "\n".join([*lines, "# EOF", ""])) as found:
        yield found


def server(name: str = "chat", *, age_s: float = 7200, **scaling: Any) -> Server:
    created = datetime.fromtimestamp(NOW - age_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    meta = {"name": name, "namespace": "serving", "uid": f"u-{name}", "creationTimestamp": created}
    spec: Object = {
        "model": {"name": "chat-intent", "alias": "champion"},
        "image": "x",
        "dataClass": "internal",
        "capacity": {"requestsPerSecond": 10},
        "scaling": {"maxReplicas": 10, **scaling},
    }
    registry = Registry()
    registry.put({"metadata": meta, "spec": spec})
    return registry.servers[name]


def level_s(one: Server) -> float:
    assert one.spec is not None
    return float(one.spec.scaling.headroom.level_seconds)


async def until_known(memory: Memory, one: Server, now: float) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while one.view_from is None or math.isinf(one.view_from):
        assert time.monotonic() < deadline, "its history is still asked for"
        memory.poll(now)
        await asyncio.sleep(0.05)


async def test_it_is_remembered_what_was_asked_for(url: str) -> None:
    client = Prometheus(url)
    try:
        memory, one = Memory(client), server()
        memory.want(one, NOW)
        assert one.view_from == math.inf, "nothing goes down meanwhile"
        await until_known(memory, one, NOW)
        assert one.view_from == NOW
        assert one.state is not None
        rates = np.asarray(one.state.history.rates)
        known = rates[~np.isnan(rates)]
        assert len(known) >= LENGTH_S / history.BUCKET_S - 3
        assert np.allclose(known[2:-2], 40, rtol=0.02)
        assert one.state.headroom > 0, "what it asks for is known from the first tick on"
    finally:
        client.close()


async def test_of_a_service_that_several_answer_each_remembers_its_share(url: str) -> None:
    client = Prometheus(url)
    try:
        memory, one = Memory(client), server()
        one.share = 0.25
        memory.want(one, NOW)
        await until_known(memory, one, NOW)
        assert one.state is not None
        rates = np.asarray(one.state.history.rates)
        assert np.allclose(rates[~np.isnan(rates)][2:-2], 10, rtol=0.02)
    finally:
        client.close()


async def asked(memory: Memory, now: float) -> None:
    """Once; until the answer is there."""
    memory.poll(now)
    assert memory._asking is not None
    await memory._asking


@pytest.mark.parametrize("back_s", [0.0, -3600.0], ids=["", "the clock was set back"])
async def test_where_prometheus_knows_nothing_it_sees_for_itself_first(url: str, back_s: float) -> None:
    """Nobody asked it anything, or Prometheus has lost what it had: it can't be told."""
    client = Prometheus(url)
    try:
        memory, one = Memory(client), server("quiet")
        memory.want(one, NOW)
        await asked(memory, NOW)
        if not back_s:
            memory.poll(NOW + level_s(one) - 1)
            assert one.view_from == math.inf, "nothing goes down meanwhile"
        until = NOW + (back_s or level_s(one))
        memory.poll(until)
        assert one.view_from == until
    finally:
        client.close()


async def test_without_a_headroom_there_is_nothing_to_be_lost(url: str) -> None:
    client = Prometheus(url)
    try:
        memory, one = Memory(client), server("quiet", headroom={"price": 0})
        memory.want(one, NOW)
        await asked(memory, NOW)
        assert one.view_from == NOW
    finally:
        client.close()


async def test_who_leads_anew_is_not_told_by_what_it_watched_before(url: str) -> None:
    client = Prometheus(url)
    try:
        memory, one = Memory(client), server("quiet")
        memory.want(one, NOW)
        await asked(memory, NOW)
        one.forget()
        memory.want(one, NOW + 500)
        memory.poll(NOW + level_s(one))
        assert one.view_from == math.inf
    finally:
        client.close()


async def test_a_new_one_is_not_asked_for(url: str) -> None:
    client = Prometheus(url)
    try:
        one = server(age_s=NEW_S / 2)
        Memory(client).want(one, NOW)
        assert one.view_from == NOW
    finally:
        client.close()


async def test_without_an_answer_it_goes_on_in_the_end() -> None:
    client = Prometheus("http://127.37.0.2:9")
    try:
        memory, one = Memory(client), server()
        memory.want(one, NOW)
        for _ in range(3):
            memory.poll(NOW)
            await asyncio.sleep(0.05)
        assert one.view_from == math.inf
        given_up = NOW + GIVEN_UP_S + 1
        for _ in range(3):
            await asked(memory, given_up)
        assert one.view_from == math.inf, "it sees for itself now"
        memory.poll(given_up + level_s(one))
        assert one.view_from == given_up + level_s(one)
    finally:
        client.close()
