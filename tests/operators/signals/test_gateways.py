"""The traffic as gateways count it themselves: rates as tables, and gateways that are slow, gone or talk nonsense."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from operators.settings import TICK_S
from operators.signals import gateways
from operators.signals.gateways import STALE_S, Gateways, Sample, join, rates
from operators.signals.values import Key, Place, Seen
from operators.view import Gateway
from switchboard import gateway_stats
from switchboard.gateway_stats import Counters
from tests.conftest import free_subnets

CHAT, VOICE = Key("chat"), Key("voice")
BEIJING = Place("edge", "cn-beijing")
CHAT_THERE = Key("chat", *BEIJING)


def sample(at: float, queued: float = 0.0, **arrivals: float) -> Sample:
    return Sample(
        at, {Key(name): Counters(arrivals=count, queued=queued) for name, count in arrivals.items()}
    )


RATES = [
    pytest.param([sample(0, chat=10)], {}, id="one look shows nothing"),
    pytest.param([sample(0, chat=10), sample(2, chat=30)], {CHAT: 10}, id="two do"),
    pytest.param(
        [sample(0, chat=0), sample(2, chat=80), sample(4, chat=90), sample(6, chat=100)],
        {CHAT: 50 / 3},
        id="the mean",
    ),
    pytest.param(
        [sample(-4, chat=0), sample(0, chat=1000), sample(6, chat=1060)],
        {CHAT: 10},
        id="of the window and no more",
    ),
    pytest.param(
        [sample(0, chat=0), sample(7, chat=70)], {}, id="a look is missing: there are no two in the window"
    ),
    pytest.param([sample(0, chat=5), sample(2, chat=5)], {CHAT: 0}, id="none arrived"),
    pytest.param(
        [sample(0, chat=1000), sample(2, chat=1020), sample(4, chat=8)],
        {CHAT: 7},
        id="it has begun anew: 20 and 8",
    ),
    pytest.param(
        [sample(0, chat=1000), sample(2, chat=0), sample(4, chat=0)],
        {CHAT: 0},
        id="it has begun anew, and nothing came",
    ),
    pytest.param([sample(0), sample(2, chat=20)], {CHAT: 10}, id="a service that is new here"),
    pytest.param(
        [sample(0, chat=900), sample(2), sample(4, chat=940)],
        {CHAT: 10},
        id="a service that was away for a look",
    ),
    pytest.param([sample(0, chat=10), sample(2)], {}, id="a service that has gone"),
    pytest.param([sample(2, chat=10), sample(2, chat=30)], {}, id="no time has passed"),
    pytest.param([sample(9, chat=10), sample(2, chat=30)], {}, id="the clock was set back"),
    pytest.param(
        [sample(0, chat=0, voice=4), sample(2, chat=2, voice=10)],
        {CHAT: 1, VOICE: 3},
        id="each service its own",
    ),
]


@pytest.mark.parametrize(("samples", "expected"), RATES)
def test_rates(samples: Sequence[Sample], expected: Mapping[Key, float]) -> None:
    assert rates(samples, 6) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 500), st.booleans()), min_size=2, max_size=20))
def test_rates_are_never_below_zero_nor_above_what_came(looks: list[tuple[float, int, bool]]) -> None:
    """Each look: how much later it is, what has come since, and whether the gateway started anew just before it."""
    at, total, came, samples = 0.0, 1000.0, 0.0, []
    for later, more, anew in looks:
        at, total = at + later, (0.0 if anew else total) + more
        came += more if samples else 0
        samples.append(sample(at, chat=total))
    found = rates(samples, 1e9)[CHAT]
    assert 0 <= found <= came / (samples[-1].at - samples[0].at) + 1e-6


PLACES = {"a": Place(), "b": Place(), "edge": BEIJING}


def at_edge(at: float, core: float, own: float, queued: float = 0.0) -> Sample:
    return Sample(at, {CHAT: Counters(core, queued=queued), CHAT_THERE: Counters(own, queued=1.0)})


LOOKS: dict[str, list[Sample]] = {
    "a": [sample(94, chat=0), sample(100, chat=60, queued=2)],
    "b": [sample(94, chat=0), sample(98, chat=80), sample(100, chat=120, queued=1)],
    "edge": [at_edge(94, 0, 0), at_edge(100, 30, 18, queued=3)],
}


def test_all_gateways_together() -> None:
    seen = join(LOOKS, PLACES, [6, 20], 100, "gone")
    assert (seen.source, seen.problem, seen.age_s) == ("gateways", "gone", 0.0)
    assert seen.gateways == {Place(): 2, BEIJING: 1}
    assert set(seen.traffic) == {(key, window) for key in (CHAT, CHAT_THERE) for window in (6, 20)}
    core, edge = seen.traffic[CHAT, 6], seen.traffic[CHAT_THERE, 6]
    assert (core.rate, core.latest_rate, core.queued) == (10 + 20 + 5, 10 + 20 + 5, 6)
    assert (edge.rate, edge.queued) == (3, 1)
    assert (core.in_service, core.cpu, core.answered, core.measured) == (0, None, None, 0)


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        pytest.param({}, {}, id="none has been asked"),
        pytest.param({name: looks[-1:] for name, looks in LOOKS.items()}, {}, id="the first look"),
        pytest.param({name: looks[:-1] for name, looks in LOOKS.items()}, {}, id="none answers now"),
        pytest.param({**LOOKS, "b": LOOKS["b"][:-1]}, {Place(): 1, BEIJING: 1}, id="one doesn't answer now"),
        pytest.param({**LOOKS, "b": LOOKS["b"][-1:]}, {Place(): 1, BEIJING: 1}, id="one is new"),
        pytest.param({**LOOKS, "other": LOOKS["a"]}, {Place(): 2, BEIJING: 1}, id="one has gone"),
    ],
)
def test_gateways_that_are_in_the_view(
    samples: Mapping[str, Sequence[Sample]], found: Mapping[Place, int]
) -> None:
    seen = join(samples, PLACES, [6], 100, None)
    assert seen.gateways == found
    assert seen.source == ("gateways" if found else "nobody")
    assert seen.whole(CHAT, {Place(): 2, BEIJING: 1}) is (found == {Place(): 2, BEIJING: 1})
    if not found:
        assert (dict(seen.traffic), seen.age_s) == ({}, None)


RECORDED = Path(gateway_stats.__file__).parents[1] / "tests/switchboard/recorded/gateway-core.txt"


def text(arrivals: int) -> str:
    """A gateway's own words, with so many requests."""
    found = RECORDED.read_text()
    assert 'envoy_local_http_ratelimit_prefix="chat"} 87\n' in found
    return found.replace(
        'envoy_local_http_ratelimit_prefix="chat"} 87\n',
        f'envoy_local_http_ratelimit_prefix="chat"}} {arrivals}\n',
    )


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fake:
    """A gateway's port for statistics; `reply` is how it answers."""

    reply: Reply
    gateway: Gateway
    asked: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked = request.raw_path
        return await self.reply(request)


