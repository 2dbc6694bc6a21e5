"""What the containers of a runtime folder have left on the machine, and its removal: for `make down` and for tests."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from infra.local.runtime.record import Folder
from infra.local.runtime.runtime import Runtime


def leftovers(directory: Path) -> list[str]:
    """What a runtime folder's containers have left on the machine, a line for each thing; empty is clean.

    Ended containers whose folders wait for their removal don't count.
    """
    found = []
    for folder in _container_folders(directory):
        record = folder.read_record()
        if folder.shim_lives():
            raw = folder.read_raw()
            found.append(f"container {folder.id} runs (pid {raw.get('pid')}, shim {raw.get('shim')})")
        elif record is not None and (pids := record.placement.processes()):
            found.append(f"container {folder.id} has processes left: {sorted(pids)}")
        if record is not None:
            found += [f"cgroup {place} is left" for place in record.placement.folders if place.exists()]
    prefix = str(directory.absolute()) + "/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return found + [f"{point} is mounted" for point in points if point.startswith(prefix)]


async def cleanup(directory: Path) -> None:
    """Kill every container of a runtime folder and remove what they leave: processes, cgroups, folders. Logs stay."""
    if not directory.is_dir():  # noqa: ASYNC240 - no time at all
        return
    runtime = Runtime(directory)
    try:
        await runtime.adopt()
        await asyncio.gather(*(runtime.remove(folder.id) for folder in _container_folders(directory)))
    finally:
        await runtime.close()
    with contextlib.suppress(OSError):
        directory.rmdir()  # noqa: ASYNC240


def _container_folders(directory: Path) -> list[Folder]:
    if not directory.is_dir():
        return []
    return [Folder(path) for path in sorted(directory.iterdir()) if path.is_dir()]
