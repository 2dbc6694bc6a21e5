"""A turn retried is a turn answered once."""

from __future__ import annotations

import asyncio

import pytest

from serving.chat.idempotency import Turns
from serving.chat.wire import Refusal


class Answering:
    """Answers with how often it was asked, when `go` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        mine = self.asked
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return mine


async def test_a_retry_gets_the_first_answer() -> None:
    turns: Turns[int] = Turns()
    answer = Answering()
    assert await turns.once("s", "k", "d", answer, now_s=0) == (1, False)
    assert await turns.once("s", "k", "d", answer, now_s=1) == (1, True)
    assert await turns.once("s", "other", "d", answer, now_s=1) == (2, False)
    assert await turns.once("other", "k", "d", answer, now_s=1) == (3, False)


async def test_who_comes_meanwhile_waits() -> None:
    turns: Turns[int] = Turns()
    answer = Answering()
    answer.go.clear()
    waiting = [asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0)) for _ in range(5)]
    await asyncio.sleep(0)
    answer.go.set()
    assert sorted(await asyncio.gather(*waiting)) == [(1, False)] + [(1, True)] * 4


async def test_another_request_with_the_key_is_refused() -> None:
    turns: Turns[int] = Turns()
    await turns.once("s", "k", "d", Answering(), now_s=0)
    with pytest.raises(Refusal) as refusal:
        await turns.once("s", "k", "different", Answering(), now_s=1)
    assert refusal.value.status == 422


async def test_a_failed_turn_can_be_tried_again() -> None:
    turns: Turns[int] = Turns()
    answer = Answering()
    answer.error = Refusal(503, "not_ready", "")
    answer.go.clear()
    waiting = [asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0)) for _ in range(2)]
    await asyncio.sleep(0)
    answer.go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, Refusal) for result in results)
    assert answer.asked == 1
    answer.error = None
    assert await turns.once("s", "k", "d", answer, now_s=1) == (2, False)


async def test_a_turn_broken_off_leaves_nobody_waiting() -> None:
    turns: Turns[int] = Turns()
    answer = Answering()
    answer.go.clear()
    first = asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0))
    await asyncio.sleep(0)
    second = asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(Refusal) as refusal:
        await second
    assert refusal.value.retry_after_s is not None
    assert len(turns) == 0


async def test_a_waiter_that_leaves_takes_nothing_with_it() -> None:
    turns: Turns[int] = Turns()
    answer = Answering()
    answer.go.clear()
    first = asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0))
    await asyncio.sleep(0)
    second = asyncio.create_task(turns.once("s", "k", "d", answer, now_s=0))
    await asyncio.sleep(0)
    second.cancel()
    answer.go.set()
    assert await first == (1, False)


async def test_answers_are_forgotten_after_their_time() -> None:
    turns: Turns[int] = Turns(ttl_s=10)
    answer = Answering()
    await turns.once("s", "k", "d", answer, now_s=0)
    assert await turns.once("s", "k", "d", answer, now_s=9) == (1, True)
    assert await turns.once("s", "k", "other", answer, now_s=11) == (2, False)


async def test_the_number_is_bounded_and_the_least_asked_goes_first() -> None:
    turns: Turns[int] = Turns(capacity=3)
    answer = Answering()
    for key in "abc":
        await turns.once("s", key, "d", answer, now_s=0)
    await turns.once("s", "a", "d", answer, now_s=1)
    await turns.once("s", "d", "d", answer, now_s=1)
    assert len(turns) == 3
    assert (await turns.once("s", "a", "d", answer, now_s=2))[1]
    assert not (await turns.once("s", "b", "d", answer, now_s=2))[1]
