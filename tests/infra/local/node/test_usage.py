"""What a pod keeps on the disk, held against its manifest."""

from __future__ import annotations

import os
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


CASES: list[tuple[Object, dict[str, int], str | None]] = [
    (with_dir(), {"cache": MI, "logs": 5 * MI}, None),
    (with_dir(), {"cache": MI + 1}, 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". '),
    (with_dir(medium="Memory"), {"cache": 2 * MI}, None),  # its file system is that large and no larger
    (with_dir(size=None), {"cache": 2**40}, None),
    (with_dir(size=None, limit="2Mi"), {"cache": MI, "logs": MI}, None),
    (with_dir(size=None, limit="2Mi"), {"cache": MI, "logs": MI + 1}, "total limit of containers 2097152"),
    (pod(container()), {"logs": 2**40}, None),
]


@pytest.mark.parametrize(("body", "used", "why"), CASES)
def test_who_has_to_go(body: Object, used: dict[str, int], why: str | None) -> None:
    found = usage.excess(body, used)
    if why is None:
        assert found is None
    else:
        assert found is not None and found.reason == "Evicted" and why in found.message


def test_who_is_looked_at() -> None:
    assert [usage.limited(body) for body, _, _ in CASES] == [True, True, False, False, True, True, False]


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
