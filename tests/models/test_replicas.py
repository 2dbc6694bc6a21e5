"""Many replicas with one folder for their copies: processes that start at once, are killed, come while others go.

What is shared is a folder of this machine here; nothing of it is locked, so it is as well on a network file system
whose renames are atomic.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.leftovers import detach
from infra.local.node.pod_volumes import mount_memory
from models.loading import load
from models.store import BUSY_S, KEPT_S, Copy, Store
from switchboard.paths import ROOT
from tests.fixtures_mlflow import Cuttable
from tests.models.conftest import Register, age

WAIT_S = 300.0
NAME = "m"
BEGIN = """
import os, sys
from pathlib import Path
import numpy
from models.loading import load
from models.store import Copy, Store
print("ready", flush=True)
sys.stdin.readline()
"""


class Replica:
    """A process that is ready for `script`, which has `sys.argv[1:]`, and begins with it when it is told."""

    def __init__(self, script: str, *arguments: object, tracking_uri: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + script, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """What it printed, when it has ended well."""
        output = self.process.communicate(timeout=WAIT_S)[0]
        assert self.process.returncode == 0, output
        return str(output).strip()


Start = Callable[..., Replica]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start replicas; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: object, **more: str) -> Replica:
            made = Replica(*arguments, **more)  # type: ignore[arg-type]
            stack.callback(made.process.wait)
            stack.callback(made.process.kill)
            made.until_ready()
            return made

        yield make


def until(holds: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.001)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


LOAD = """
model = load(sys.argv[1], Path(sys.argv[2]), timeout_s=1200)
assert model.predict(["I lost my card"])
print(model.source, model.version, model.digest)
"""
PATIENT = """
import models.loading, models.rest
models.loading.PATIENCE_S = 250.0
models.rest.Registry.__init__.__kwdefaults__["timeout_s"] = 250.0
"""
"""So that a replica doesn't go by what another has kept meanwhile, where the registry answers eight slowly."""
REPLICAS = 8


@pytest.mark.parametrize("before", ["nothing", "a damaged copy"])
def test_replicas_that_start_at_once(
    start: Start, mlflow_server: str, register: Register, model_name: str, tmp_path: Path, before: str
) -> None:
    """Each gets the model; a copy is never there in part, and nothing else is left."""
    made = register(alias="champion")
    uri, store = f"models:/{model_name}@champion", Store(tmp_path, model_name)
    if before == "a damaged copy":
        load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
        weights = store.path(made.version) / "classifier.npz"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    replicas = [start(PATIENT + LOAD, uri, tmp_path, tracking_uri=mlflow_server) for _ in range(REPLICAS)]
    over, parts = threading.Event(), list[str]()

    def watch() -> None:
        while not over.is_set():
            if store.path(made.version).exists() and store.get(made.version) is None:
                parts.append("a copy that is not whole")

    watching = threading.Thread(target=watch)
    if before == "nothing":
        watching.start()
    for replica in replicas:
        replica.begin()
    said = {replica.said() for replica in replicas}
    over.set()
    if before == "nothing":
        watching.join()
    assert parts == []
    kept = store.get(made.version)
    assert kept is not None
    assert said == {f"registry {made.version} {kept.digest}"}
    assert names(store.directory) == {made.version, "champion.alias.json"}


