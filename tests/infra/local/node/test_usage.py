"""What a pod keeps on the disk, held against its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import scandir
from pathlib import Path
from typing import Any

import pytest

from infra.local.node import usage
from switchboard.kube import Object
from tests.infra.local.node.pods import container, pod

MI = 1024 * 1024


def with_dir(size: str | None = "1Mi", limit: str | None = None, **empty: Any) -> Object:
    resources = {"limits": {"ephemeral-storage": limit}} if limit else {}
    if size:
        empty["sizeLimit"] = size
    return pod(container(resources=resources), volumes=[{"name": "cache", "emptyDir": empty}])


def limited(name: str, limit: str, **more: Any) -> Object:
    return container(name, resources={"limits": {"ephemeral-storage": limit}}, **more)


SIDECAR = {"restartPolicy": "Always"}
INIT_SMALLER = pod(limited("a", "2Mi"), limited("b", "1Mi"), init=[limited("first", "2Mi")])
INIT_LARGER = pod(limited("a", "1Mi"), init=[limited("first", "5Mi"), limited("second", "2Mi")])
BESIDE = pod(limited("a", "1Mi"), init=[limited("side", "2Mi", **SIDECAR), limited("first", "2Mi")])

CASES: list[tuple[Object, dict[str, int], str | None]] = [
    (with_dir(), {"cache": MI, "logs": 5 * MI}, None),
    (with_dir(), {"cache": MI + 1}, 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". '),
    (with_dir(medium="Memory"), {"cache": 2 * MI}, None),  # its file system is that large and no larger
    (with_dir(size=None), {"cache": 2**40}, None),
    (with_dir(size=None, limit="2Mi"), {"cache": MI, "logs": MI}, None),
    (with_dir(size=None, limit="2Mi"), {"cache": MI, "logs": MI + 1}, "total limit of containers 2097152"),
    (pod(container()), {"logs": 2**40}, None),
    (INIT_SMALLER, {"logs": 3 * MI}, None),
    (INIT_SMALLER, {"logs": 3 * MI + 1}, "total limit of containers 3145728"),
    (INIT_LARGER, {"logs": 5 * MI}, None),
    (INIT_LARGER, {"logs": 5 * MI + 1}, "total limit of containers 5242880"),
    (BESIDE, {"logs": 4 * MI}, None),
    (BESIDE, {"logs": 4 * MI + 1}, "total limit of containers 4194304"),
    (INIT_SMALLER, {"logs": 2 * MI, "logs/a": MI, "logs/b": MI}, None),
    (
        INIT_SMALLER,
        {"logs": 2 * MI, "logs/b": MI + 1},
        'Container b exceeded its local ephemeral storage limit "1Mi". ',
    ),
    (pod(limited("a", "0")), {"logs": 2**40, "logs/a": 2**40}, None),
]


@pytest.mark.parametrize(("body", "used", "why"), CASES)
def test_who_has_to_go(body: Object, used: dict[str, int], why: str | None) -> None:
    found = usage.excess(body, used)
    if why is None:
        assert found is None
    else:
        assert found is not None and found.reason == "Evicted" and why in found.message


def test_who_is_looked_at() -> None:
    unlimited = {2, 3, 6, len(CASES) - 1}
    assert {number for number, (body, _, _) in enumerate(CASES) if not usage.limited(body)} == unlimited


def test_what_is_counted(tmp_path: Path) -> None:
    cache = tmp_path / "volumes" / "cache"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "file").write_bytes(b"x" * MI)
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 4 * MI)
    (cache / "link").symlink_to(outside)
    os.link(cache / "deep" / "file", cache / "again")
    with (cache / "sparse").open("wb") as file:
        file.truncate(64 * MI)
    used = usage.measure(with_dir(), tmp_path)
    assert MI <= used["cache"] < 1.2 * MI, "no links, no holes, and each file once"
    assert used["logs"] == 0, "not there yet"


def test_each_container_s_logs_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "logs" / name
        folder.mkdir(parents=True)
        (folder / "0.log").write_bytes(b"x" * MI)
    used = usage.measure(pod(limited("a", "2Mi"), container("b")), tmp_path)
    assert MI <= used["logs/a"] < 1.1 * MI and 2 * MI <= used["logs"] < 2.1 * MI
    assert "logs/b" not in used


class Vanishing:
    """`os.scandir`, by name, whose every second file is removed as soon as it was named."""

    def __init__(self, folder: str) -> None:
        self._entries = scandir(folder)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self._look()

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def _look(self) -> Iterator[os.DirEntry[str]]:
        for number, entry in enumerate(sorted(self._entries, key=lambda one: one.name)):
            if number % 2 == 0:
                Path(entry.path).unlink()
            yield entry


def test_what_vanishes_meanwhile_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"x" * MI)
    monkeypatch.setattr(os, "scandir", Vanishing)
    assert 5 * MI <= usage.size_bytes(tmp_path) < 5.5 * MI
