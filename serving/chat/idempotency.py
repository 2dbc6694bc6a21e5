"""A turn retried is a turn answered once: the answers of turns that carried an `Idempotency-Key`.

Bounded in number and in time, and in the memory of one replica: gateways send a session to the same replica, and a
retry that lands on another one gets the same answer by computing it again, since a model version answers a text always
alike.
Must be used from one event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.chat.wire import Refusal

T = TypeVar("T")


@dataclass
class _Turn(Generic[T]):
    digest: str
    expires_s: float
    answer: asyncio.Future[T]


class Turns(Generic[T]):
    """Answers by (session, key). The least recently asked are forgotten first, and all after `ttl_s`."""

    def __init__(self, *, capacity: int = 10_000, ttl_s: float = 600.0) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._turns: OrderedDict[tuple[str, str], _Turn[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    async def once(
        self,
        session: str,
        key: str,
        digest: str,
        answer: Callable[[], Awaitable[T]],
        *,
        now_s: float,
    ) -> tuple[T, bool]:
        """The turn's answer, and whether it was there already; who comes while it is made waits for it.

        Raises:
            Refusal: 422 where the key was used for another request (`digest` differs), and what `answer` raised. A turn
                that failed is forgotten, so that it can be tried again.
        """
        known = self._turns.get((session, key))
        if known is not None and (known.expires_s > now_s or not known.answer.done()):
            self._turns.move_to_end((session, key))
            if known.digest != digest:
                raise Refusal(
                    422, "idempotency_key_reused", "this Idempotency-Key was used for another request"
                )
            return await asyncio.shield(known.answer), True
        turn: _Turn[T] = _Turn(digest, now_s + self._ttl_s, asyncio.get_running_loop().create_future())
        self._turns[session, key] = turn
        self._turns.move_to_end((session, key))
        self._shrink(now_s)
        try:
            result = await answer()
        except BaseException as error:
            if self._turns.get((session, key)) is turn:
                del self._turns[session, key]
            turn.answer.set_exception(_lost() if isinstance(error, asyncio.CancelledError) else error)
            turn.answer.exception()  # Marks it as seen: nobody may have waited.
            raise
        turn.answer.set_result(result)
        return result, False

    def _shrink(self, now_s: float) -> None:
        while self._turns:
            oldest = next(iter(self._turns.values()))
            if len(self._turns) <= self._capacity and oldest.expires_s > now_s:
                return
            if not oldest.answer.done():  # Only if capacity is below the number of turns under way.
                return
            self._turns.popitem(last=False)


def _lost() -> Refusal:
    return Refusal(
        503, "turn_lost", "the first request of this turn was broken off; try again", retry_after_s=1
    )
