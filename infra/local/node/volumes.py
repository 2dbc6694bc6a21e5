"""A pod's volumes on the node's disk, and how they appear in its containers.

emptyDir and claims are folders; configMap, secret, projected and downwardAPI are files written from the API's
objects. The latter change in one step, as a kubelet does it: the visible names are links through `..data`, which is
renamed to a complete new folder, so that a program sees the old files or the new ones and never a mixture.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.node.environment import Sources, data_of, expand, pod_field, resource_field
from infra.local.node.podspec import ConfigError
from infra.local.runtime.spec import Mount
from switchboard.kube import Object

_GROUP_FOLDER = stat.S_ISGID | stat.S_IRWXG
_GROUP_FILE = stat.S_IRGRP | stat.S_IWGRP

FILE_KINDS = ("configMap", "secret", "projected", "downwardAPI")


@dataclass(frozen=True)
class File:
    """A file of a volume."""

    data: bytes
    mode: int


@dataclass(frozen=True)
class TokenRequest:
    """A service account token that a projected volume asks for."""

    path: str
    audience: str
    lifetime_s: int
    mode: int


def references(pod: Object) -> dict[tuple[str, str], bool]:
    """The config maps and secrets that the pod's volumes name, and whether one is needed."""
    found: dict[tuple[str, str], bool] = {}
    for volume in pod["spec"].get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or [volume]
        for source in sources:
            for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                if selector := source.get(field):
                    key = (kind, selector.get("secretName") or selector["name"])
                    found[key] = found.get(key, False) or not selector.get("optional")
    return found


def token_requests(volume: Object) -> list[TokenRequest]:
    """The tokens that a volume holds."""
    projected = volume.get("projected") or {}
    mode = int(projected.get("defaultMode") or 0o644)
    return [
        TokenRequest(t["path"], t.get("audience") or "", int(t.get("expirationSeconds") or 3600), mode)
        for source in projected.get("sources") or []
        if (t := source.get("serviceAccountToken"))
    ]


def payload(pod: Object, volume: Object, sources: Sources, tokens: Mapping[str, str]) -> dict[str, File]:
    """The files of a configMap, secret, projected or downwardAPI volume; `tokens` by path.

    Raises:
        ConfigError: an object or a key that isn't there and isn't optional.
    """
    if projected := volume.get("projected"):
        default = int(projected.get("defaultMode") or 0o644)
        files: dict[str, File] = {}
        for source in projected.get("sources") or []:
            if token := source.get("serviceAccountToken"):
                files[token["path"]] = File(tokens[token["path"]].encode(), default)
            else:
                files |= _one(pod, source, default, sources)
        return files
    inner = next(volume[kind] for kind in FILE_KINDS if kind in volume)
    return _one(pod, volume, int(inner.get("defaultMode") or 0o644), sources)


def _one(pod: Object, source: Object, default: int, sources: Sources) -> dict[str, File]:
    if (selector := source.get("configMap")) is not None:
        return _from_object("ConfigMap", selector["name"], selector, default, sources)
    if (selector := source.get("secret")) is not None:
        name = selector.get("secretName") or selector["name"]
        return _from_object("Secret", name, selector, default, sources)
    if (selector := source.get("downwardAPI")) is not None:
        files = {}
        for item in selector.get("items") or []:
            if reference := item.get("fieldRef"):
                text = pod_field(pod, reference["fieldPath"], sources)
            else:
                text = resource_field(pod, item["resourceFieldRef"], None, sources)
            files[_safe(item["path"])] = File(text.encode(), int(item.get("mode") or default))
        return files
    raise ConfigError(f"projected source {', '.join(source)} is not supported by the embedded cloud")


