"""One replica's life: it waits for its model, serves, drains.

The model is loaded in a thread of its own while the server already answers probes, tried again with back-off until the
registry (or the copy on disk) gives one. A replica loads once: a promotion replaces replicas.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from models.loading import LoadedModel, Prediction
from serving.chat.batching import Batcher
from serving.chat.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 5.0

INLINE_S = 0.01
"""A model that needs no more than this for a text is called in the event loop."""

WARM_UP = ["I lost my card", "我的银行卡丢了"]


@dataclass(frozen=True)
class Serving:
    """The model in use and the way to ask it."""

    model: LoadedModel
    predict: Batcher[Prediction]


def retry_delay_s(failures: int, jitter: float) -> float:
    """How long to wait after the `failures`-th failed try (from 1); `jitter` in 0..1 spreads replicas apart."""
    longest = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
    return longest * (0.5 + jitter / 2)


class Replica:
    """Used from one event loop; only the loading runs elsewhere."""

    def __init__(self, load: Callable[[], LoadedModel], metrics: Metrics, *, max_concurrency: int) -> None:
        self._load = load
        self.metrics = metrics
        self.max_concurrency = max_concurrency
        self.in_flight = 0
        self.draining = False
        self.serving: Serving | None = None
        self.loading_problem = "the model is being loaded"
        self._closed = threading.Event()
        metrics.max_concurrency.set(max_concurrency)
        metrics.ready.set(0)

    def start(self) -> None:
        """Begin to load the model; returns at once."""
        loop = asyncio.get_running_loop()
        # A daemon thread, so that a replica that is told to stop while it waits for the registry stops at once.
        threading.Thread(target=self._load_until_done, args=(loop,), name="load", daemon=True).start()

    @property
    def full(self) -> bool:
        return self.in_flight >= self.max_concurrency

    def not_ready_because(self) -> str | None:
        """Why the replica takes no requests, None when it does."""
        if self.draining:
            return "draining"
        return None if self.serving is not None else self.loading_problem

    def drain(self) -> None:
        """Not ready from now on; requests that come all the same are answered."""
        self.draining = True
        self.metrics.ready.set(0)

    def close(self) -> None:
        self._closed.set()
        if self.serving is not None:
            self.serving.predict.close()

    def _load_until_done(self, loop: asyncio.AbstractEventLoop) -> None:
        failures = 0
        while not self._closed.is_set():
            started = time.monotonic()
            try:
                model = self._load()
                cost_s = _cost_s(model)
            except Exception as error:
                failures += 1
                self.metrics.model_load_failures.inc()
                problem = f"no model yet: {str(error) or type(error).__name__}"
                if problem != self.loading_problem:  # One line for each reason, not for each try.
                    log.warning("%s", problem)
                self.loading_problem = problem
                self._closed.wait(retry_delay_s(failures, random.random()))  # noqa: S311
                continue
            self.metrics.model_load_seconds.set(time.monotonic() - started)
            # What was built up so far lives as long as the process: the collector needn't walk it again and again.
            gc.collect()
            gc.freeze()
            # The loop is closed where the replica was told to stop meanwhile.
            if not self._closed.is_set() and not loop.is_closed():
                loop.call_soon_threadsafe(self._serve, model, cost_s, time.monotonic() - started)
            return

    def _serve(self, model: LoadedModel, cost_s: float, load_s: float) -> None:
        self.serving = Serving(model, Batcher(model.predict, in_thread=cost_s > INLINE_S))
        self.metrics.model_info.labels(model.name, model.version, model.source).set(1)
        self.metrics.ready.set(0 if self.draining else 1)
        log.info(
            "model %s version %s from %s in %.2f s, %.1f ms a text: serving",
            model.name,
            model.version,
            model.source,
            load_s,
            cost_s * 1000,
        )


def _cost_s(model: LoadedModel) -> float:
    """The processor time of one text, after a first call that may set things up."""
    for text in WARM_UP:
        started = time.thread_time()
        model.predict([text])
        cost_s = time.thread_time() - started
    return cost_s
