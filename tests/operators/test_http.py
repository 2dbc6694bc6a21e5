"""The operator's pages as they are asked for: of a leader and of one that stands by, ticking and hanging."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Never

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from operators import http
from operators.http import STUCK_S, Pages
from operators.lease import Leader, Seen
from operators.loop import Loop
from operators.metrics import Metrics
from operators.scaling.values import Capacity, Decision, Move, Observation
from operators.servers.registry import Registry
from operators.servers.workloads import MANAGER, Workloads
from operators.settings import Settings
from operators.signals import values
from operators.signals.gateways import Gateways
from operators.signals.prometheus import Prometheus
from operators.view import View
from switchboard.events import Events
from switchboard.kube import Credentials, Kube
from tests.operators.servers.build import (
    NOW,
    UNMEASURED,
    asks,
    decided,
    deployment,
    pods,
    seen,
    server,
    traffic,
)
from tests.pods import until

SPACE = "switchboard-serving"
ME, OTHER = "operator-5d8-a", "operator-5d8-b"
HOST = "127.37.0.4"
"""An address of its own: at the usual one anybody's connection may be given the port that was free a moment ago."""
HOW_TO_ASK = f"kubectl get lease switchboard-operator -n {SPACE} -o jsonpath={{.spec.holderIdentity}}"


