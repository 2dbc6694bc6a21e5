"""Notes every request of a Locust run and leaves the run's figures in a file, for the process that started it.

The file (`Settings.result`) is replaced each second with the figures so far (`done` false), and once more at the end.
Of several processes the one that leads them writes it; the others tell it what they noted with Locust's own reports.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.agreed import Settings, settings
from loadtests.customers import FIRST, LATE, VERSION, Customers, close
from loadtests.figures import Sent, by_second, figures
from switchboard.requests import Request, write

TOLD: Final = "switchboard"
"""In a report to the process that leads: the requests since the last one, and what was sent of how many by now."""

_YOUNG: Final = 10_000
"""So many new objects are searched for garbage at once."""
_NEVER: Final = 1_000_000


class Recorder:
    def __init__(self, environment: Environment, own: Settings) -> None:
        self._environment, self._own = environment, own
        self._requests: list[Request] = []
        self._failed = 0
        self._sent: dict[str, Sent] = {}
        self._started_s: float | None = None
        self._ended_s: float | None = None
        events = environment.events
        events.test_start.add_listener(self._start)
        events.test_stop.add_listener(self._stop)
        events.request.add_listener(self._request)
        events.report_to_master.add_listener(self._tell)
        events.worker_report.add_listener(self._told)
        events.quitting.add_listener(self._quit)

    @classmethod
    def install(cls, environment: Environment, **_: Any) -> None:
        """A listener for Locust's `init`."""
        cls(environment, settings())

    def _start(self, **_: Any) -> None:
        self._started_s = time.time()
        _settle_memory()
        if self._own.result is not None and not isinstance(self._environment.runner, WorkerRunner):
            gevent.spawn(self._report)

    def _stop(self, **_: Any) -> None:
        self._ended_s = time.time()
        close(self._environment)

    def _request(
        self,
        response_time: float,
        exception: BaseException | None = None,
        start_time: float | None = None,
        context: Mapping[str, Any] | None = None,
        name: str = "",
        **_: Any,
    ) -> None:
        seconds, found = response_time / 1000, context or {}
        began = start_time if start_time is not None else time.time() - seconds
        failure = None if exception is None else str(exception)[:200] or type(exception).__name__
        self._failed += failure is not None
        late = found.get(LATE, 0.0)
        self._requests.append(
            Request(began, seconds, failure, found.get(VERSION, ""), name, late, found.get(FIRST))
        )

    def _own_sent(self) -> Sent:
        desks = [desk for (whose, _), desk in Customers.desks.items() if whose is self._environment]
        return Sent(sum(one.pacer.offered for one in desks), sum(one.pacer.dropped for one in desks))

    def _tell(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        data[TOLD] = [self._requests, self._own_sent()]
        self._requests = []

    def _told(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        requests, sent = data.get(TOLD) or ([], Sent())
        told = [Request(*one) for one in requests]
        self._requests += told
        self._failed += sum(one.failure is not None for one in told)
        self._sent[client_id] = Sent(*sent)

    def _report(self) -> None:
        while self._ended_s is None:
            gevent.sleep(1)
            self._write(done=False)

    def _quit(self, **_: Any) -> None:
        if self._own.result is not None and not isinstance(self._environment.runner, WorkerRunner):
            self._write(done=True)

    def _write(self, *, done: bool) -> None:
        ended = self._ended_s or time.time()
        duration_s = ended - self._started_s if self._started_s is not None else 0.0
        leads = isinstance(self._environment.runner, MasterRunner)
        sent = Sent.of_all(self._sent.values()) if leads else self._own_sent()
        # A long run isn't sorted through each second: the live line needs counts, the end needs the rest.
        found = figures(self._requests if done else self._requests[-1000:], duration_s, sent, self._started_s)
        if not done:
            found = found.model_copy(update={"total": len(self._requests), "failed": self._failed})
        if done and self._own.seconds is not None:
            rows = ("second,due,good,failed", *(",".join(map(str, row)) for row in by_second(self._requests)))
            Path(self._own.seconds).write_text("\n".join(rows) + "\n")
        if done and self._own.requests is not None:
            with Path(self._own.requests).open("w", newline="") as file:
                write(self._requests, file)
        result = Path(str(self._own.result))
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps({"done": done, "figures": found.model_dump()}))
        partial.replace(result)


def _settle_memory() -> None:
    """What is there now stays; and no search for garbage goes through all the requests that were noted, since what is
    due meanwhile goes out late. What is young is searched as ever. (Python 3.14 has no third threshold, and no need of
    it: it searches what is old bit by bit.)"""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, _NEVER)
