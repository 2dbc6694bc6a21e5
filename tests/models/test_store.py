"""Copies of models on disk."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.store import HISTORY, Store, digest_of, fingerprint, valid_name

FILES = {"classifier.npz": b"weights" * 1000, "classifier.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", "m")


def test_what_is_put_is_got(store: Store) -> None:
    put = store.put("3", "run", FILES)
    assert store.get("3") == put
    assert put.run_id == "run"
    assert put.digest == digest_of({name: fingerprint(content) for name, content in FILES.items()})
    assert {path.name for path in put.path.iterdir()} == {*FILES, "manifest.json"}
    assert [path.name for path in store.directory.iterdir()] == ["3"], "nothing is left of the writing"


def _tamper(path: Path, how: str) -> None:
    weights, manifest = path / "classifier.npz", path / "manifest.json"
    match how:
        case "a byte":
            weights.write_bytes(b"W" + weights.read_bytes()[1:])
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "gone":
            weights.unlink()
        case "no manifest":
            manifest.unlink()
        case "manifest not json":
            manifest.write_text("{")
        case "manifest of another":
            manifest.write_text(manifest.read_text().replace('"3"', '"4"'))
        case "path in manifest":
            raw = json.loads(manifest.read_text())
            raw["files"]["../../secret"] = {"sha256": "", "size": 0}
            manifest.write_text(json.dumps(raw))


DAMAGES = [
    "a byte",
    "cut",
    "gone",
    "no manifest",
    "manifest not json",
    "manifest of another",
    "path in manifest",
]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_copy_is_absent_and_replaced(store: Store, how: str) -> None:
    _tamper(store.put("3", "run", FILES).path, how)
    assert store.get("3") is None
    store.put("3", "run", FILES)
    assert store.get("3") is not None
    assert [path.name for path in store.directory.iterdir()] == ["3"]


def test_absent(store: Store) -> None:
    assert store.get("1") is None
    assert store.history("champion") == []


def test_many_writers_of_one_version(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(lambda _: store.put("7", "run", FILES), range(24)))
    assert all(copy == copies[0] for copy in copies)
    assert store.get("7") is not None
    assert [path.name for path in store.directory.iterdir()] == ["7"]


def test_interrupted_writers_leave_nothing_for_long(store: Store) -> None:
    store.put("1", "run", FILES)
    stale, fresh = store.directory / ".new-stale", store.directory / ".new-fresh"
    for path in (stale, fresh):
        path.mkdir()
        (path / "classifier.npz").write_bytes(b"half")
    os.utime(stale, (time.time() - 7200,) * 2)
    store.put("2", "run", FILES)
    assert not stale.exists()
    assert fresh.exists(), "another process may be writing it now"


def test_an_alias_remembers_where_it_was(store: Store) -> None:
    store.put("1", "run", FILES)
    for version in ("1", "2", "2", "3", "1", "4"):
        store.point("champion", version)
    assert store.history("champion") == ["4", "1", "3"]
    assert len(store.history("champion")) == HISTORY


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"versions": 3}', '{"other": []}', '{"versions": ["../x", 3]}']
)
def test_a_damaged_pointer_is_no_pointer(store: Store, content: str) -> None:
    store.put("1", "run", FILES)
    (store.directory / "champion.alias.json").write_text(content)
    assert store.history("champion") == []
    store.point("champion", "1")
    assert store.history("champion") == ["1"]


@given(st.text())
def test_names_never_leave_the_folder(text: str) -> None:
    if valid_name(text):
        assert "/" not in text and text not in (".", "..") and not text.startswith(".")