def says(body: str | bytes, status: int = 200) -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return reply


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for sign in text(1):
        await response.write(sign.encode())
        await asyncio.sleep(0.05)
    return response


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"# " + b"x" * 2**16 + b"\n")


async def breaks(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


PORT = 9902
LONG_S = 60.0


@functools.cache
def hosts() -> Iterator[str]:
    """Addresses that no other process has: pods' ports are all the same."""
    return (f"{subnet}.{number}" for subnet in free_subnets("127.36") for number in range(1, 250))


@asynccontextmanager
async def serving(*replies: Reply) -> AsyncIterator[list[Fake]]:
    """Gateways at addresses of their own, all at the same port, as pods are."""
    async with AsyncExitStack() as stack:
        made = []
        for number, reply in enumerate(replies):
            address = next(hosts())
            fake = Fake(reply, Gateway(f"gateway-{number}", address, Place(), 0.0))
            app = web.Application()
            app.router.add_get("/stats/prometheus", fake.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, address, PORT).start()
            made.append(fake)
        yield made


@pytest.fixture
async def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    """One that waits for every answer, unless the test is of one that never comes."""
    monkeypatch.setattr(gateways, "TIMEOUT_S", getattr(request, "param", LONG_S))
    async with Gateways(port=PORT) as found:
        yield found


async def look(client: Gateways, fakes: Sequence[Fake], now: float) -> Seen:
    async with asyncio.timeout(2 * LONG_S):
        return await client.look([fake.gateway for fake in fakes], [6], now, "Prometheus is away")


def test_an_answer_is_waited_for_within_a_tick() -> None:
    assert gateways.TIMEOUT_S < TICK_S


async def test_two_looks(client: Gateways) -> None:
    async with serving(says(text(100)), says(text(1000))) as fakes:
        first = await look(client, fakes, 0.0)
        assert (first.source, dict(first.traffic), first.problem) == ("nobody", {}, "Prometheus is away")
        fakes[0].reply, fakes[1].reply = says(text(120)), says(text(1006))
        second = await look(client, fakes, 2.0)
        assert second.source == "gateways"
        assert second.gateways == {Place(): 2}
        assert second.traffic[CHAT, 6].rate == pytest.approx(13)
        assert fakes[0].asked == gateway_stats.PATH  # as it is, not encoded once more


BRIEF_S = 2.0
"""For one that never answers; those beside it take a few hundredths."""


@pytest.mark.parametrize(
    ("client", "reply"),
    [
        pytest.param(BRIEF_S, hangs, id="slow"),
        pytest.param(BRIEF_S, drips, id="a little at a time"),
        pytest.param(LONG_S, floods, id="without end"),
        pytest.param(LONG_S, says(text(1) + "# x\n" * (gateways.MOST_BYTES // 4)), id="too much"),
        pytest.param(LONG_S, says("no", status=500), id="an error"),
        pytest.param(LONG_S, says(text(120), status=404), id="an error with numbers"),
        pytest.param(LONG_S, breaks, id="breaks off"),
        pytest.param(LONG_S, says(b"\xff\xfe\x00" * 100), id="noise"),
        pytest.param(LONG_S, says(text(120)[:-1]), id="cut off in a line"),
        pytest.param(
            LONG_S,
            says(
                "# TYPE envoy_http_local_rate_limit_enabled counter\n"
                'envoy_http_local_rate_limit_enabled{x="chat"} 5\n'
            ),
            id="cut off",
        ),
    ],
    indirect=["client"],
)
async def test_one_that_does_not_answer_is_missing(client: Gateways, reply: Reply) -> None:
    async with serving(says(text(100)), says(text(1000))) as fakes:
        await look(client, fakes, 0.0)
        fakes[0].reply, fakes[1].reply = says(text(120)), reply
        seen = await look(client, fakes, 2.0)
        assert seen.gateways == {Place(): 1}
        assert seen.traffic[CHAT, 6].rate == pytest.approx(10)
        assert not seen.whole(CHAT, {Place(): 2})

        fakes[0].reply, fakes[1].reply = says(text(140)), says(text(1040))  # it is back
        seen = await look(client, fakes, 4.0)
        assert seen.gateways == {Place(): 2}
        assert seen.traffic[CHAT, 6].rate == pytest.approx(20)


async def test_one_that_says_nothing_has_no_services(client: Gateways) -> None:
    async with serving(says("")) as fakes:
        await look(client, fakes, 0.0)
        seen = await look(client, fakes, 2.0)
        assert (dict(seen.traffic), seen.gateways) == ({}, {Place(): 1})


async def test_an_old_look_is_forgotten(client: Gateways) -> None:
    async with serving(says(text(100))) as fakes:
        await look(client, fakes, 0.0)
        fakes[0].reply = says(text(100_000))
        assert (await look(client, fakes, STALE_S + 1)).source == "nobody"
        assert (await look(client, fakes, STALE_S + 3)).traffic[CHAT, 6].rate == 0


async def test_no_more_looks_are_kept_than_the_longest_window_needs(client: Gateways) -> None:
    """2,000 services are a megabyte a look, of each gateway."""
    async with serving(says(text(100))) as fakes:
        for tick in range(40):
            fakes[0].reply = says(text(100 + 10 * tick))
            seen = await look(client, fakes, 2.0 * tick)
            assert len(client._samples["gateway-0"]) <= 8
        assert seen.traffic[CHAT, 6].rate == pytest.approx(5)


async def test_a_clock_that_is_set_back_costs_one_look(client: Gateways) -> None:
    async with serving(says(text(100))) as fakes:
        for now in (5000.0, 5002.0):
            await look(client, fakes, now)
        assert (await look(client, fakes, 1400.0)).source == "nobody"
        fakes[0].reply = says(text(120))
        assert (await look(client, fakes, 1402.0)).traffic[CHAT, 6].rate == pytest.approx(10)


async def test_who_has_gone_is_forgotten(client: Gateways) -> None:
    async with serving(says(text(100)), says(text(100))) as fakes:
        await look(client, fakes, 0.0)
        await look(client, fakes[:1], 2.0)
        seen = await look(client, fakes, 4.0)
        assert seen.gateways == {Place(): 1}


async def test_nobody_is_there(client: Gateways) -> None:
    seen = await client.look([], [6], 0.0, "Prometheus is away")
    assert (seen.source, seen.problem) == ("nobody", "Prometheus is away")
    lost = Gateway("gateway-0", next(hosts()), Place(), 0.0)
    assert (await client.look([lost], [6], 0.0, None)).source == "nobody"


def test_an_edge_counts_for_its_region() -> None:
    counted = gateway_stats.parse((RECORDED.parent / "gateway-edge.txt").read_text())
    keys = {gateways._key(service, tier, BEIJING) for service, tier in counted}
    assert keys == {CHAT, CHAT_THERE}
