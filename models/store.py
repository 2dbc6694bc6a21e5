"""Copies of models on disk, in a folder that processes of several machines may share: whole or not there.

    <cache>/<name>/<version>/classifier.npz, classifier.json, manifest.json
    <cache>/<name>/<alias>.alias.json        which versions the alias has meant, newest first

A version's folder appears by one rename and its files are never changed after; a copy whose hashes don't fit its
manifest counts as absent, and is replaced. Nobody locks anything, since locks don't hold on every network file system:
renaming is all that is relied on. What killed writers left, and versions that nobody has loaded for long, go with time,
which is told by the file system's own clock: machines' clocks may differ.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.rest import FileInfo

MANIFEST = "manifest.json"
HISTORY = 3
"""How many versions an alias remembers: what is left to serve from when the newest copy is damaged."""
KEPT = 3
"""So many of the versions that were loaded last stay, whatever their age, beside those that aliases remember."""
KEPT_S = 30 * 86_400.0
"""A version that was loaded since stays: a replica that serves it may be started anew."""
BUSY_S = 900.0
"""What was written or loaded since may be in use now: a version stays even where the disk is full."""
_REPLACEMENTS = 5
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Copy:
    """One version of a model, its files in memory as they were checked."""

    name: str
    version: str
    run_id: str
    files: Mapping[str, FileInfo]
    contents: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, name: str, version: str, run_id: str, contents: Mapping[str, bytes]) -> Copy:
        files = {file: fingerprint(content) for file, content in contents.items()}
        return cls(name, version, run_id, files, contents)

    @property
    def digest(self) -> str:
        return digest_of(self.files)


def digest_of(files: Mapping[str, FileInfo]) -> str:
    """One SHA-256 for a set of files: over their sorted names and hashes."""
    lines = "".join(f"{info.sha256}  {name}\n" for name, info in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def fingerprint(content: bytes) -> FileInfo:
    return FileInfo(hashlib.sha256(content).hexdigest(), len(content))


def valid_name(text: str) -> bool:
    """Whether a model's name, version or alias may become a file name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text) is not None


def to_prune(
    loaded_s: Mapping[str, float], remembered: Iterable[str], now_s: float, *, older_than_s: float
) -> set[str]:
    """The versions that may go; `loaded_s` has when each was loaded last, `remembered` those that aliases mean."""
    latest = sorted(loaded_s, key=loaded_s.__getitem__, reverse=True)[:KEPT]
    old = {version for version, at_s in loaded_s.items() if now_s - at_s > older_than_s}
    return old - set(latest) - set(remembered)


