"""Progress of long work: a line for each step with its time, and a live detail where there is a terminal.

Steps may run at once (threads or tasks). On a terminal the running steps are shown with a spinner and their
detail; elsewhere (CI, a pipe) the detail is printed at most every 30 s, so that a long build is seen to live.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Step:
    """A running step; `detail` says how far it is (`1,204 of 3,377 packages`)."""

    def __init__(self, owner: Progress, name: str) -> None:
        self._owner = owner
        self.name = name
        self.started = time.monotonic()
        self._printed = self.started
        self._task = owner._live.add_task(name, total=None, detail="") if owner._live else None

    def detail(self, text: str) -> None:
        """Show how far the step is; cheap enough to be called for every line of a build's output."""
        if self._owner._live is not None and self._task is not None:
            self._owner._live.update(self._task, detail=text)
            return
        now = time.monotonic()
        if now - self._printed >= 30:
            self._printed = now
            self._owner._print(f"  … {self.name}: {text} ({now - self.started:.0f} s)")

    def _end(self, mark: str, note: str = "") -> None:
        if self._owner._live is not None and self._task is not None:
            self._owner._live.remove_task(self._task)
        seconds = time.monotonic() - self.started
        self._owner._print(f"{mark} {self.name:<58} {seconds:6.1f} s{note}")


class Progress:
    """Prints steps to `stream` (standard error by default, so that standard output stays clean)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._live: RichProgress | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TextColumn("[dim]{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, line: str) -> None:
        with self._lock:
            (self._live.console if self._live else self._console).print(line, markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step of the work; its line is printed at its end, with `✗` where it raised."""
        step = Step(self, name)
        try:
            yield step
        except BaseException:
            step._end("✗")
            raise
        step._end("✓")

    def note(self, text: str) -> None:
        """A line between the steps."""
        self._print(text)
