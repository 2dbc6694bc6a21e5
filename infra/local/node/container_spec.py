"""From a container's manifest to what the runtime starts: command, environment, identity, mounts and limits.

Pure: all that has to be fetched or made (image, objects, volumes) comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.layout import CLUSTER_DOMAIN
from infra.local.node import environment, podspec, volumes
from infra.local.node.environment import Sources
from infra.local.runtime.spec import ContainerSpec, Image, Limits, Mount
from switchboard import quantities
from switchboard.kube import Object

_HOSTS = "/etc/hosts"
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class Place:
    """Where a container's things are on the node."""

    run_id: str
    log: Path
    cgroup: str
    hosts: Path
    message: Path


def run_id(pod_uid: str, container: str, attempt: int) -> str:
    return f"{pod_uid}_{container}_{attempt}"


def parse_run_id(text: str) -> tuple[str, str, int]:
    """Pod uid, container and attempt (none of the first two can hold an underscore)."""
    pod_uid, container, attempt = text.split("_")
    return pod_uid, container, int(attempt)


def limits(one: Object) -> Limits:
    resources = one.get("resources") or {}
    most, asked = resources.get("limits") or {}, resources.get("requests") or {}
    share = asked.get("cpu") or most.get("cpu")
    return Limits(
        memory_bytes=quantities.in_units(most["memory"]) if "memory" in most else None,
        cpu_cores=float(quantities.parse(most["cpu"])) if "cpu" in most else None,
        cpu_request_cores=float(quantities.parse(share)) if share else None,
    )


def build(
    pod: Object,
    one: Object,
    image: Image,
    sources: Sources,
    folders: Mapping[str, Path],
    read_only: frozenset[str],
    place: Place,
) -> ContainerSpec:
    """The container as the runtime wants it.

    Raises:
        ConfigError: the manifest asks for what isn't there or can't be.
    """
    who = podspec.identity(pod, one, image.user)
    env = environment.container_env(pod, one, sources)
    security = one.get("securityContext") or {}
    mounts = volumes.mounts(one, folders, read_only, env)
    own = {mount.target for mount in mounts}
    if _HOSTS not in own:
        mounts.append(Mount(place.hosts, _HOSTS, read_only=True))
    message = one.get("terminationMessagePath") or TERMINATION_LOG
    if message not in own:
        mounts.append(Mount(place.message, message))
    return ContainerSpec(
        id=place.run_id,
        image=image,
        argv=environment.argv(one, image.entrypoint, image.cmd, env),
        env=env,
        working_dir=one.get("workingDir") or image.working_dir,
        uid=who.uid,
        gid=who.gid,
        supplemental_groups=who.groups,
        hostname=podspec.shown_hostname(pod, CLUSTER_DOMAIN),
        mounts=tuple(mounts),
        read_only_root=bool(security.get("readOnlyRootFilesystem")),
        log_path=place.log,
        limits=limits(one),
        cgroup=place.cgroup,
        stdin=bool(one.get("stdin")),
        stdin_once=bool(one.get("stdinOnce")),
        tty=bool(one.get("tty")),
    )