def test_a_replica_that_waits_for_the_registry_takes_the_copy_that_another_keeps_meanwhile(
    start: Start, link: Cuttable, mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    made = register(alias="champion")
    uri = f"models:/{model_name}@champion"
    link.down()
    waiting = start(LOAD, uri, tmp_path, tracking_uri=link.url)
    waiting.begin()
    other = start(LOAD, uri, tmp_path, tracking_uri=mlflow_server)
    other.begin()
    assert other.said().startswith(f"registry {made.version} ")
    assert waiting.said().startswith(f"disk {made.version} "), "long before its 300 s are over"


PUT = """
store, version, size = Store(Path(sys.argv[1]), "m"), sys.argv[2], int(sys.argv[3])
try:
    store.put(Copy.of("m", version, "run", {"weights": version.encode() * size, "settings": b"{}"}))
except OSError as error:
    print("not kept:", type(error).__name__)
else:
    print("kept")
"""
LARGE = 64 << 20


def stopped_while_writing(start: Start, store: Store, version: str) -> Replica:
    """A replica that stands still with a half-written copy."""
    while True:  # until one is caught in the middle
        before = names(store.directory)
        replica = start(PUT, store.directory.parent, version, LARGE)
        replica.begin()
        until(lambda seen=before: names(store.directory) - seen, "it doesn't write")  # type: ignore[misc]
        replica.process.send_signal(signal.SIGSTOP)
        until(lambda pid=replica.process.pid: _stands_still(pid), "it doesn't stop")  # type: ignore[misc]
        if not store.path(version).exists():
            return replica
        replica.process.kill()
        replica.process.wait()
        shutil.rmtree(store.path(version))


def _stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_what_a_killed_writer_leaves_goes_and_a_live_one_goes_on(start: Start, tmp_path: Path) -> None:
    store = Store(tmp_path, NAME)
    killed = stopped_while_writing(start, store, "1")
    (left,) = store.directory.glob(".new-*")
    assert names(left) <= {"weights", "settings"}
    killed.process.kill()
    killed.process.wait()
    assert left.exists()
    age(left, 2 * BUSY_S)
    live = stopped_while_writing(start, store, "2")
    store.put(Copy.of(NAME, "3", "run", {"weights": b"3"}))
    store.used("3")
    assert not left.exists()
    live.process.send_signal(signal.SIGCONT)
    assert live.said() == "kept"
    assert store.get("2") is not None
    assert names(store.directory) == {"2", "3"}


def test_a_writer_that_stood_still_for_too_long_keeps_nothing(start: Start, tmp_path: Path) -> None:
    store = Store(tmp_path, NAME)
    stalled = stopped_while_writing(start, store, "1")
    (left,) = store.directory.glob(".new-*")
    age(left, 2 * BUSY_S)
    store.put(Copy.of(NAME, "2", "run", {"weights": b"2"}))
    store.used("2")
    assert not left.exists()
    stalled.process.send_signal(signal.SIGCONT)
    assert stalled.said().startswith("not kept: ")
    assert names(store.directory) == {"2"}


PUT_MANY = """
store = Store(Path(sys.argv[1]), "m")
for number in range(int(sys.argv[2]), 1000):
    store.put(Copy.of("m", str(number), "run", {"weights": b"%d" % number * (1 << 20)}))
"""


def test_writers_that_are_killed_at_any_moment(start: Start, tmp_path: Path) -> None:
    """Every copy that is there is whole, and what else is there goes."""
    store = Store(tmp_path, NAME)
    for first in range(1, 400, 100):
        writers = [start(PUT_MANY, tmp_path, first) for _ in range(3)]
        for writer in writers:
            writer.begin()
        for number, writer in enumerate(writers):
            until(store.path(str(first + 2 * number)).exists, "nothing is kept")
            writer.process.kill()
            writer.process.wait()
    found = names(store.directory)
    kept = {name for name in found if not name.startswith(".")}
    assert len(kept) >= 4
    assert all(store.get(version) is not None for version in kept)
    for left in found - kept:
        age(store.directory / left, 2 * BUSY_S)
    store.used("1")
    assert names(store.directory) == kept


READ = """
store, version = Store(Path(sys.argv[1]), "m"), sys.argv[2]
while not (Path(sys.argv[1]) / "over").exists():
    if store.get(version) is None:
        sys.exit("gone")
    store.used(version)
print("there all the while")
"""


def test_a_version_that_replicas_start_on_stays_while_others_are_promoted(
    start: Start, tmp_path: Path
) -> None:
    """Both the one that replicas load and those that an alias remembers, however many come after."""
    store = Store(tmp_path, NAME)
    for number in range(1, 4):
        store.put(Copy.of(NAME, str(number), "run", {"weights": b"x"}))
        store.point("champion", str(number))
    readers = [start(READ, tmp_path, "1") for _ in range(2)]
    for reader in readers:
        reader.begin()
    for number in range(10, 60):
        age(store.path("2"), KEPT_S)
        store.put(Copy.of(NAME, str(number), "run", {"weights": b"x"}))
        store.used(str(number))
        age(store.path(str(number)), 2 * KEPT_S)
    (tmp_path / "over").touch()
    assert [reader.said() for reader in readers] == ["there all the while"] * 2
    assert {"1", "2", "3"} <= names(store.directory)
    assert len(names(store.directory)) < 10, "the others went"


# A volume that can't be written


def kept_on(volume: Path) -> list[str]:
    return sorted(str(path.relative_to(volume)) for path in volume.glob("*/*"))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for two copies of the small model."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount_memory(folder, 4 << 20)
    yield folder
    detach(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")


@needs_root
def test_a_full_volume_costs_only_the_copy(
    volume: Path, link: Cuttable, register: Register, model_name: str
) -> None:
    made = register(alias="champion")
    uri = f"models:/{model_name}@champion"
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\1" * 4096)
    model = load(uri, volume, timeout_s=120, tracking_uri=link.url)
    assert (model.source, model.version) == ("registry", made.version)
    assert kept_on(volume) == []
    ballast.unlink()
    load(uri, volume, timeout_s=120, tracking_uri=link.url)
    assert kept_on(volume) == [f"{model_name}/{made.version}", f"{model_name}/champion.alias.json"]
    link.down()
    assert load(uri, volume, timeout_s=120, tracking_uri=link.url).source == "disk"


@needs_root
def test_a_read_only_volume(volume: Path, link: Cuttable, register: Register, model_name: str) -> None:
    first = register(alias="champion")
    uri = f"models:/{model_name}@champion"
    load(uri, volume, timeout_s=120, tracking_uri=link.url)
    before = kept_on(volume)
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    assert load(uri, volume, timeout_s=120, tracking_uri=link.url).source == "registry"
    second = register(alias="champion")
    model = load(uri, volume, timeout_s=120, tracking_uri=link.url)
    assert (model.source, model.version) == ("registry", second.version)
    assert kept_on(volume) == before
    link.down()
    model = load(uri, volume, timeout_s=120, tracking_uri=link.url)
    assert (model.source, model.version) == ("disk", first.version), "the last that could be kept"


@needs_root
def test_on_a_full_volume_old_versions_make_room(volume: Path) -> None:
    store, content = Store(volume, NAME), {"weights": b"x" * (700 << 10)}

    def put(number: int) -> None:
        store.put(Copy.of(NAME, str(number), "run", content))
        store.point("champion", str(number))

    for number in range(1, 6):
        put(number)
    with pytest.raises(OSError, match="No space"):
        put(6)
    assert names(store.directory) == {"1", "2", "3", "4", "5", "champion.alias.json"}, "all may be in use"
    for number in range(1, 6):
        age(store.path(str(number)), (10 - number) * BUSY_S)
    put(6)
    assert names(store.directory) == {"3", "4", "5", "6", "champion.alias.json"}


@needs_root
def test_a_pointer_that_cannot_be_written_leaves_nothing(volume: Path) -> None:
    store = Store(volume, NAME)
    store.put(Copy.of(NAME, "1", "run", {"weights": b"x"}))
    store.point("champion", "1")
    with (volume / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\1" * 4096)
    with pytest.raises(OSError, match="No space"):
        store.point("champion", "2")
    assert names(store.directory) == {"1", "champion.alias.json"}
    assert store.history("champion") == ["1"]
