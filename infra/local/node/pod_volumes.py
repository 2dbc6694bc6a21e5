"""The volumes of one pod: made before its first container, kept current while it lives, removed after it.

The effects around `volumes` (pure contents, atomic writes) and `tokens`. Work on the disk runs in threads, so that a
large volume doesn't hold up the other pods.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import time
from pathlib import Path

from infra.local.leftovers import detach
from infra.local.node import environment, podspec, provisioner, tokens, volumes
from infra.local.node.checkpoint import PodDir
from infra.local.node.context import Context
from infra.local.node.environment import Sources
from infra.local.node.podspec import ConfigError
from switchboard import quantities
from switchboard.kube import ApiError, Object, Unreachable

log = logging.getLogger(__name__)


class PodVolumes:
    """`folders` has each prepared volume's place on the node by its name."""

    def __init__(self, context: Context, directory: PodDir) -> None:
        self._context = context
        self._dir = directory
        self.folders: dict[str, Path] = {}
        self.read_only: frozenset[str] = frozenset()
        self._given: set[Path] = set()
        """Claims' volumes that were given to the pod's group whole, for this start of the pod."""

    async def prepare(self, pod: Object, pod_ip: str, *, anew: bool = True) -> None:
        """Make all volumes of the pod; safe to call again. `anew`: it starts, rather than being found running.

        Raises:
            ConfigError: something that a volume needs isn't there (yet).
        """
        listed = pod["spec"].get("volumes") or []
        self._dir.make()
        sources = await self.sources(pod, pod_ip, volumes.references(pod))
        made = await asyncio.gather(*(self._make(pod, volume, sources, anew) for volume in listed))
        self.folders = dict(zip((volume["name"] for volume in listed), made, strict=True))
        self.read_only = frozenset(
            volume["name"]
            for volume in listed
            if any(kind in volume for kind in volumes.FILE_KINDS)
            or (volume.get("persistentVolumeClaim") or {}).get("readOnly")
        )

    async def refresh(self, pod: Object, pod_ip: str) -> None:
        """Bring files from config maps, secrets, tokens and the pod's own labels up to date; best effort."""
        files = [v for v in pod["spec"].get("volumes") or [] if any(k in v for k in volumes.FILE_KINDS)]
        if not files:
            return
        try:
            age_s = self._context.settings.refresh_s / 2
            sources = await self.sources(pod, pod_ip, volumes.references(pod), max_age_s=age_s)
            await asyncio.gather(*(self._make(pod, volume, sources) for volume in files))
        except ConfigError as error:
            log.warning("pod %s: its volumes stay as they are: %s", podspec.label(pod), error.message)

    async def sources(
        self, pod: Object, pod_ip: str, wanted: dict[tuple[str, str], bool], *, max_age_s: float = 0.0
    ) -> Sources:
        """What environment and files are made from, with the objects that are named (see `Objects.get`)."""
        context = self._context
        namespace = podspec.namespace(pod)
        objects = await context.objects.get_all(namespace, wanted, max_age_s=max_age_s)
        linked = pod["spec"].get("enableServiceLinks") is not False
        links = environment.service_links(context.services(), namespace) if linked else {}
        return Sources(pod_ip, context.host_ip, context.allocatable, links | context.service_env, objects)

    async def _make(self, pod: Object, volume: Object, sources: Sources, anew: bool = False) -> Path:
        group = podspec.fs_group(pod)
        folder = self._dir.volumes / volume["name"]
        if (claim := volume.get("persistentVolumeClaim")) is not None:
            folder = await self._claimed(podspec.namespace(pod), claim["claimName"])
            whole = anew and podspec.fs_group_always(pod) and folder not in self._given
            await asyncio.to_thread(volumes.make_folder, folder, group, always=whole)
            self._given.add(folder)
        elif (empty := volume.get("emptyDir")) is not None:
            await asyncio.to_thread(self._make_empty, folder, empty, group)
        else:
            held = await self._tokens(pod, volume, folder)
            files = volumes.payload(pod, volume, sources, held)
            await asyncio.to_thread(volumes.write_files, folder, files, group)
        return folder

    def _make_empty(self, folder: Path, empty: Object, group: int | None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if empty.get("medium") == "Memory" and os.geteuid() != 0:
            log.info("volume %s is kept on disk: a volume in memory needs root", folder.name)
        elif empty.get("medium") == "Memory" and not folder.is_mount():
            folder.mkdir(exist_ok=True)
            limit = quantities.in_units(empty["sizeLimit"]) if empty.get("sizeLimit") else None
            mount_memory(folder, limit)
            folder.chmod(0o777)
        volumes.make_folder(folder, group)

    async def _claimed(self, namespace: str, name: str) -> Path:
        objects = self._context.objects
        claim = await objects.get("PersistentVolumeClaim", namespace, name)
        if claim is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        bound = claim["spec"].get("volumeName")
        if not bound or (claim.get("status") or {}).get("phase") != "Bound":
            raise ConfigError(f'persistentvolumeclaim "{name}" is not bound')
        volume = await objects.get("PersistentVolume", "", bound)
        if volume is None:
            raise ConfigError(f'persistentvolume "{bound}" of claim "{name}" not found')
        if path := (volume["spec"].get("local") or {}).get("path"):
            return Path(path)
        if (folder := provisioner.shared_folder(volume, self._context.site.volumes_dir)) is not None:
            return folder
        raise ConfigError(
            f'persistentvolume "{bound}": only local volumes, and those that the class `local` makes, are '
            "supported by the embedded cloud"
        )

    async def _tokens(self, pod: Object, volume: Object, folder: Path) -> dict[str, str]:
        held: dict[str, str] = {}
        for wanted in volumes.token_requests(volume):
            current = folder / wanted.path
            known = current.read_text() if current.exists() else ""
            cut_off = known and self._context.objects.away
            if cut_off or tokens.is_fresh(known, podspec.uid(pod), time.time()):
                held[wanted.path] = known
                continue
            try:
                held[wanted.path] = await tokens.request(self._context.kube, pod, wanted)
            except (ApiError, Unreachable) as error:
                if not known:
                    raise ConfigError(f"no service account token: {error}") from error
                # Cut off: the pod goes on with what it has, and gets a new one when the site is back.
                log.warning("pod %s: its token can't be renewed: %s", podspec.label(pod), error)
                held[wanted.path] = known
        return held

    def remove(self) -> None:
        """Unmount and delete all but persistent volumes."""
        unmount_memory(self._dir)
        shutil.rmtree(self._dir.volumes, ignore_errors=True)


def mount_memory(folder: Path, limit_bytes: int | None) -> None:
    """Mount an empty file system in memory.

    Raises:
        ConfigError: the machine refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    options = "mode=0777" + (f",size={limit_bytes}" if limit_bytes else "")
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options.encode()) != 0:
        raise ConfigError(f"can't mount a volume in memory: {os.strerror(ctypes.get_errno())}")


def unmount_memory(directory: PodDir) -> None:
    if directory.volumes.is_dir():
        for folder in directory.volumes.iterdir():
            if folder.is_mount():
                detach(folder)


def wanted_objects(pod: Object) -> set[tuple[str, str]]:
    """All config maps, secrets and claims that the pod names."""
    claims = {
        ("PersistentVolumeClaim", claim["claimName"])
        for volume in pod["spec"].get("volumes") or []
        if (claim := volume.get("persistentVolumeClaim"))
    }
    return set(volumes.references(pod)) | set(environment.references(pod)) | claims