class Store:
    """The copies of one model below a cache folder (which is made when something is kept)."""

    def __init__(self, cache_dir: Path, name: str) -> None:
        self.name = name
        self.directory = cache_dir / name

    def path(self, version: str) -> Path:
        """Where a version's copy is."""
        return self.directory / version

    def get(self, version: str) -> Copy | None:
        """The copy of a version, or None where there is none that is whole."""
        path = self.path(version)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            files = {name: FileInfo(f["sha256"], f["size"]) for name, f in manifest["files"].items()}
            run_id, kept = str(manifest["run_id"]), (manifest["name"], manifest["version"])
            if kept != (self.name, version) or not all(valid_name(name) for name in files):
                return None
            if any((path / name).stat().st_size != info.size for name, info in files.items()):
                return None
            found = Copy.of(self.name, version, run_id, {name: (path / name).read_bytes() for name in files})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if found.files == files else None

    def put(self, copy: Copy) -> None:
        """Keep a version; where another process was faster with the same files, theirs stays.

        Raises:
            OSError: the disk is full or the folder can't be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._put(copy)
        except OSError as error:
            if error.errno not in _FULL or not self._make_room():
                raise
            self._put(copy)

    def _put(self, copy: Copy) -> None:
        manifest = {
            "name": copy.name,
            "version": copy.version,
            "run_id": copy.run_id,
            "files": {name: {"sha256": info.sha256, "size": info.size} for name, info in copy.files.items()},
        }
        staged = self._new()
        staged.mkdir()
        try:
            for name, content in copy.contents.items():
                _write(staged / name, content)
            _write(staged / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
            _sync(staged)
            self._publish(staged, copy)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, copy: Copy) -> None:
        target = self.path(copy.version)
        for attempt in range(_REPLACEMENTS):
            try:
                staged.rename(target)
            except OSError:
                there = self.get(copy.version)
                if there is not None and there.files == copy.files:
                    return  # by another process; or by this one, and the server's answer was lost
                if attempt + 1 == _REPLACEMENTS:
                    raise
                self._discard(target)  # damaged
            else:
                _sync(self.directory)
                return

    def used(self, version: str) -> None:
        """Say that the version is loaded now, and take the occasion to tidy up; best effort."""
        with contextlib.suppress(OSError):
            os.utime(self.path(version))
            self._tidy(self.path(version).stat().st_mtime, KEPT_S)

    def point(self, alias: str, version: str) -> None:
        """Remember what an alias means now. Of several processes at once the last one is believed.

        Raises:
            OSError: the folder can't be written.
        """
        known = self.history(alias)
        if known[:1] == [version]:
            return
        versions = [version, *(other for other in known if other != version)][:HISTORY]
        staged = self._new()
        try:
            _write(staged, (json.dumps({"versions": versions}) + "\n").encode())
            staged.rename(self._pointer(alias))
        finally:
            staged.unlink(missing_ok=True)

    def history(self, alias: str) -> list[str]:
        """The versions that the alias has meant, newest first; empty where nothing is known."""
        return _read_history(self._pointer(alias))

    def _pointer(self, alias: str) -> Path:
        return self.directory / f"{alias}{_ALIAS}"

    def _new(self) -> Path:
        return self.directory / f".new-{uuid.uuid4().hex}"

    def _make_room(self) -> bool:
        """Remove what can be spared; False where there was nothing, or it wouldn't go."""
        try:
            before = set(self.directory.iterdir())
            os.utime(self.directory)  # for the file system's time
            self._tidy(self.directory.stat().st_mtime, BUSY_S)
            return set(self.directory.iterdir()) != before
        except OSError:
            return False

    def _tidy(self, now_s: float, older_than_s: float) -> None:
        """Remove what interrupted writers left, copies that were moved aside, and versions that may go."""
        loaded_s: dict[str, float] = {}
        remembered: set[str] = set()
        for path in list(self.directory.iterdir()):
            with contextlib.suppress(OSError):  # gone meanwhile
                if path.name.startswith(".old-"):
                    _remove(path)
                elif path.name.startswith(".new-"):
                    if now_s - _last_change_s(path) > BUSY_S:
                        _remove(path)
                elif path.name.endswith(_ALIAS):
                    remembered.update(_read_history(path))
                elif (path / MANIFEST).exists():
                    loaded_s[path.name] = path.stat().st_mtime
        for version in to_prune(loaded_s, remembered, now_s, older_than_s=older_than_s):
            self._discard(self.path(version))

    def _discard(self, path: Path) -> None:
        """Take a copy away in one step, so that nobody finds a part of it; best effort."""
        aside = self.directory / f".old-{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):
            path.rename(aside)
            _remove(aside)


_ALIAS = ".alias.json"


def _read_history(pointer: Path) -> list[str]:
    try:
        versions = json.loads(pointer.read_text(encoding="utf-8"))["versions"]
        return [version for version in versions if isinstance(version, str) and valid_name(version)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _last_change_s(path: Path) -> float:
    """When something was written last to a file, or to the files of a folder."""
    inside = list(path.iterdir()) if path.is_dir() else []
    return max(one.stat().st_mtime for one in (path, *inside))


def _remove(path: Path) -> None:
    """Whoever else is at it as well."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a network file system may say only now that there is no room


def _sync(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can do it for a folder
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
