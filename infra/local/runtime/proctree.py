"""What a tree of processes uses, read from /proc: for machines where cgroups may not be made."""

from __future__ import annotations

import os
from pathlib import Path

from infra.local.runtime.spec import Stats

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tree_stats(root: int) -> Stats:
    """CPU time (ended children that were waited for included) and resident memory of a process and all below it.

    Memory that processes share is counted for each of them. Raises OSError when `root` is gone.
    """
    ticks, pages = _usage(root)
    for pid in _descendants(root):
        try:
            more_ticks, more_pages = _usage(pid)
        except OSError:  # ended meanwhile
            continue
        ticks += more_ticks
        pages += more_pages
    return Stats(ticks / _TICKS_PER_S, pages * _PAGE_BYTES)


def _usage(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]), int(fields[21])


def _descendants(root: int) -> list[int]:
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found += children
        waiting += children
    return found
