"""Copies of models on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.store import (
    BUSY_S,
    HISTORY,
    KEPT,
    KEPT_S,
    Copy,
    Store,
    digest_of,
    fingerprint,
    to_prune,
    valid_name,
)
from tests.models.conftest import age

FILES = {"classifier.npz": b"weights" * 1000, "classifier.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", "m")


def put(store: Store, version: str, contents: Mapping[str, bytes] = FILES) -> Path:
    """Keep a version; where it is."""
    store.put(Copy.of(store.name, version, "run", contents))
    return store.path(version)


def test_what_is_put_is_got(store: Store) -> None:
    path = put(store, "3")
    found = store.get("3")
    assert found == Copy.of("m", "3", "run", FILES)
    assert found.digest == digest_of({name: fingerprint(content) for name, content in FILES.items()})
    assert {path.name for path in path.iterdir()} == {*FILES, "manifest.json"}
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
    _tamper(put(store, "3"), how)
    assert store.get("3") is None
    put(store, "3")
    assert store.get("3") is not None
    assert [path.name for path in store.directory.iterdir()] == ["3"]


def test_absent(store: Store) -> None:
    assert store.get("1") is None
    assert store.history("champion") == []


def test_other_files_of_a_version_replace_it(store: Store) -> None:
    """A registry that was made anew counts from 1 again."""
    put(store, "1")
    put(store, "1", {"classifier.npz": b"others", "classifier.json": b"{}"})
    found = store.get("1")
    assert found is not None
    assert found.contents["classifier.npz"] == b"others"
    assert [path.name for path in store.directory.iterdir()] == ["1"]


def test_many_writers_of_one_version(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: put(store, "7"), range(24)))
    assert store.get("7") is not None
    assert [path.name for path in store.directory.iterdir()] == ["7"]


def test_interrupted_writers_leave_nothing_for_long(store: Store) -> None:
    put(store, "1")
    stale, fresh, moved = (store.directory / name for name in (".new-stale", ".new-fresh", ".old-moved"))
    for path in (stale, fresh, moved):
        path.mkdir()
        (path / "classifier.npz").write_bytes(b"half")
    pointer = store.directory / ".new-pointer"
    pointer.touch()
    os.utime(pointer, (time.time() - 2 * BUSY_S,) * 2)
    age(stale, 2 * BUSY_S)
    store.used("1")
    assert not any(path.exists() for path in (stale, moved, pointer))
    assert fresh.exists(), "another process may be writing it now"
    age(fresh, 2 * BUSY_S)
    (fresh / "classifier.npz").write_bytes(b"more")
    store.used("1")
    assert fresh.exists(), "it goes on being written"


NOW_S = 1e9
DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("loaded_days_ago", "remembered", "older_than_s", "gone"),
    [
        ({"1": 400, "2": 300, "3": 200}, [], KEPT_S, set()),
        ({"1": 400, "2": 300, "3": 200, "4": 100}, [], KEPT_S, {"1"}),
        ({"1": 400, "2": 300, "3": 200, "4": 100}, ["1"], KEPT_S, set()),
        ({"1": 0, "2": 300, "3": 200, "4": 100}, [], KEPT_S, {"2"}),
        ({"1": 20, "2": 10, "3": 5, "4": 1, "5": 0}, [], KEPT_S, set()),
        ({"1": 20, "2": 10, "3": 5, "4": 1, "5": 0}, ["2"], BUSY_S, {"1"}),
        ({"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}, [], BUSY_S, set()),
    ],
    ids=[
        "the last few",
        "one more",
        "an alias means it",
        "it is loaded still",
        "young",
        "full",
        "full and busy",
    ],
)
def test_which_versions_go(
    loaded_days_ago: dict[str, float], remembered: list[str], older_than_s: float, gone: set[str]
) -> None:
    loaded_s = {version: NOW_S - days * DAY_S for version, days in loaded_days_ago.items()}
    assert to_prune(loaded_s, remembered, NOW_S, older_than_s=older_than_s) == gone


@given(
    loaded_s=st.dictionaries(st.text("123456789", min_size=1), st.floats(0, 1e9)),
    remembered=st.lists(st.text("123456789", min_size=1)),
    older_than_s=st.floats(0, 1e9),
)
def test_what_is_remembered_and_the_last_few_never_go(
    loaded_s: dict[str, float], remembered: list[str], older_than_s: float
) -> None:
    gone = to_prune(loaded_s, remembered, 1e9, older_than_s=older_than_s)
    stay = set(loaded_s) - gone
    assert not gone & set(remembered)
    assert len(stay) >= min(KEPT, len(loaded_s))
    assert all(1e9 - loaded_s[version] > older_than_s for version in gone)
    assert max((loaded_s[v] for v in gone), default=0) <= min(
        (loaded_s[v] for v in stay - set(remembered)), default=1e9
    )


def test_old_versions_go_when_another_is_loaded(store: Store) -> None:
    for number in range(1, 8):
        age(put(store, str(number)), (20 - number) * KEPT_S)
    store.point("champion", "1")
    store.used("2")
    (store.directory / "7" / "classifier.npz").unlink()
    assert {path.name for path in store.directory.iterdir()} == {"1", "2", "6", "7", "champion.alias.json"}
    assert store.get("2") is not None, "a replica that serves it was started anew"


def test_an_alias_remembers_where_it_was(store: Store) -> None:
    put(store, "1")
    for version in ("1", "2", "2", "3", "1", "4"):
        store.point("champion", version)
    assert store.history("champion") == ["4", "1", "3"]
    assert len(store.history("champion")) == HISTORY


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"versions": 3}', '{"other": []}', '{"versions": ["../x", 3]}']
)
def test_a_damaged_pointer_is_no_pointer(store: Store, content: str) -> None:
    put(store, "1")
    (store.directory / "champion.alias.json").write_text(content)
    assert store.history("champion") == []
    store.point("champion", "1")
    assert store.history("champion") == ["1"]


@given(st.text())
def test_names_never_leave_the_folder(text: str) -> None:
    if valid_name(text):
        assert "/" not in text and text not in (".", "..") and not text.startswith(".")