class Hanging(Prometheus):
    """Keeps a tick waiting until it is told to let go."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.asked, self.lets_go = asyncio.Event(), asyncio.Event()

    async def look(self, windows_s: Sequence[int], pods: Sequence[str], now: float) -> values.Seen:
        self.asked.set()
        await self.lets_go.wait()
        return seen(traffic(0))


@dataclass
class Operator:
    """One replica: all that `operators.app` puts together, but nothing of it runs, and no API server is asked."""

    settings: Settings
    registry: Registry
    view: View
    leader: Leader
    loop: Loop
    metrics: Metrics
    prometheus: Hanging
    session: aiohttp.ClientSession

    def leads(self) -> None:
        """For as long as the test takes."""
        self.leader._renewed = math.inf

    def knows(self, holder: str) -> None:
        self.leader._seen = Seen((holder, "08:00"), self.leader._clock())

    def synced(self) -> None:
        for one in self.view.informers:
            one.synced.set()

    def ticked(self, ago_s: float) -> None:
        self.loop.ticked_at = asyncio.get_running_loop().time() - ago_s

    async def page(self, path: str) -> tuple[int, str, str]:
        """Status, media type and text."""
        url = f"http://{self.settings.pod_ip}:{self.settings.port}{path}"
        async with self.session.get(url) as response:
            return response.status, response.content_type, await response.text()

    async def decisions(self, path: str = "/decisions") -> Any:
        status, kind, text = await self.page(path)
        assert (status, kind) == (200, "application/json")
        return json.loads(text, parse_constant=_no_json)["decisions"]


def _no_json(constant: str) -> Never:
    raise AssertionError(f"{constant} isn't JSON, though Python reads it")


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        settings = Settings(ME, HOST, SPACE, port=probe.getsockname()[1])
    async with (
        Kube(Credentials("https://127.0.0.1:1")) as kube,
        Gateways() as gateways,
        aiohttp.ClientSession() as session,
    ):
        registry, view, leader = Registry(), View(kube, SPACE), Leader(kube, SPACE, ME)
        metrics, prometheus = Metrics(registry), Hanging()
        workloads, events = Workloads(kube, view), Events(kube, MANAGER, ME)
        loop = Loop(registry, view, workloads, leader, prometheus, gateways, events, metrics)
        runner = await Pages(settings, registry, view, leader, loop, metrics).start()
        yield Operator(settings, registry, view, leader, loop, metrics, prometheus, session)
        await runner.cleanup()
        prometheus.close()


@pytest.mark.parametrize(
    ("synced", "leads", "status", "says"),
    [
        pytest.param(False, False, 503, "not all objects are known yet\n", id="it begins"),
        pytest.param(False, True, 503, "not all objects are known yet\n", id="it leads, and begins"),
        pytest.param(True, True, 200, "leads\n", id="it leads"),
        pytest.param(True, False, 200, "stands by\n", id="it stands by: it can take over at once"),
    ],
)
async def test_who_is_ready(operator: Operator, synced: bool, leads: bool, status: int, says: str) -> None:
    if synced:
        operator.synced()
    if leads:
        operator.leads()
    assert await operator.page("/readyz") == (status, "text/plain", says)


@pytest.mark.parametrize(
    ("leads", "ticked_ago_s", "status", "says"),
    [
        pytest.param(True, 0.5, 200, "ok\n", id="it ticks"),
        pytest.param(True, STUCK_S - 1, 200, "ok\n", id="a slow tick"),
        pytest.param(
            True, STUCK_S + 1, 503, f"the last tick was {STUCK_S + 1:.0f} s ago\n", id="a tick is stuck"
        ),
        pytest.param(True, None, 200, "ok\n", id="it has just become the leader"),
        pytest.param(False, None, 200, "ok\n", id="it has never led"),
        pytest.param(False, 3600.0, 200, "ok\n", id="it led an hour ago"),
    ],
)
async def test_who_lives(
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    leads: bool,
    ticked_ago_s: float | None,
    status: int,
    says: str,
) -> None:
    operator.synced()
    monkeypatch.setattr(Pages, "_now", staticmethod(lambda: NOW))  # else asking takes of that time
    operator.loop.ticked_at = None if ticked_ago_s is None else NOW - ticked_ago_s
    if leads:
        operator.leads()
    assert await operator.page("/livez") == (status, "text/plain", says)


async def test_a_first_tick_that_never_ends_is_noticed(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.synced()
    operator.leads()
    ticking = asyncio.create_task(operator.loop.run())
    try:
        await operator.prometheus.asked.wait()
        assert (await operator.page("/livez"))[0] == 200
        monkeypatch.setattr(http, "STUCK_S", 0.1)
        await asyncio.sleep(0.15)
        assert (await operator.page("/livez"))[0] == 503
        operator.prometheus.lets_go.set()
        await until(lambda: operator.metrics.ticks)
        monkeypatch.setattr(http, "STUCK_S", STUCK_S)
        assert (await operator.page("/livez"))[0] == 200
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


async def test_who_leads_again_has_time_for_a_tick(operator: Operator) -> None:
    operator.synced()
    operator.ticked(3600)  # of the term before
    operator.leads()
    ticking = asyncio.create_task(operator.loop.run())
    try:
        await operator.prometheus.asked.wait()
        assert await operator.page("/livez") == (200, "text/plain", "ok\n")
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


@pytest.mark.parametrize("path", ["/decisions", "/decisions?name=chat", "/decisions?name=none", "/ticks"])
@pytest.mark.parametrize(
    ("holder", "says"),
    [
        pytest.param(OTHER, f"{OTHER} leads: kubectl port-forward -n {SPACE} pod/{OTHER} PORT", id="another"),
        pytest.param(None, f"it doesn't know who leads: {HOW_TO_ASK}", id="it hasn't seen the lease"),
        pytest.param("", f"it doesn't know who leads: {HOW_TO_ASK}", id="the lease was given up"),
        pytest.param(ME, f"it doesn't know who leads: {HOW_TO_ASK}", id="it can't renew its own"),
    ],
)
async def test_who_stands_by_says_who_leads(
    operator: Operator, path: str, holder: str | None, says: str
) -> None:
    operator.synced()
    operator.registry.servers["chat"] = one = server()  # of the time when it led
    decided(one, asks(3), deployment(1), pods(1))
    operator.metrics.ticked(seen(asks(3)), 0.1, 0.1)
    if holder is not None:
        operator.knows(holder)
    text = f"{ME} stands by; {says.replace('PORT', str(operator.settings.port))}\n"
    assert await operator.page(path) == (503, "text/plain", text)
    operator.leads()
    assert (await operator.page(path))[0] in (200, 404)


async def test_a_decision_is_shown_with_all_that_it_was_made_of(operator: Operator) -> None:
    operator.leads()
    operator.registry.servers["chat"] = one = server(scaling={"maxReplicas": 7})
    made = decided(one, asks(9), deployment(5), pods(5))
    (shown,) = await operator.decisions()
    decision = made.decision
    assert shown == {
        "name": "chat",
        "target": 7,
        "mode": "active",
        "capacity": dataclasses.asdict(one.capacity()),
        "at": NOW,
        "current": 5,
        "wanted": 7,
        "because": "in-flight",
        "raw": decision.raw,
        "seen": dataclasses.asdict(decision.seen),
        "moves": [dataclasses.asdict(move) for move in decision.moves],
        "sentence": decision.sentence(),
    }
    assert (shown["seen"]["rate"], shown["seen"]["ready"], shown["seen"]["partial"]) == (1.0, 5, False)
    assert [(move["constraint"], move["after"]) for move in shown["moves"]] == [("bounds", 7)]


@pytest.mark.parametrize(
    ("of", "found"),
    [
        pytest.param({}, asks(5), id="nothing to do"),
        pytest.param({}, asks(None), id="nothing is known"),
        pytest.param(UNMEASURED, traffic(10.0, in_service=1.0), id="what a replica takes isn't known"),
        pytest.param(UNMEASURED, asks(None), id="neither"),
        pytest.param({}, traffic(math.nan, in_service=math.inf, queued=-math.inf), id="signals of no sense"),
        pytest.param({"scaling": {"mode": "shadow"}}, asks(9), id="shadow"),
        pytest.param({"scaling": {"mode": "paused"}}, asks(9), id="paused"),
    ],
)
async def test_each_decision_is_json(operator: Operator, of: dict[str, Any], found: values.Traffic) -> None:
    operator.leads()
    operator.registry.servers["chat"] = one = server(**of)
    decided(one, found, deployment(5), pods(5))
    (shown,) = await operator.decisions()
    assert set(shown) == {
        *("name", "target", "mode", "capacity", "sentence"),
        *(each.name for each in dataclasses.fields(Decision)),
    }
    assert set(shown["capacity"]) == {each.name for each in dataclasses.fields(Capacity)}
    assert set(shown["seen"]) == {each.name for each in dataclasses.fields(Observation)}
    assert (shown["target"], shown["mode"]) == (5, of.get("scaling", {}).get("mode", "active"))
    if of is UNMEASURED:
        assert shown["capacity"]["rps"] is None


async def test_no_number_that_is_none_breaks_the_page(operator: Operator) -> None:
    """Wherever one might come from, now or later."""
    operator.leads()
    operator.registry.servers["chat"] = one = server()
    one.decision = Decision(
        at=NOW,
        current=1,
        wanted=1,
        because=None,
        raw={"rate": math.inf},
        seen=Observation(1, 1, math.nan, -math.inf),
        moves=(Move("bounds", math.inf, 1, "why"), Move("pace", 1, math.nan, "why")),
    )
    (shown,) = await operator.decisions()
    assert (shown["raw"], shown["seen"]["rate"], shown["seen"]["in_service"]) == ({"rate": None}, None, None)
    assert [(move["before"], move["after"]) for move in shown["moves"]] == [(None, 1), (1, None)]


async def test_decisions_of_one_and_of_all(operator: Operator) -> None:
    operator.leads()
    for name in ("chat", "voice"):
        operator.registry.servers[name] = server(name)
    assert [each["name"] for each in await operator.decisions()] == ["chat", "voice"]
    (shown,) = await operator.decisions("/decisions?name=voice")
    assert (shown["name"], shown["target"]) == ("voice", None), "before its first decision"
    status, _, text = await operator.page("/decisions?name=text")
    assert (status, json.loads(text)) == (404, {"error": "there is no ModelServer 'text' here"})


async def test_ticks_are_told_with_their_ages(operator: Operator) -> None:
    operator.leads()
    for look_s in (0.1, 0.2):
        operator.metrics.ticked(seen(asks(3)), look_s, 0.01)
    _, _, text = await operator.page("/ticks")
    first, last = json.loads(text, parse_constant=_no_json)["ticks"]
    assert (first["look_s"], last["look_s"], last["decide_s"], last["source"]) == (
        0.1,
        0.2,
        0.01,
        "prometheus",
    )
    assert 0 <= last["age_s"] <= first["age_s"] < 60


async def test_metrics_are_what_prometheus_reads(operator: Operator) -> None:
    status, kind, text = await operator.page("/metrics")
    assert (status, kind) == (200, "text/plain")
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert families["switchboard_operator_leader"].samples[0].value == 0
    assert "process_resident_memory_bytes" in families
