"""Images that have to be fetched before a container can start: one at a time, each in a thread of its own.

Not in the event loop's threads: these read logs and write records, are few, and are waited for when the agent ends. A
fetch takes minutes where a package server is slow. Whoever waits for one may leave it; it goes on for the next one who
asks, and ends with the agent's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from infra.local.runtime import Image, packages, resolve


class Fetches:
    """The images that this agent is fetching."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[Image]] = {}

    async def image(self, ref: str) -> Image:
        """The image of a reference; waits only for what isn't on this machine yet. Raises UnknownImage."""
        if await asyncio.to_thread(packages.is_here, ref):
            return await asyncio.to_thread(resolve, ref)
        if (task := self._tasks.get(ref)) is None:
            task = self._tasks[ref] = asyncio.create_task(self._fetch(ref))
            task.add_done_callback(lambda done: self._drop(ref, done))
        return await asyncio.shield(task)

    async def _fetch(self, ref: str) -> Image:
        async with self._turn:
            return await _apart(ref)

    def _drop(self, ref: str, done: asyncio.Task[Image]) -> None:
        self._tasks.pop(ref, None)
        if not done.cancelled():
            done.exception()  # said by whoever waited; nobody may have


async def _apart(ref: str) -> Image:
    """`resolve` in a thread that nothing waits for at the end of the process."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Image] = loop.create_future()

    def tell(image: Image | None, error: BaseException | None) -> None:
        if result.done():
            return
        if image is not None:
            result.set_result(image)
        elif error is not None:
            result.set_exception(error)

    def work() -> None:
        image, error = None, None
        try:
            image = resolve(ref)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent has ended
            loop.call_soon_threadsafe(tell, image, error)

    threading.Thread(target=work, name=f"fetch {ref}", daemon=True).start()
    return await result
