"""Work on all cores, in processes that end with the command that began it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], todo: Sequence[T]) -> Iterator[R]:
    """`work` of each, in their order, each as soon as it and those before it are done."""
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    workers = min(len(todo), cores or 1)
    if workers <= 1:
        yield from map(work, todo)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        yield from pool.map(work, todo)


def _end_with_parent() -> None:
    """A pool's workers would wait for work for ever when the command is killed."""
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
