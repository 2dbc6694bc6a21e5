"""Prometheus as the operator asks it: in threads, each question once, for a second and a half at most at a tick."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from pydantic_core import from_json
from urllib3.util.retry import Retry

from operators.signals import query
from operators.signals.values import Key, Measured, Seen

log = logging.getLogger(__name__)

TIMEOUT_S = 1.4
"""Until something comes; WAIT_S until all has come. (With 2,000 servers and 20,000 pods an answer takes a third of a
second.)"""
WAIT_S = 1.5
MEASURE_TIMEOUT_S = 3.0
"""Until something comes that no tick waits for; what is measured counts for MEASURE_KEPT_S, which are less than a new
replica is left out of it for, beyond the window that it is measured in (`operators.servers.server.SETTLED_S`)."""
MEASURE_KEPT_S = 5.0
GIVEN_UP_S = 15.0
MOST_OPEN = 4
HISTORY_TIMEOUT_S = 20.0
HISTORY_STEP_S = 10

T = TypeVar("T")


class Prometheus:
    """One Prometheus server. Whatever it answers, and if it doesn't, no call raises an exception."""

    def __init__(self, url: str) -> None:
        self._client, self._measures, self._history = (
            PrometheusConnect(
                url=url, retry=Retry(total=0), timeout=timeout_s, method="POST", session=_Posting()
            )
            for timeout_s in (TIMEOUT_S, MEASURE_TIMEOUT_S, HISTORY_TIMEOUT_S)
        )
        self._looks, self._measurements = _Questions(), _Questions()
        self._measured: tuple[float, dict[Key, Measured]] = (-math.inf, {})
        """When it was asked for, and what came, until a look has it."""
        self._measure_at = -math.inf
        self._asked: asyncio.Future[dict[Key, list[float]] | str] | None = None

    def close(self) -> None:
        for one in (self._client, self._measures, self._history):
            one.close()

    async def look(self, windows_s: Sequence[int], pods: Sequence[str], now: float) -> Seen | str:
        """What is known at `now` (seconds since the epoch), or why nothing is.

        What replicas answer and take is asked after it, every CPU_WINDOW_S, and is in the look after its answer.
        """
        measured = self._take_measures()
        asked = self._looks.ask(lambda: self._look(windows_s, pods, now, measured))
        if asked is None:
            return "Prometheus hasn't answered the question before this one yet"
        try:
            async with asyncio.timeout(WAIT_S):
                seen = await asyncio.shield(asked)
        except TimeoutError:
            return f"Prometheus gave no answer in {WAIT_S:g} s"
        if isinstance(seen, Seen):
            self._ask_measures(now)
        return seen

    def _look(
        self, windows_s: Sequence[int], pods: Sequence[str], now: float, measured: dict[Key, Measured] | None
    ) -> Seen | str:
        try:
            answer = self._client.custom_query(query.query(windows_s, pods))
            return query.read(answer, windows_s, now, measured)
        except Exception as error:  # of its client's, or what reading of nonsense may raise
            return _reason(error)

    def _take_measures(self) -> dict[Key, Measured] | None:
        """What has been measured since the last look."""
        (asked_at, found), self._measured = self._measured, (-math.inf, {})
        return found if asyncio.get_running_loop().time() - asked_at <= MEASURE_KEPT_S else None

    def _ask_measures(self, now: float) -> None:
        if 0 <= now - self._measure_at < query.CPU_WINDOW_S:
            return
        asked_at = asyncio.get_running_loop().time()
        asked = self._measurements.ask(self._measure)
        if asked is not None:
            self._measure_at = now
            asked.add_done_callback(lambda done: self._keep_measures(done.result(), asked_at))

    def _measure(self) -> dict[Key, Measured] | str:
        try:
            return query.read_measures(self._measures.custom_query(query.measures()))
        except Exception as error:
            return _reason(error)

    def _keep_measures(self, found: dict[Key, Measured] | str, asked_at: float) -> None:
        if isinstance(found, str):
            log.debug("nothing is measured: %s", found)
            self._measure_at = -math.inf  # again at the next look
        elif asked_at > self._measured[0]:
            self._measured = (asked_at, found)

    async def histories(self, keys: Sequence[Key], length_s: int, now: float) -> dict[Key, list[float]] | str:
        """The arrivals of those placements in the time before `now`: means of HISTORY_STEP_S, oldest first, NaN for
        what isn't known. The caller bounds its patience; while an answer is awaited, nobody asks for another."""
        if self._asked is not None and not self._asked.done():
            return "Prometheus hasn't given the histories before these yet"
        self._asked = _in_thread(lambda: self._histories(keys, length_s, now))
        return await asyncio.shield(self._asked)

    async def ranged(self, text: str, start: float, end: float, step_s: int) -> list[dict[str, Any]] | str:
        """A range query's answer, or why there is none."""

        def ask() -> list[dict[str, Any]] | str:
            try:
                return list(
                    self._history.custom_query_range(
                        text,
                        start_time=datetime.fromtimestamp(start, UTC),
                        end_time=datetime.fromtimestamp(end, UTC),
                        step=str(step_s),
                    )
                )
            except Exception as error:
                return _reason(error)

        return await asyncio.shield(_in_thread(ask))

    def _histories(self, keys: Sequence[Key], length_s: int, now: float) -> dict[Key, list[float]] | str:
        started = time.monotonic()
        end = now // HISTORY_STEP_S * HISTORY_STEP_S
        try:
            found = self._history.custom_query_range(
                query.history([key.service for key in keys], HISTORY_STEP_S),
                start_time=datetime.fromtimestamp(end - length_s, UTC),
                end_time=datetime.fromtimestamp(end, UTC),
                step=str(HISTORY_STEP_S),
            )
            made = query.read_history(
                found, end - length_s, round(length_s / HISTORY_STEP_S) + 1, HISTORY_STEP_S
            )
        except Exception as error:
            return _reason(error)
        log.debug("history of %d services in %.1f s", len(keys), time.monotonic() - started)
        return {key: made[key] for key in keys if key in made}


class _Questions:
    """Asked in threads, one after the other.

    A server that sends a little at a time holds its thread for longer than the timeout. While it does, nobody asks it
    again; after GIVEN_UP_S it may keep that thread, and MOST_OPEN of them.
    """

    def __init__(self) -> None:
        self._open: list[asyncio.Future[Any]] = []
        self._asked_at = 0.0

    def ask(self, work: Callable[[], T]) -> asyncio.Future[T] | None:
        """What `work` gives; None where the question before it has no answer yet."""
        now = asyncio.get_running_loop().time()
        self._open = [one for one in self._open if not one.done()]
        if self._open and (now - self._asked_at < GIVEN_UP_S or len(self._open) >= MOST_OPEN):
            return None
        asked = _in_thread(work)
        self._open.append(asked)
        self._asked_at = now
        return asked


class _Posting(requests.Session):
    """Its client puts the query of a POST into the address, which servers bound (1 MB, as all headers together).

    And it reads an answer of thousands of series in a tenth of a second, in which nothing else of this process runs.
    """

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        request.data, request.params = request.params, {}
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        response = super().send(request, **more)
        response.json = lambda **_: from_json(response.content)  # type: ignore[method-assign]
        return response


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """What `work` gives; in a thread that the end of the process doesn't wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def run() -> None:
        result = work()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="prometheus", daemon=True).start()
    return future


def _reason(error: BaseException) -> str:
    return f"Prometheus: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """What an error of its client's says: it is about one of urllib3's, which says more in less."""
    while isinstance(cause := getattr(error, "reason", None) or next(iter(error.args), None), Exception):
        error = cause
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
