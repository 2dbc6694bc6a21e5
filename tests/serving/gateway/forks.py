"""Processes that start in some milliseconds: forked from one that has imported already what they need.

To import it takes each process half a second of processor time, and the tests of the gateway start hundreds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["serving.gateway.__main__", "tests.serving.gateway.backend"])


class Fork:
    """`work(*arguments)` in a process of its own, with as much of `subprocess.Popen` as the tests need.

    What it prints, and its log, is added to the file `log`.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any, log: Path) -> None:
        self._process = _CONTEXT.Process(target=_run, args=(work, arguments, str(log)), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(work: Callable[..., None], arguments: tuple[Any, ...], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for standard in (1, 2):
        os.dup2(file, standard)
    os.close(file)
    work(*arguments)
