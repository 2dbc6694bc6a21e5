"""Asking replicas what they answered, each at an address of its own, with the replicas' own memory of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from aiohttp import web

from operators.canary.values import Count
from operators.releases import mirrored
from operators.releases.answers import NOTHING, Joined
from operators.releases.mirrored import Mirrored
from serving.chat import wire
from serving.chat.recent import MOST, Answered, Recent
from switchboard import workload

NETWORK = "127.38.3"


class Replica:
    """One that answers; `restart` makes it another process."""

    def __init__(self, address: str) -> None:
        self.address, self.recent, self.status = address, Recent(1.0), 200

    def says(self, request: str, digest: str, *, shadow: bool = False) -> None:
        self.recent.add(Answered(1.0, request, digest, "hours", False, shadow, "en"))

    def restart(self) -> None:
        self.recent = Recent(2.0)

    async def answer(self, request: web.Request) -> web.Response:
        after, limit = (
            wire.number(request.query.getall(name), name, 0, low=0, high=high)
            for name, high in (("after", 2**62), ("limit", MOST))
        )
        return web.json_response(self.recent.after(after, limit), status=self.status)


@asynccontextmanager
async def listening(number: int) -> AsyncIterator[Replica]:
    made = Replica(f"{NETWORK}.{number}")
    app = web.Application()
    app.router.add_get("/answers", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, made.address, workload.PORT).start()
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these is late, however busy the machine is."""
    monkeypatch.setattr(mirrored, "TIMEOUT_S", 60.0)


World = tuple[Replica, Replica, Replica]


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """Of the champion, the candidate and the baseline."""
    async with AsyncExitStack() as stack:
        champion, candidate, baseline = [await stack.enter_async_context(listening(n)) for n in (2, 3, 4)]
        yield champion, candidate, baseline


def joined(**pods: Count) -> Joined:
    """All of them of one intent and one language."""
    return Joined(pods, {"hours": pods, "en": pods})


def fleets(world: World) -> dict[str, dict[str, str]]:
    champion, candidate, baseline = world
    return {
        "chat": {"old": champion.address},
        "chat_candidate": {"new": candidate.address},
        "chat_baseline": {"base": baseline.address},
    }


def ask(world: World, request: str, mine: str, theirs: str = "x", young: str = "x") -> None:
    """A customer's request, answered by the champion, with copies to both arms."""
    champion, candidate, baseline = world
    champion.says(request, theirs)
    candidate.says(request, mine, shadow=True)
    baseline.says(request, young, shadow=True)


async def test_answers_are_joined_from_when_it_is_first_asked(world: World) -> None:
    asking = Mirrored("chat")
    ask(world, "before", "y")
    assert await asking.look(fleets(world)) == (NOTHING, NOTHING)
    ask(world, "a", "x")
    ask(world, "b", "y")
    world[1].says("c", "y")  # a customer's own, of whom the champion knows nothing
    assert await asking.look(fleets(world)) == (joined(new=Count(1, 2)), joined(base=Count(0, 2)))
    assert await asking.look(fleets(world)) == (NOTHING, NOTHING), "each is counted once"


async def test_a_replica_that_begins_anew(world: World) -> None:
    asking = Mirrored("chat")
    await asking.look(fleets(world))
    ask(world, "a", "y")
    world[1].restart()
    ask(world, "b", "y")
    found = [(await asking.look(fleets(world)))[0] for _ in range(2)]
    assert found == [NOTHING, joined(new=Count(1, 1))], "what the process before knew is lost with it"


async def test_a_replica_that_doesnt_answer_is_asked_again(world: World) -> None:
    asking = Mirrored("chat")
    await asking.look(fleets(world))
    ask(world, "a", "y")
    world[1].status = 500
    there = fleets(world)
    there["chat_baseline"]["gone"] = f"{NETWORK}.9"
    assert await asking.look(there) == (NOTHING, joined(base=Count(0, 1)))
    world[1].status = 200
    assert await asking.look(there) == (joined(new=Count(1, 1)), NOTHING)