def _from_object(
    kind: str, name: str, selector: Mapping[str, Any], default: int, sources: Sources
) -> dict[str, File]:
    obj = sources.objects.get((kind, name))
    if obj is None:
        if selector.get("optional"):
            return {}
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    data = data_of(obj)
    if not (items := selector.get("items")):
        return {key: File(value, default) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            files[_safe(item["path"])] = File(data[item["key"]], int(item.get("mode") or default))
        elif not selector.get("optional"):
            raise ConfigError(f'{kind.lower()} "{name}" references non-existent key: {item["key"]}')
    return files


def _safe(path: str) -> str:
    if path.startswith("/") or ".." in Path(path).parts:
        raise ConfigError(f"volume path {path!r} must be relative and stay in its volume")
    return path


def write_files(directory: Path, files: Mapping[str, File], group: int | None) -> bool:
    """Make a volume's folder hold exactly these files, in one step; True where something changed.

    Raises:
        OSError: the disk is full, say; the old files are seen as before, and nothing half-written is left.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    current = directory / "..data"
    changed = not current.exists() or _read(current.resolve()) != {
        path: file.data for path, file in files.items()
    }
    if changed:
        fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
        try:
            _fill(fresh, files, group)
            link = directory / "..data_tmp"
            link.unlink(missing_ok=True)
            link.symlink_to(fresh.name)
            link.replace(current)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    _tidy(directory, {Path(path).parts[0] for path in files})
    return changed


def _fill(fresh: Path, files: Mapping[str, File], group: int | None) -> None:
    fresh.chmod(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        target.chmod(file.mode | (0o440 if group is not None else 0))
    if group is not None:
        _own(fresh, group, writable=False)


def _tidy(directory: Path, tops: set[str]) -> None:
    """Make the visible names what `..data` holds, and remove the folders that it led to before."""
    for top in tops:
        if not (directory / top).is_symlink():
            (directory / top).symlink_to(Path("..data") / top)
    keep = {"..data", (directory / "..data").readlink().name} | tops
    for entry in directory.iterdir():
        if entry.name in keep:
            continue
        if entry.is_symlink():
            entry.unlink()
        elif entry.name.startswith(".."):
            shutil.rmtree(entry, ignore_errors=True)


def _read(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def make_folder(directory: Path, group: int | None, *, always: bool = False) -> None:
    """An emptyDir's or a claim's folder: open to all that can see it, and to the pod's `fsGroup`.

    What is in it already is given to the group too where its root isn't the group's yet, or `always`: see
    `fsGroupChangePolicy`.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # of a shared claim, another node's agent may be making it too
        directory.mkdir()
        directory.chmod(0o777)
    if group is not None:
        found = directory.stat()
        if always or found.st_gid != group or found.st_mode & _GROUP_FOLDER != _GROUP_FOLDER:
            _own(directory, group, writable=True)


def _own(directory: Path, group: int, *, writable: bool) -> None:
    """Give a tree to a group, its root last: what was cut off begins anew.

    Not root, or not its owner: left as it is (the pod's own user can write anyway). A pod that has the volume may
    change it meanwhile, so nothing is followed, and nothing is found by its path twice.
    """
    with contextlib.suppress(PermissionError, FileNotFoundError):
        for _, folders, files, here in os.fwalk(directory, topdown=False):
            for name in (*folders, *files):
                _give(name, group, writable, here)
    _give(str(directory), group, writable, None)


def _give(name: str, group: int, writable: bool, above: int | None) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # a link, a socket, gone meanwhile, or somebody else's
        handle = os.open(name, flags, dir_fd=above)
        try:
            found = os.fstat(handle)
            if found.st_gid != group:
                os.fchown(handle, -1, group)
            mode = stat.S_IMODE(found.st_mode)
            if writable:
                mode |= _GROUP_FOLDER if stat.S_ISDIR(found.st_mode) else _GROUP_FILE
            if mode != stat.S_IMODE(os.fstat(handle).st_mode):
                os.fchmod(handle, mode)
        finally:
            os.close(handle)


def mounts(
    one: Object, volumes: Mapping[str, Path], read_only: frozenset[str], env: Mapping[str, str]
) -> list[Mount]:
    """Where the pod's volumes appear in a container; `volumes` are their folders by name.

    Raises:
        ConfigError: a volume that the pod doesn't have, or a subPath that leaves its volume.
    """
    found = []
    for mount in one.get("volumeMounts") or []:
        source = volumes.get(mount["name"])
        if source is None:
            raise ConfigError(f"container {one['name']} mounts volume {mount['name']!r}, which isn't there")
        sub = mount.get("subPath") or (expand(mount["subPathExpr"], env) if mount.get("subPathExpr") else "")
        if sub:
            source = _sub_path(source, sub, mount["name"])
        found.append(
            Mount(source, mount["mountPath"], bool(mount.get("readOnly")) or mount["name"] in read_only)
        )
    # An outer path first, so that a mount inside another isn't covered by it.
    return sorted(found, key=lambda mount: len(Path(mount.target).parts))


def _sub_path(volume: Path, sub: str, name: str) -> Path:
    """The place in the volume, made where it isn't there; links in it are followed as long as they stay in it."""
    if sub.startswith("/") or ".." in Path(sub).parts:
        raise ConfigError(f"volume {name}: subPath {sub!r} must be relative and stay in its volume")
    root = volume.resolve()
    try:
        path = (root / sub).resolve()
        if not path.is_relative_to(root):
            raise ConfigError(f"volume {name}: subPath {sub!r} leads out of its volume")
        if not path.exists():
            _make_below(root, path.relative_to(root))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ConfigError(f"volume {name}: subPath {sub!r} can't be used: {error}") from None
    return path


def _make_below(root: Path, relative: Path) -> None:
    """Make folders without following a link: a pod that has the volume may put one there meanwhile."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as opened:

        def enter(part: str | Path, above: int | None) -> int:
            handle = os.open(part, flags, dir_fd=above)
            opened.callback(os.close, handle)
            return handle

        here = enter(root, None)
        for part in relative.parts:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
                made = True
            here = enter(part, here)
            if made:
                os.fchmod(here, 0o777)
