"""What a pod keeps on the node's disk, held against what its manifest allows; who has more is evicted, as by a kubelet.

Looked at every now and then (`Settings.disk_check_s`) and only for pods that have such a limit: the `sizeLimit` of an
emptyDir on disk, and the sum of the containers' `ephemeral-storage` limits for emptyDirs and logs together. (A
container's root is in memory here.) Between two looks a pod can have more: the limit is no quota.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from infra.local.node import podspec, quantities
from infra.local.node.records import Problem
from switchboard.kube import Object

EVICTED = "Evicted"
LOGS = "logs"
_BLOCK_BYTES = 512


def empty_dirs(pod: Object) -> dict[str, str | None]:
    """The pod's emptyDirs on disk: name → `sizeLimit`. (One in memory is limited by its file system.)"""
    volumes = pod["spec"].get("volumes") or []
    return {
        volume["name"]: empty.get("sizeLimit")
        for volume in volumes
        if (empty := volume.get("emptyDir")) is not None and empty.get("medium") != "Memory"
    }


def total_limit_bytes(pod: Object) -> int | None:
    """The sum of the containers' limits for `ephemeral-storage`; None where none has one."""
    limits = [
        quantities.in_units(limit)
        for _, one in podspec.all_containers(pod)
        if (limit := ((one.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")) is not None
    ]
    return sum(limits) if limits else None


def limited(pod: Object) -> bool:
    """Is there anything to look at?"""
    return total_limit_bytes(pod) is not None or any(limit for limit in empty_dirs(pod).values())


def excess(pod: Object, used_bytes: Mapping[str, int]) -> Problem | None:
    """Why the pod has to go, in the kubelet's words; `used_bytes` by emptyDir, and of its `LOGS`."""
    dirs = empty_dirs(pod)
    for name, limit in dirs.items():
        if limit and used_bytes.get(name, 0) > quantities.in_units(limit):
            text = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
            return Problem(reason=EVICTED, message=text)
    total = total_limit_bytes(pod)
    if total is not None and sum(used_bytes.get(name, 0) for name in (*dirs, LOGS)) > total:
        text = f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        return Problem(reason=EVICTED, message=text)
    return None


def size_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk: links aren't followed, a file with two names counts once."""
    seen: set[tuple[int, int]] = set()
    total, below = 0, [str(folder)]
    while below:
        try:
            with os.scandir(below.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        except OSError:
            continue  # it went away while it was looked at
    return total


def measure(pod: Object, directory: Path) -> dict[str, int]:
    """What `excess` wants to know of the pod whose folder is `directory`."""
    used = {name: size_bytes(directory / "volumes" / name) for name in empty_dirs(pod)}
    return used | {LOGS: size_bytes(directory / "logs")}
