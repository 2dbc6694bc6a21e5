"""Notes every request of a Locust run and leaves the run's figures in a file, for the process that started it.

The file is `$SWITCHBOARD_LOADTEST_RESULT`: replaced each second with the figures so far (`done` false), and once more
at the end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment

from loadtests.figures import by_second, figures
from loadtests.plan import REQUESTS_VARIABLE, RESULT_VARIABLE, SECONDS_VARIABLE
from switchboard.requests import Request, write

VERSION = "version"
"""In a request's context: which version of the model has answered."""


class Recorder:
    def __init__(self, environment: Environment, path: Path) -> None:
        self._path = path
        self._requests: list[Request] = []
        self._started_s: float | None = None
        self._ended_s: float | None = None
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.request.add_listener(self._request)
        environment.events.quitting.add_listener(self._quit)

    @classmethod
    def install(cls, environment: Environment, **_: Any) -> None:
        """A listener for Locust's `init`; without the variable (the file run by `locust` itself) it does nothing."""
        if path := os.environ.get(RESULT_VARIABLE):
            cls(environment, Path(path))

    def _start(self, **_: Any) -> None:
        self._started_s = time.time()
        gevent.spawn(self._report)

    def _stop(self, **_: Any) -> None:
        self._ended_s = time.time()

    def _request(
        self,
        response_time: float,
        exception: BaseException | None = None,
        start_time: float | None = None,
        context: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        seconds = response_time / 1000
        began = start_time if start_time is not None else time.time() - seconds
        version = (context or {}).get(VERSION, "")
        self._requests.append(Request(began, seconds, _reason(exception), version))

    def _report(self) -> None:
        while self._ended_s is None:
            gevent.sleep(1)
            self._write(done=False)

    def _quit(self, **_: Any) -> None:
        self._write(done=True)

    def _write(self, *, done: bool) -> None:
        ended = self._ended_s or time.time()
        duration_s = ended - self._started_s if self._started_s is not None else 0.0
        # A long run isn't sorted through each second: the live line needs counts, the end needs the rest.
        requests = self._requests if done else self._requests[-1000:]
        found = figures(requests, duration_s)
        if not done:
            failed = sum(request.failure is not None for request in self._requests)
            found = found.model_copy(update={"total": len(self._requests), "failed": failed})
        if done and (seconds := os.environ.get(SECONDS_VARIABLE)):
            rows = ("second,due,good,failed", *(",".join(map(str, row)) for row in by_second(self._requests)))
            Path(seconds).write_text("\n".join(rows) + "\n")
        if done and (each := os.environ.get(REQUESTS_VARIABLE)):
            with Path(each).open("w", newline="") as file:
                write(self._requests, file)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"done": done, "figures": found.model_dump()}))
        partial.replace(self._path)


def _reason(exception: BaseException | None) -> str | None:
    if exception is None:
        return None
    return f"{type(exception).__name__}: {exception}"[:200]
