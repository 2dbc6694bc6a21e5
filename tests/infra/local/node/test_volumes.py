"""Volumes from objects: contents, modes, and updates that are seen whole or not at all."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.leftovers import detach
from infra.local.node import podspec
from infra.local.node.environment import Sources
from infra.local.node.pod_volumes import mount_memory
from infra.local.node.podspec import ConfigError
from infra.local.node.volumes import (
    File,
    _make_below,
    make_folder,
    mounts,
    payload,
    references,
    token_requests,
    write_files,
)
from infra.local.runtime.spec import Mount
from switchboard.kube import Object
from tests.infra.local.node.pods import container, pod

CONFIG: Object = {
    "kind": "ConfigMap",
    "data": {"a": "1", "b": "2"},
    "binaryData": {"bin": base64.b64encode(b"\x00\xff").decode()},
}
SECRET: Object = {"kind": "Secret", "type": "Opaque", "data": {"pw": base64.b64encode(b"s").decode()}}
SOURCES = Sources(
    pod_ip="127.1.1.5",
    host_ip="127.1.0.11",
    allocatable={"cpu": "4"},
    objects={("ConfigMap", "c"): CONFIG, ("Secret", "s"): SECRET},
)


def files(volume: Object, tokens: dict[str, str] | None = None) -> dict[str, tuple[bytes, int]]:
    found = payload(pod(), {"name": "v", **volume}, SOURCES, tokens or {})
    return {path: (file.data, file.mode) for path, file in found.items()}


def test_a_whole_config_map() -> None:
    assert files({"configMap": {"name": "c"}}) == {
        "a": (b"1", 0o644),
        "b": (b"2", 0o644),
        "bin": (b"\x00\xff", 0o644),
    }


def test_items_and_modes() -> None:
    items = [{"key": "a", "path": "dir/x", "mode": 0o400}, {"key": "b", "path": "y"}]
    assert files({"configMap": {"name": "c", "items": items, "defaultMode": 0o600}}) == {
        "dir/x": (b"1", 0o400),
        "y": (b"2", 0o600),
    }


def test_a_projected_volume_joins_its_sources() -> None:
    sources = [
        {"secret": {"name": "s"}},
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "conf/a"}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "x"}},
        {
            "downwardAPI": {
                "items": [
                    {"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
                ]
            }
        },
    ]
    volume = {"name": "v", "projected": {"sources": sources, "defaultMode": 0o444}}
    found = files(volume, {"token": "abc"})
    assert {path: data for path, (data, _) in found.items()} == {
        "pw": b"s",
        "conf/a": b"1",
        "token": b"abc",
        "ns": b"ns",
        "cpu": b"4",
    }
    assert {mode for _, mode in found.values()} == {0o444}
    assert [(t.path, t.audience, t.lifetime_s) for t in token_requests(volume)] == [("token", "x", 600)]


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}, "non-existent key: z"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../out"}]}}, "stay in its volume"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "clusterTrustBundle is not supported"),
    ],
)
def test_what_is_missing_is_named(volume: Object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        files(volume)


def test_optional_sources_may_be_missing() -> None:
    assert files({"configMap": {"name": "none", "optional": True}}) == {}
    assert files({"secret": {"secretName": "none", "optional": True}}) == {}


def test_references() -> None:
    body = pod(
        volumes=[
            {"name": "1", "configMap": {"name": "c", "optional": True}},
            {"name": "2", "secret": {"secretName": "s"}},
            {"name": "3", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
            {"name": "4", "emptyDir": {}},
        ]
    )
    assert references(body) == {("ConfigMap", "c"): True, ("Secret", "s"): True}


def test_files_change_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    assert write_files(folder, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)}, None)
    assert not write_files(folder, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)}, None), (
        "nothing to do"
    )
    assert (folder / "sub/b").read_bytes() == b"2"
    assert (folder / "sub/b").stat().st_mode & 0o777 == 0o600
    assert write_files(folder, {"a": File(b"one", 0o644), "c": File(b"3", 0o644)}, None)
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith("..")) == ["a", "c"]
    assert (folder / "a").read_bytes() == b"one"
    assert len(list(folder.iterdir())) == 4, "two names, ..data and the one folder behind it"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount_memory(folder, 256 * 1024)
    yield folder
    detach(folder)


def test_a_full_disk_keeps_the_old_files_and_nothing_half_written(small_disk: Path) -> None:
    folder, new = small_disk / "v", {name: File(b"n" * 20_000, 0o644) for name in ("a", "b", "c")}
    write_files(folder, {"a": File(b"old", 0o644)}, None)
    before = set(folder.iterdir())
    (small_disk / "ballast").write_bytes(b"x" * 200_000)  # there is room for some of it
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            write_files(folder, new, None)
        assert set(folder.iterdir()) == before
        assert (folder / "a").read_bytes() == b"old"
    (small_disk / "ballast").unlink()
    assert write_files(folder, new, None), "there is room again"
    assert {name: len((folder / name).read_bytes()) for name in "abc"} == dict.fromkeys("abc", 20_000)


def test_what_was_cut_off_is_put_right(tmp_path: Path) -> None:
    """By the end of the agent, say: a folder that was being filled, a change whose names were not made yet."""
    folder, files = tmp_path / "v", {"a": File(b"1", 0o644), "b": File(b"2", 0o644)}
    write_files(folder, files, None)
    (folder / "..half").mkdir()
    (folder / "..half" / "a").write_text("ha")
    (folder / "b").unlink()
    (folder / "gone").symlink_to("..data/gone")
    assert not write_files(folder, files, None)
    assert (folder / "b").read_bytes() == b"2"
    assert len(list(folder.iterdir())) == 4, "two names, ..data and the one folder behind it"


def test_a_reader_sees_the_old_or_the_new_files(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    versions = [{name: File(str(n).encode() * 100, 0o644) for name in "ab"} for n in range(2)]
    write_files(folder, versions[0], None)
    stop, mixed = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                held = os.open(folder / "..data", os.O_RDONLY | os.O_DIRECTORY)
            except (
                FileNotFoundError
            ):  # its folder went away behind the link, which itself is there at any time
                if not (folder / "..data").is_symlink():
                    mixed.append("no data")
                continue
            try:
                seen = set()
                for name in "ab":
                    descriptor = os.open(name, os.O_RDONLY, dir_fd=held)
                    seen.add(os.read(descriptor, 200))
                    os.close(descriptor)
                if len(seen) != 1:
                    mixed.append("mixed")
            except FileNotFoundError:
                pass  # the old folder went away under the reader: it looks again
            finally:
                os.close(held)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(60):
        write_files(folder, versions[n % 2], None)
    stop.set()
    reader.join()
    assert mixed == []


def test_mounts_outer_paths_first_and_files_from_objects_read_only(tmp_path: Path) -> None:
    folders = {"data": tmp_path / "data", "conf": tmp_path / "conf"}
    for folder in folders.values():
        folder.mkdir()
    one = container(
        volumeMounts=[
            {"name": "conf", "mountPath": "/data/conf"},
            {"name": "data", "mountPath": "/data"},
            {"name": "data", "mountPath": "/sub", "subPathExpr": "$(NAME)/x", "readOnly": True},
        ]
    )
    found = mounts(one, folders, frozenset({"conf"}), {"NAME": "n"})
    assert found == [
        Mount(folders["data"], "/data", False),
        Mount(folders["data"] / "n" / "x", "/sub", True),
        Mount(folders["conf"], "/data/conf", True),
    ]


@pytest.mark.parametrize("sub", ["../other", "/etc", "link"])
def test_a_sub_path_stays_in_its_volume(tmp_path: Path, sub: str) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "link").symlink_to("/etc")
    one = container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": sub}])
    with pytest.raises(ConfigError, match="volume v: subPath"):
        mounts(one, {"v": volume}, frozenset(), {})


def test_a_sub_path_makes_nothing_outside_its_volume(tmp_path: Path) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (volume / "out").symlink_to(outside)
    (volume / "dangling").symlink_to(outside / "new")
    (volume / "circle").symlink_to("circle")
    for sub in ("out/made/here", "dangling", "dangling/deeper", "circle/x"):
        one = container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": sub}])
        with pytest.raises(ConfigError, match="volume v: subPath"):
            mounts(one, {"v": volume}, frozenset(), {})
    assert list(outside.iterdir()) == []


def test_a_sub_path_is_made_and_may_pass_a_link_inside_its_volume(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    (volume / "real").mkdir(parents=True)
    (volume / "link").symlink_to("real")
    one = container(volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": "link/a/b"}])
    (mount,) = mounts(one, {"v": volume}, frozenset(), {})
    assert mount.source == volume / "real" / "a" / "b"
    assert mount.source.stat().st_mode & 0o777 == 0o777


def test_a_link_put_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """As a pod would that swaps a folder between the look at it and its use."""
    (tmp_path / "v").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "v" / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):  # which one differs between kernels
        _make_below(tmp_path / "v", Path("a/b"))
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_unknown_volume_is_named(tmp_path: Path) -> None:
    one = container(volumeMounts=[{"name": "v", "mountPath": "/m"}])
    with pytest.raises(ConfigError, match="'v', which isn't there"):
        mounts(one, {}, frozenset(), {})


def test_a_folder_is_open_to_its_pod(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    make_folder(folder, None)
    assert folder.stat().st_mode & 0o777 == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_fs_group_owns_the_volume(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    make_folder(folder, None)
    (folder / "old").write_text("x")
    make_folder(folder, 10001)
    assert (folder.stat().st_gid, (folder / "old").stat().st_gid) == (10001, 10001)
    assert folder.stat().st_mode & 0o2070 == 0o2070, "new files get the group too"
    write_files(tmp_path / "c", {"a": File(b"1", 0o400)}, 10001)
    found = (tmp_path / "c" / "a").stat()
    assert (found.st_gid, found.st_mode & 0o777) == (10001, 0o440)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
@pytest.mark.parametrize(("policy", "given"), [(None, True), ("Always", True), ("OnRootMismatch", False)])
def test_fs_group_change_policy(tmp_path: Path, policy: str | None, given: bool) -> None:
    folder, outside = tmp_path / "v", tmp_path / "outside"
    outside.write_text("x")
    make_folder(folder, 10001)
    (folder / "deep").mkdir()
    foreign = folder / "deep" / "file"
    foreign.write_text("x")
    os.chown(foreign, -1, 0)
    foreign.chmod(0o600)
    (folder / "link").symlink_to(outside)
    os.mkfifo(folder / "fifo")
    body = pod(securityContext={"fsGroup": 10001, "fsGroupChangePolicy": policy})
    make_folder(folder, podspec.fs_group(body), always=podspec.fs_group_always(body))
    found = foreign.stat()
    assert (found.st_gid, found.st_mode & 0o777) == ((10001, 0o660) if given else (0, 0o600))
    assert outside.stat().st_gid == 0, "what a link leads to is not the volume's"
