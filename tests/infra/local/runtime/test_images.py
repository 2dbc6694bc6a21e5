"""The image table: names, what each shows, and what it says about an image that it doesn't know."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from infra.local.runtime import UnknownImage, packages, resolve
from infra.local.runtime.images import PACKAGES, _hops, repository, tag
from switchboard.paths import ROOT


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("debian", "debian"),
        ("debian:12", "debian"),
        ("docker.io/library/debian:12", "debian"),
        ("index.docker.io/library/busybox", "busybox"),
        ("envoyproxy/envoy:v1.40.0", "envoyproxy/envoy"),
        ("docker.io/envoyproxy/envoy@sha256:0123", "envoyproxy/envoy"),
        ("switchboard.dev/switchboard:0.1.0@sha256:0123", "switchboard.dev/switchboard"),
        ("localhost:5000/x", "localhost:5000/x"),  # a port is not a tag
    ],
)
def test_repository(reference: str, name: str) -> None:
    assert repository(reference) == name


@pytest.mark.parametrize(
    "reference", ["ghost:1", "evil.example/switchboard.dev/switchboard:1", "", "debian/debian"]
)
def test_unknown_image_names_itself_and_the_known(reference: str) -> None:
    with pytest.raises(UnknownImage) as caught:
        resolve(reference)
    assert repr(reference) in str(caught.value)
    assert "debian" in str(caught.value)
    assert caught.value.reference == reference


def test_switchboards_image_shows_its_packages_and_nothing_else_of_the_checkout() -> None:
    image = resolve("switchboard.dev/switchboard:0.1.0")
    shown = {place for _, place in image.binds}
    of_checkout = {place for place in shown if place == str(ROOT) or place.startswith(f"{ROOT}/")}
    venv = {sys.prefix} if sys.prefix.startswith(f"{ROOT}/") else set()
    there = {str(ROOT / name) for name in (*PACKAGES, "pyproject.toml") if (ROOT / name).exists()}
    assert of_checkout == there | venv
    assert all(str(source) == place for source, place in image.binds)  # same paths as on the host
    assert image.env["PATH"].startswith(f"{sys.prefix}/bin:")
    assert (image.entrypoint, image.user) == ((), 10001)
    assert image.env["PYTHONDONTWRITEBYTECODE"] == image.env["PYTHONUNBUFFERED"] == "1"


def test_every_hop_to_the_interpreter_is_shown(tmp_path: Path) -> None:
    real = tmp_path / "opt" / "python-3.11.7" / "bin" / "python3.11"
    real.parent.mkdir(parents=True)
    real.touch()
    alias = tmp_path / "opt" / "python-3.11"  # a folder that is a link, as some installers leave
    alias.symlink_to("python-3.11.7")
    other = tmp_path / "other" / "python3"
    other.parent.mkdir()
    other.symlink_to(alias / "bin" / "python3.11")
    program = tmp_path / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to("../../other/python3")

    binds, links = _hops(program, [tmp_path / "venv"])
    assert binds == ((real, str(real)),)
    assert links == ((str(other), str(alias / "bin" / "python3.11")), (str(alias), "python-3.11.7"))
    binds, links = _hops(program, [tmp_path / "venv", real.parent.parent])
    assert binds == ()


def test_the_machines_secrets_are_not_in_an_image() -> None:
    places = {place for _, place in resolve("debian:12").binds}
    assert "/etc/ssl/certs" in places or "/etc/pki/tls/certs" in places
    for secret in (
        "/",
        "/etc",
        "/etc/ssl",
        "/etc/ssl/private",
        "/root",
        "/home",
        "/usr/local",
        "/var",
        "/proc",
        "/sys",
    ):
        assert secret not in places


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("redis", ""),
        ("redis:7", "7"),
        ("docker.io/library/postgres:15-bookworm@sha256:01", "15-bookworm"),
        ("localhost:5000/redis", ""),  # a port is not a tag
    ],
)
def test_tag(reference: str, expected: str) -> None:
    assert tag(reference) == expected


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("", True),
        ("latest", True),
        ("7", True),
        ("7.0-alpine", True),
        ("7.2", False),
        ("8", False),
        ("70", False),
    ],
)
def test_a_tag_names_the_version_that_debian_has(wanted: str, fits: bool) -> None:
    assert packages.fits(wanted, "5:7.0.15-1~deb12u10") is fits


def in_cache(folder: Path, package: str) -> Path:
    """A root as a fetch leaves it."""
    root = folder / "tools" / "images" / f"{package}_{platform.machine()}" / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    return root


def test_a_server_of_debian_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache alone: nothing is fetched, and another version than Debian's is an image that isn't there."""
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    root = in_cache(tmp_path, "redis-server_5%3A7.0.15-1")
    image = resolve("redis:7.0.15-test")
    assert (root, "/opt/redis") in image.binds
    assert (image.user, image.working_dir, image.cmd) == (999, "/data", ("redis-server",))
    assert image.env["PATH"].startswith("/opt/redis/usr/bin:")
    with pytest.raises(UnknownImage, match=r"redis-server is version 5:7\.0\.15-1") as caught:
        resolve("redis:8-test")
    assert "use redis:7" in str(caught.value)


def test_a_server_whose_packages_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnknownImage, match="this machine has no apt-get"):
        resolve("nginx:1.22-offline")
    broken = tmp_path / "bin"
    broken.mkdir()
    for name in ("apt-get", "dpkg-deb", "dpkg-query"):
        (broken / name).write_text("#!/bin/sh\necho 'E: Could not resolve deb.example' >&2; exit 100\n")
        (broken / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:/usr/bin:/bin")
    with pytest.raises(UnknownImage, match="a package server can't be reached"):
        resolve("nginx:1.22-offline")
    assert [path.name for path in (tmp_path / "tools" / "images").iterdir()] == [], (
        "nothing half done is left"
    )
