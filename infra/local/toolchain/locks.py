"""One builder at a time: a lock on a file that says which process holds it.

The kernel releases it when its holder dies, so that a killed build never blocks the next one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.2


@contextmanager
def held(
    path: Path, waiting: Callable[[str], None], cancelled: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock `path`; where another process has it, `waiting` is told once, with its id.

    `cancelled` is called while waiting and may raise to give up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        told = False
        while not _try(file.fileno()):
            if not told:
                waiting(f"process {holder(path) or 'unknown'}")
                told = True
            cancelled()
            time.sleep(_POLL_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def holder(path: Path) -> int | None:
    """The process that holds the lock, as it wrote it down; None where nobody does or it isn't known."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
