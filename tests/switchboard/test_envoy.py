from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.toolchain import locate
from switchboard import envoy
from switchboard.envoy import Admin, Endpoint
from tests.pods import until


def test_write_replaces_the_file_and_only_where_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert envoy.write(path, {"b": 1, "a": 2})
    first = path.stat().st_ino
    assert not envoy.write(path, {"a": 2, "b": 1}), "the order of keys says nothing"
    assert path.stat().st_ino == first
    assert envoy.write(path, {"a": 3})
    assert path.stat().st_ino != first, "Envoy sees a rename, not a change in place"
    assert envoy.write(path, {"a": 3}, again=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_version_follows_content() -> None:
    one, same, other = (
        envoy.resources("Cluster", [{"name": name}])["version_info"] for name in ("a", "a", "b")
    )
    assert one == same != other


def test_describe() -> None:
    some = envoy.load_assignment("c", [Endpoint("127.0.0.1", 1), Endpoint("127.0.0.2", 2)])
    assert envoy.describe(envoy.resources("ClusterLoadAssignment", [some])) == "127.0.0.1:1 127.0.0.2:2"
    none = envoy.load_assignment("c", [])
    assert envoy.describe(envoy.resources("ClusterLoadAssignment", [none])) == "none"


class TestAdmin:
    """With a real Envoy, in a folder whose name is too long for a Unix socket's path."""

    @pytest.fixture
    async def directory(self, tmp_path: Path) -> AsyncIterator[Path]:
        directory = tmp_path / ("long" * 30)
        directory.mkdir()
        envoy.write(directory / "clusters.json", envoy.resources("Cluster", ()))
        envoy.write(directory / "listeners.json", envoy.resources("Listener", ()))
        dynamic = {
            "cds_config": envoy.file_source("./clusters.json"),
            "lds_config": envoy.file_source("./listeners.json"),
        }
        boot = envoy.bootstrap(
            "test", admin_socket="./admin.sock", stats=(), max_connections=10, dynamic=dynamic
        )
        envoy.write(directory / "bootstrap.json", boot)
        argv = [str(locate(["envoy"]).path("envoy")), "-c", "bootstrap.json", *envoy.ARGUMENTS]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=directory, stdout=log, stderr=log)  # noqa: ASYNC220
        try:
            yield directory
        finally:
            process.kill()
            process.wait()

    async def test_versions_are_seen_and_failures_named(self, directory: Path) -> None:
        async with Admin(directory / "admin.sock") as admin:
            await until(admin.live)
            clusters = envoy.resources(
                "Cluster",
                [{"name": "a", "type": "STATIC", "load_assignment": envoy.load_assignment("a", ())}],
            )
            wanted = {envoy.CDS_VERSION: clusters["version_info"]}
            assert not await admin.taken(wanted, timeout_s=0.01)
            envoy.write(directory / "clusters.json", clusters)
            assert await admin.taken(wanted, timeout_s=60)

            listener = {"name": "bad", "address": envoy.address("192.0.2.1", 1), "filter_chains": [{}]}
            envoy.write(directory / "listeners.json", envoy.resources("Listener", [listener]))
            failed = await until(admin.failed_listeners)
            assert "192.0.2.1:1" in failed["bad"]

    async def test_its_socket_is_its_users_own(self, directory: Path) -> None:
        async with Admin(directory / "admin.sock") as admin:
            await until(admin.live)
        assert os.stat(directory / "admin.sock").st_mode & 0o777 == 0o600  # noqa: PTH116

    async def test_no_envoy_is_an_error_and_not_live(self, tmp_path: Path) -> None:
        async with Admin(tmp_path / "none.sock") as admin:
            assert not await admin.live()
            assert not await admin.taken({envoy.WARMING: "0"}, timeout_s=0.01)
            with pytest.raises(OSError):
                await admin.request("/ready")
