"""How long a request stays with the activator at most, whatever becomes of its tries; in place of Envoy a few lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from serving.gateway.activator import RETRY_AFTER_S, Activator
from serving.gateway.settings import Settings
from tests.pods import until

HOLD_S = 1.0
SLACK_S = 0.5
"""Of a machine that has nothing else to do; what it was busy with comes on top (`Lag`)."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 1\r\n\r\nfull"

Try = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def breaks(_: asyncio.StreamWriter) -> None:
    """The connection ends without an answer."""


async def breaks_late(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.7 * HOLD_S)


async def is_full(connection: asyncio.StreamWriter) -> None:
    connection.write(FULL)


async def answers(connection: asyncio.StreamWriter) -> None:
    connection.write(OK)


async def answers_late(connection: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1.5 * HOLD_S)
    connection.write(OK)


@dataclass
class Tries:
    """What becomes of one try after the other; of all further ones what became of the last."""

    what: tuple[Try, ...]
    began: list[float] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.began.append(time.monotonic())
        await self.what[min(len(self.began), len(self.what)) - 1](writer)
        writer.close()


@dataclass
class Lag:
    """For how long in all this process didn't get to run what was due."""

    total_s: float = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.total_s += max(0.0, time.monotonic() - due)


@dataclass(frozen=True)
class Held:
    """An activator with an endpoint for `chat`, a customer, and what becomes of the tries."""

    activator: Activator
    tries: Tries
    customer: aiohttp.ClientSession
    lag: Lag

    async def ask(self) -> tuple[int, str | None, float]:
        """Status, `Retry-After` and how long it took."""
        started = time.monotonic()
        async with (
            asyncio.timeout(120),
            self.customer.post("http://activator/v1/chat", json={}) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers.get("Retry-After"), time.monotonic() - started


@asynccontextmanager
async def held(directory: Path, *what: Try, hold_s: float = HOLD_S) -> AsyncIterator[Held]:
    """Without a try's outcome, nobody listens at Envoy's socket."""
    settings = Settings("127.0.0.1", "gateway-1", "core", "core", "", directory, hold_s=hold_s)
    tries = Tries(what)
    listener = await asyncio.start_unix_server(tries, settings.released_socket) if what else None
    connector = aiohttp.UnixConnector(str(settings.activator_socket))
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    try:
        async with Activator(settings) as activator, aiohttp.ClientSession(connector=connector) as customer:
            activator.open({"chat": 1})
            yield Held(activator, tries, customer, lag)
    finally:
        watching.cancel()
        if listener is not None:
            listener.close()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name: a socket's may have 107 characters."""
    return tmp_path_factory.mktemp("hold")


@pytest.mark.parametrize(
    ("what", "longest_s"),
    [
        pytest.param((), HOLD_S, id="Envoy doesn't listen"),
        pytest.param((breaks,), HOLD_S, id="each try breaks"),
        pytest.param((breaks_late,), 1.7 * HOLD_S, id="a try breaks when the time is over"),
        pytest.param((is_full, breaks), HOLD_S, id="the replica was full, then each try breaks"),
    ],
)
async def test_the_time_ends_what_breaks(directory: Path, what: tuple[Try, ...], longest_s: float) -> None:
    async with held(directory, *what) as one:
        started = time.monotonic()
        status, retry_after, took_s = await one.ask()
        assert (status, retry_after) == (503, str(RETRY_AFTER_S))
        slack_s = SLACK_S + one.lag.total_s
        assert 0.3 * HOLD_S < took_s < longest_s + slack_s, "it is tried for as long as there is time"
        last_s = HOLD_S + 0.1 + one.lag.total_s
        assert all(began - started < last_s for began in one.tries.began), "no try begins after it"
        one.tries.what = (answers,)
        if what:
            assert (await one.ask())[0] == 200, "its place is the next one's"


async def test_a_full_replica_has_the_last_word(directory: Path) -> None:
    async with held(directory, is_full) as one:
        status, retry_after, took_s = await one.ask()
        assert (status, retry_after) == (503, "1")
        assert 0.3 * HOLD_S < took_s < HOLD_S + SLACK_S + one.lag.total_s


@pytest.mark.parametrize(
    ("what", "hold_s"),
    [
        pytest.param((breaks, breaks, answers), 60, id="two tries broke"),
        pytest.param((answers_late,), HOLD_S, id="a try that began in time is waited for"),
    ],
)
async def test_an_answer_is_an_answer(directory: Path, what: tuple[Try, ...], hold_s: float) -> None:
    async with held(directory, *what, hold_s=hold_s) as one:
        assert (await one.ask())[0] == 200
        assert len(one.tries.began) == len(what)


async def test_the_end_of_the_gateway_bounds_it_too(directory: Path) -> None:
    async with held(directory, breaks, hold_s=120) as one:
        asked = asyncio.create_task(one.ask())
        await until(lambda: len(one.tries.began) > 2)
        one.activator.wait_until(asyncio.get_running_loop().time())
        ended = time.monotonic()
        status, _, _ = await asked
        assert status == 503
        assert time.monotonic() - ended < HOLD_S + SLACK_S + one.lag.total_s
