"""Notes every request of a Locust run and leaves the run's figures in a file, for the process that started it.

The file (`Settings.result`) is replaced each second with how far it is (`so_far`), and at the end with the `figures`.
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
from gevent.event import Event
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.agreed import SPOKEN_TIMEOUT_S, Settings, settings
from loadtests.customers import FIRST, LATE, VERSION, begin, close, desks_of
from loadtests.figures import Sent, SoFar, by_second, figures
from switchboard.requests import Request, percentile, write

TOLD: Final = "switchboard"
"""In a report to the process that leads: the requests since the last one, and what was sent of how many by now."""

FINISH, FINISHED = "switchboard-finish", "switchboard-finished"
"""Messages of the process that leads to the others, and back."""
FINISH_S: Final = 2 * SPOKEN_TIMEOUT_S + 5.0
LAST: Final = 500
"""So many requests say how fast it is now."""

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
        self._working: set[str] = set()
        self._all_finished = Event()
        runner = environment.runner
        if isinstance(runner, MasterRunner):
            runner.register_message(FINISHED, self._finished)
        elif isinstance(runner, WorkerRunner):
            runner.register_message(FINISH, self._finish, concurrent=True)

    @classmethod
    def install(cls, environment: Environment, **_: Any) -> None:
        """A listener for Locust's `init`."""
        cls(environment, settings())

    def _start(self, **_: Any) -> None:
        begin(self._environment)
        self._requests, self._failed, self._sent = [], 0, {}
        self._started_s, self._ended_s = time.time(), None
        _settle_memory()
        if self._own.result is not None and not isinstance(self._environment.runner, WorkerRunner):
            gevent.spawn(self._report)

    def _stop(self, **_: Any) -> None:
        self._ended_s = time.time()
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            self._wait_for_workers(runner)
        else:
            close(self._environment)

    def _wait_for_workers(self, runner: MasterRunner) -> None:
        """Locust's own farewell gives them half a second for what is still to be answered."""
        self._working = {one.id for one in runner.clients.all if one.state != STATE_MISSING}
        self._all_finished.clear()
        if self._working:
            runner.send_message(FINISH)
            self._all_finished.wait(FINISH_S)

    def _finish(self, environment: Environment, msg: Any, **_: Any) -> None:
        """In a worker: all that was due is answered, or given up, and told."""
        close(environment)
        data: dict[str, Any] = {}
        self._tell("", data)
        environment.runner.send_message(FINISHED, data)

    def _finished(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._told(msg.node_id, msg.data)
        self._working.discard(msg.node_id)
        if not self._working:
            self._all_finished.set()

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
        desks = desks_of(self._environment)
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
            self._leave({"so_far": self._so_far()})

    def _quit(self, **_: Any) -> None:
        if self._own.result is not None and not isinstance(self._environment.runner, WorkerRunner):
            self._write()

    def _so_far(self) -> SoFar:
        """What is due meanwhile goes out late, so no run is sorted through for it."""
        last = sorted(one.seconds for one in self._requests[-LAST:])
        return SoFar(len(self._requests), self._failed, percentile(last, 99) * 1000 if last else None)

    def _write(self) -> None:
        ended = self._ended_s or time.time()
        duration_s = ended - self._started_s if self._started_s is not None else 0.0
        leads = isinstance(self._environment.runner, MasterRunner)
        sent = Sent.of_all(self._sent.values()) if leads else self._own_sent()
        found = figures(self._requests, duration_s, sent, self._started_s)
        if self._own.seconds is not None:
            rows = ("second,due,good,failed", *(",".join(map(str, row)) for row in by_second(self._requests)))
            Path(self._own.seconds).write_text("\n".join(rows) + "\n")
        if self._own.requests is not None:
            with Path(self._own.requests).open("w", newline="") as file:
                write(self._requests, file)
        self._leave({"figures": found.model_dump()})

    def _leave(self, document: dict[str, Any]) -> None:
        result = Path(str(self._own.result))
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(document))
        partial.replace(result)


def _settle_memory() -> None:
    """What is there now stays; and no search for garbage goes through all the requests that were noted, since what is
    due meanwhile goes out late. What is young is searched as ever. (Python 3.14 has no third threshold, and no need of
    it: it searches what is old bit by bit.)"""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, _NEVER)
