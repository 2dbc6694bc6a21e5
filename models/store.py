"""Copies of models on disk: whole or not there, checked by hash, safe with several processes on one folder.

    <cache>/<name>/<version>/classifier.npz, classifier.json, manifest.json
    <cache>/<name>/<alias>.alias.json        which versions the alias has meant, newest first

A version's folder appears by one rename and is never changed after. A copy whose hashes don't fit its manifest counts
as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.rest import FileInfo

MANIFEST = "manifest.json"
HISTORY = 3
"""How many versions an alias remembers: what is left to serve from when the newest copy is damaged."""
_STALE_S = 3600.0


@dataclass(frozen=True)
class Copy:
    """A verified copy of one version."""

    name: str
    version: str
    run_id: str
    files: Mapping[str, FileInfo]
    path: Path

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


class Store:
    """The copies of one model below a cache folder (which is made when something is kept)."""

    def __init__(self, cache_dir: Path, name: str) -> None:
        self.name = name
        self.directory = cache_dir / name

    def get(self, version: str) -> Copy | None:
        """The copy of a version, or None where there is none that is whole."""
        path = self.directory / version
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            files = {name: FileInfo(f["sha256"], f["size"]) for name, f in manifest["files"].items()}
            run_id, kept = str(manifest["run_id"]), (manifest["name"], manifest["version"])
            if kept != (self.name, version) or not all(valid_name(name) for name in files):
                return None
            for name, info in files.items():
                if (path / name).stat().st_size != info.size:
                    return None
                if fingerprint((path / name).read_bytes()) != info:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return Copy(self.name, version, run_id, files, path)

    def put(self, version: str, run_id: str, contents: Mapping[str, bytes]) -> Copy:
        """Keep a version; where another process was faster with the same files, theirs is taken.

        Raises:
            OSError: the disk is full or the folder can't be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        files = {name: fingerprint(content) for name, content in contents.items()}
        manifest = {
            "name": self.name,
            "version": version,
            "run_id": run_id,
            "files": {name: {"sha256": info.sha256, "size": info.size} for name, info in files.items()},
        }
        staged = self.directory / f".new-{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            for name, content in contents.items():
                _write(staged / name, content)
            _write(staged / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
            _sync(staged)
            target = self.directory / version
            for _ in range(3):
                try:
                    staged.rename(target)
                    _sync(self.directory)
                    break
                except OSError:
                    there = self.get(version)
                    if there is not None and there.files == files:
                        return there
                    if not target.exists():
                        raise
                    # A damaged copy is moved aside; a reader that has it open goes on reading.
                    with contextlib.suppress(FileNotFoundError):
                        target.rename(self.directory / f".old-{uuid.uuid4().hex}")
            self._sweep()
            return Copy(self.name, version, run_id, files, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def point(self, alias: str, version: str) -> None:
        """Remember what an alias means now.

        Raises:
            OSError: the folder can't be written.
        """
        known = self.history(alias)
        if known[:1] == [version]:
            return
        versions = [version, *(other for other in known if other != version)][:HISTORY]
        staged = self.directory / f".new-{uuid.uuid4().hex}"
        _write(staged, (json.dumps({"versions": versions}) + "\n").encode())
        staged.rename(self._pointer(alias))

    def history(self, alias: str) -> list[str]:
        """The versions that the alias has meant, newest first; empty where nothing is known."""
        try:
            versions = json.loads(self._pointer(alias).read_text(encoding="utf-8"))["versions"]
            return [version for version in versions if isinstance(version, str) and valid_name(version)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _pointer(self, alias: str) -> Path:
        return self.directory / f"{alias}.alias.json"

    def _sweep(self) -> None:
        """Remove what interrupted writers left, and damaged copies that were moved aside."""
        for path in [*self.directory.glob(".new-*"), *self.directory.glob(".old-*")]:
            with contextlib.suppress(OSError):
                if path.name.startswith(".old-") or time.time() - path.stat().st_mtime > _STALE_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
