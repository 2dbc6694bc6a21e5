"""The node's pods on disk: manifest, record, volumes and logs of each, one folder a pod.

    pods/<uid>/pod.json       the manifest as last seen
    pods/<uid>/record.json    what the agent remembers (`PodRecord`)
    pods/<uid>/etc-hosts, volumes/<name>, logs/<container>/<attempt>.log, messages/<container>

With them an agent that comes back knows its pods before the site answers, and starts them alone if it doesn't.
What is broken means nothing; what can't be read now (an error of the disk, no file descriptor left) may be whole.
Config maps, secrets and Services that pods needed are kept too (`objects/`, 0600), for a start while cut off.
Files are replaced by rename: a crash leaves the old or the new one. Manifests and copies are on the disk before they
take their names (they can't be made up again while cut off); records aren't waited for, since they change with every
probe's verdict: one that a power cut spoilt costs its pod a restart count and its address, not its life.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.local.node import podspec
from infra.local.node.records import PodRecord
from switchboard.kube import Object

log = logging.getLogger(__name__)


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file by rename; `durable`: its contents are on the disk first.

    Raises:
        OSError: the disk is full, say; the old file is as it was, and nothing else is left.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fdatasync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class PodDir:
    """The folder of one pod."""

    path: Path

    def make(self) -> None:
        for part in ("volumes", "logs", "messages"):
            (self.path / part).mkdir(parents=True, exist_ok=True)

    @property
    def hosts(self) -> Path:
        return self.path / "etc-hosts"

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    def log(self, container: str, attempt: int) -> Path:
        return self.path / "logs" / container / f"{attempt}.log"

    def message(self, container: str) -> Path:
        """Where the container writes its termination message."""
        return self.path / "messages" / container

    def save_pod(self, pod: Object) -> None:
        self.make()
        slim = {**pod, "metadata": {k: v for k, v in pod["metadata"].items() if k != "managedFields"}}
        write_atomically(self.path / "pod.json", json.dumps(slim))

    def save_record(self, record: PodRecord) -> None:
        self.make()
        write_atomically(self.path / "record.json", record.model_dump_json(), durable=False)

    def load(self) -> tuple[Object, PodRecord] | None:
        """Manifest and record; None where there is no whole manifest.

        A record that is missing or broken begins anew: the pod's volumes and its place on the node stay.

        Raises:
            OSError: a file is there and can't be read: nobody knows whether it is whole.
        """
        try:
            pod = json.loads((self.path / "pod.json").read_text())
            podspec.uid(pod)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            log.error("checkpoint %s is broken and left out: %s", self.path.name, error)
            return None
        try:
            return pod, PodRecord.model_validate_json((self.path / "record.json").read_text())
        except (ValueError, FileNotFoundError) as error:
            log.error("the record of pod %s is broken and begins anew: %s", podspec.label(pod), error)
            return pod, PodRecord.new(pod, datetime.now(UTC))

    def drop_old_logs(self, container: str, attempt: int) -> None:
        """Keep the logs of the current run and of the one before."""
        for path in (self.path / "logs" / container).glob("*.log*"):
            number = path.name.partition(".")[0]
            if number.isdigit() and int(number) < attempt - 1:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Loaded:
    """What a node's checkpoint says; `unread` are the uids of pods whose files couldn't be read, and why."""

    pods: list[tuple[Object, PodRecord]]
    unread: dict[str, OSError]


@dataclass(frozen=True)
class Checkpoint:
    """All pods of a node; `directory` is made if it is missing, for its owner alone."""

    directory: Path

    def make(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)

    def pod(self, uid: str) -> PodDir:
        return PodDir(self.directory / uid)

    def load(self) -> Loaded:
        """Every pod with a whole checkpoint, and those of which nobody can say now.

        Raises:
            OSError: the folder itself can't be read.
        """
        pods, unread = [], {}
        for path in sorted(p for p in self.directory.iterdir() if p.is_dir()):
            try:
                loaded = PodDir(path).load()
            except OSError as error:
                unread[path.name] = error
                continue
            if loaded is not None:
                pods.append(loaded)
        return Loaded(pods, unread)


@dataclass(frozen=True)
class ObjectCache:
    """Copies of API objects on disk, by a name of ours."""

    directory: Path

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def save(self, name: str, value: Any) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._path(name), json.dumps(value))

    def load(self, name: str) -> Any:
        """The copy, or None."""
        try:
            return json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            return None

    def drop(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
