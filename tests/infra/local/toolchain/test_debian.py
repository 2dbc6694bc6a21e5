"""Unpacking Debian packages, from a repository made here: no network, no root, nothing of the system changed."""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.local.toolchain import build, debian, ensure, lookup
from infra.local.toolchain.recipes import RECIPES
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None, reason="not a Debian machine"
)


@pytest.mark.parametrize(
    ("depends", "packages"),
    [
        ("adduser, libjs-d3 (>= 3), libjs-jquery, libc6 (>= 2.34)", ["libjs-d3", "libjs-jquery"]),
        ("fonts-glyphicons-halflings | fonts-other", ["fonts-glyphicons-halflings"]),
        ("libc6 (>= 2.34), node-jquery, javascript-common", []),
        ("", []),
    ],
)
def test_data_packages_are_scripts_and_fonts(depends: str, packages: list[str]) -> None:
    assert debian.data_packages(depends) == packages


@pytest.mark.parametrize(
    ("depends", "packages"),
    [
        ("adduser, libssl3 (>= 3.0.0), zlib1g (>= 1:1.1.4), libc6 (>= 2.34)", ["libssl3", "zlib1g"]),
        ("libfoo1 | libbar1, postgresql-common (>= 241~)", ["libfoo1"]),
        ("libllvm14, libc6-dev, locales | locales-all", []),
        ("", []),
    ],
)
def test_libraries_but_for_the_c_library_and_llvm(depends: str, packages: list[str]) -> None:
    assert debian.libraries(depends) == packages


def _package(repository: Path, name: str, version: str, files: dict[str, str], depends: str = "") -> str:
    """Build a package; returns its paragraph of the repository's index."""
    folder = repository / name
    for path, text in ({"DEBIAN/control": ""} | files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        (folder / path).chmod(0o755)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.test>\n"
    control += (f"Depends: {depends}\n" if depends else "") + "Description: for a test\n"
    (folder / "DEBIAN" / "control").write_text(control)
    file = repository / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", folder, file], check=True, capture_output=True
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package repository that is all that apt knows of, with no lists fetched yet."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/etc/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{tmp_path}/lists";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return folder


ALERTMANAGER = next(recipe for recipe in RECIPES if recipe.name == "alertmanager")
PACKAGE = "prometheus-alertmanager"


def _make() -> lookup.Found | None:
    build.make_all([ALERTMANAGER], Progress(io.StringIO()))
    return lookup.find("alertmanager")


@needs_apt
def test_a_package_is_unpacked_with_its_pages_though_no_lists_were_fetched(
    tmp_path: Path, repository: Path
) -> None:
    says = "#!/bin/sh\necho alertmanager, version 0.28.1+ds\n"
    index = _package(
        repository,
        PACKAGE,
        "1:0.28.1+ds-1",
        {f"usr/bin/{PACKAGE}": says, "usr/bin/amtool": says, "usr/share/prometheus/page.html": "page"},
        "libjs-here, adduser",
    )
    index += _package(
        repository, "libjs-here", "1.0-1", {"usr/share/javascript/here.js": "a"}, "libjs-too (>= 1)"
    )
    index += _package(repository, "libjs-too", "1.0-1", {"usr/share/javascript/too.js": "b"}, "libjs-here")
    (repository / "Packages").write_text(index)
    found = _make()
    assert found is not None
    assert found.version == "0.28.1+ds"
    assert found.path.name == "alertmanager", "the name that everybody but Debian knows it by"
    assert found.path.parent.parent.name == f"alertmanager-1_0.28.1+ds-1-{platform.machine()}"
    assert found.share is not None
    for file in ("prometheus/page.html", "javascript/here.js", "javascript/too.js"):
        assert (found.share / file).exists()
    assert not list((tmp_path / "lists").iterdir()), "the system's lists are the system's"


@needs_apt
def test_a_package_that_is_too_old_is_refused_with_a_way_out(repository: Path) -> None:
    says = "#!/bin/sh\necho alertmanager, version 0.15.3\n"
    files = {f"usr/bin/{PACKAGE}": says, "usr/bin/amtool": says}
    (repository / "Packages").write_text(_package(repository, PACKAGE, "0.15.3-2", files))
    with pytest.raises(SwitchboardError) as caught:
        _make()
    assert f"alertmanager of the Debian package {PACKAGE} is version 0.15.3 here" in str(caught.value)
    assert "put a fitting alertmanager on PATH" in str(caught.value)
    assert lookup.find("alertmanager") is None


@needs_apt
def test_a_package_that_is_not_there_is_named(repository: Path) -> None:
    (repository / "Packages").write_text("")
    with pytest.raises(SwitchboardError, match=f"fetching the Debian package {PACKAGE} failed"):
        _make()
    assert lookup.find("alertmanager") is None


def test_without_apt_the_tools_to_install_are_named(on_path: Path) -> None:
    with pytest.raises(SwitchboardError, match=r"alertmanager \(≥ 0\.24 and < 1\.0\) on PATH .*no apt-get"):
        ensure(Progress(io.StringIO()), ["alertmanager"])
