"""Predictions together when they come together, each to whom it belongs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serving.chat.batching import Batcher


class Model:
    """Says a text's length; notes its batches and where it ran."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.at_once = 0

    def __call__(self, texts: list[str]) -> list[int]:
        self.at_once += 1
        assert self.at_once == 1
        self.batches.append(texts)
        self.threads.add(threading.get_ident())
        if "raise" in texts:
            raise ValueError("no")
        self.at_once -= 1
        return [len(text) for text in texts]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_each_gets_its_own(in_thread: bool) -> None:
    model = Model()
    batcher = Batcher(model, in_thread=in_thread, max_size=8)
    texts = ["x" * length for length in range(50)]
    assert await asyncio.gather(*map(batcher, texts)) == list(range(50))
    assert [text for batch in model.batches for text in batch] == texts
    assert max(map(len, model.batches)) == 8
    assert (threading.get_ident() in model.threads) is not in_thread
    batcher.close()


async def test_a_lone_text_waits_for_nobody() -> None:
    model = Model()
    batcher = Batcher(model, in_thread=False)
    assert await batcher("abc") == 3
    assert model.batches == [["abc"]]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_failure_is_its_batch_s_alone(in_thread: bool) -> None:
    model = Model()
    batcher = Batcher(model, in_thread=in_thread)
    found = await asyncio.gather(batcher("raise"), batcher("b"), return_exceptions=True)
    assert all(isinstance(one, ValueError) for one in found)
    model.at_once = 0
    assert await batcher("abc") == 3
    batcher.close()


async def test_who_gave_up_is_left_out() -> None:
    model = Model()
    batcher = Batcher(model, in_thread=False)
    tasks = [asyncio.create_task(batcher(text)) for text in ("a", "bb", "ccc")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await asyncio.gather(tasks[0], tasks[2]) == [1, 3]
    assert model.batches == [["a", "ccc"]]


async def test_too_few_predictions_are_an_error() -> None:
    batcher: Batcher[int] = Batcher(lambda texts: [1], in_thread=False)
    found = await asyncio.gather(batcher("a"), batcher("b"), return_exceptions=True)
    assert all(isinstance(one, RuntimeError) for one in found)
