"""What a pod keeps on the node's disk, held against what its manifest allows; who has more is evicted, as by a kubelet.

Looked at every now and then (`Settings.disk_check_s`) and only for pods that have such a limit: the `sizeLimit` of an
emptyDir on disk, a container's `ephemeral-storage` limit for its logs, and the pod's (as Kubernetes adds up what its
containers have) for emptyDirs and logs together. (A container's root is in memory here.) Between two looks a pod can
have more: the limit is no quota.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from infra.local.node import podspec
from infra.local.node.records import Problem
from switchboard import quantities
from switchboard.kube import Object

EVICTED = "Evicted"
LOGS = "logs"
_BLOCK_BYTES = 512


def logs_of(container: str) -> str:
    """The name under which a container's own logs are counted."""
    return f"{LOGS}/{container}"


def empty_dirs(pod: Object) -> dict[str, str | None]:
    """The pod's emptyDirs on disk: name → `sizeLimit`. (One in memory is limited by its file system.)"""
    volumes = pod["spec"].get("volumes") or []
    return {
        volume["name"]: empty.get("sizeLimit")
        for volume in volumes
        if (empty := volume.get("emptyDir")) is not None and empty.get("medium") != "Memory"
    }


def limit_bytes(one: Object) -> int | None:
    """A container's limit for `ephemeral-storage`; None where it has none (or 0, which is none to a kubelet)."""
    limit = ((one.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")
    return (quantities.in_units(limit) or None) if limit is not None else None


def total_limit_bytes(pod: Object) -> int | None:
    """What the pod may have in all; None where no container has a limit.

    As Kubernetes reckons a pod's limits: what runs together is added up, and an init container, which runs alone but
    for the sidecars before it, raises that only where it may have more.
    """
    together = most_at_first = sidecars = 0
    for kind, one in podspec.all_containers(pod):
        limit = limit_bytes(one) or 0
        if kind == "init":
            most_at_first = max(most_at_first, sidecars + limit)
            continue
        together += limit
        if kind == "sidecar":
            sidecars += limit
    return max(together, most_at_first) or None


def limited(pod: Object) -> bool:
    """Is there anything to look at?"""
    return total_limit_bytes(pod) is not None or any(limit for limit in empty_dirs(pod).values())


def excess(pod: Object, used_bytes: Mapping[str, int]) -> Problem | None:
    """Why the pod has to go, in the kubelet's words; `used_bytes` by emptyDir, of all its `LOGS`, and of the logs of
    each container with a limit (`logs_of`)."""
    dirs = empty_dirs(pod)
    for name, limit in dirs.items():
        if limit and used_bytes.get(name, 0) > quantities.in_units(limit):
            text = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
            return Problem(reason=EVICTED, message=text)
    total = total_limit_bytes(pod)
    if total is not None and sum(used_bytes.get(name, 0) for name in (*dirs, LOGS)) > total:
        text = f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        return Problem(reason=EVICTED, message=text)
    for one in pod["spec"][
        "containers"
    ]:  # init containers are held by the pod's limit alone, as by a kubelet
        limit_of_one = limit_bytes(one)
        if limit_of_one is not None and used_bytes.get(logs_of(one["name"]), 0) > limit_of_one:
            limit = one["resources"]["limits"]["ephemeral-storage"]
            text = f'Container {one["name"]} exceeded its local ephemeral storage limit "{limit}". '
            return Problem(reason=EVICTED, message=text)
    return None


def size_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk: links aren't followed, a file with two names counts once."""
    seen: set[tuple[int, int]] = set()
    total, below = 0, [str(folder)]
    while below:
        with contextlib.suppress(OSError), os.scandir(below.pop()) as entries:  # gone meanwhile
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:  # this one alone went away
                    continue
                if stat.S_ISDIR(found.st_mode):
                    below.append(entry.path)
                elif found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * _BLOCK_BYTES
    return total


def measure(pod: Object, directory: Path) -> dict[str, int]:
    """What `excess` wants to know of the pod whose folder is `directory`."""
    used = {name: size_bytes(directory / "volumes" / name) for name in empty_dirs(pod)}
    for one in pod["spec"]["containers"]:
        if limit_bytes(one) is not None:
            used[logs_of(one["name"])] = size_bytes(directory / "logs" / one["name"])
    return used | {LOGS: size_bytes(directory / "logs")}
