"""Predictions together when they come together.

Texts that arrive while the model is busy, or in the same turn of the event loop, go into its next call as one batch. A
lone request waits for nobody, and under load a batch costs little more than one text: latency is that of one call when
it is quiet, throughput that of batches when it isn't. (BentoML's own batching waits to fill its batches: 250 ms at the
99th percentile where this costs a few.)

A fast model is called in the event loop, a slow one in a thread of its own, so that probes are answered meanwhile: the
way to a thread and back costs two wake-ups, which on a busy machine is much more than a prediction of a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Batcher(Generic[Result]):
    """Calls `predict` with up to `max_size` texts at a time, never twice at once; used from one event loop."""

    def __init__(
        self, predict: Callable[[list[str]], list[Result]], *, in_thread: bool, max_size: int = 64
    ) -> None:
        self._predict = predict
        self._max_size = max_size
        self._waiting: list[tuple[str, asyncio.Future[Result]]] = []
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict") if in_thread else None

    async def __call__(self, text: str) -> Result:
        """The prediction for `text`; raises what the model raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
            # Who gave up waiting (a closed connection) is not worth a prediction.
            batch = [(text, future) for text, future in batch if not future.done()]
            if not batch:
                continue
            try:
                results = await self._call([text for text, _ in batch])
                if len(results) != len(batch):
                    raise RuntimeError(f"{len(results)} predictions for {len(batch)} texts")
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)

    async def _call(self, texts: list[str]) -> list[Result]:
        if self._thread is not None:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, texts)
        results = self._predict(texts)
        await asyncio.sleep(0)  # The loop's turn, before the next batch.
        return results

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
