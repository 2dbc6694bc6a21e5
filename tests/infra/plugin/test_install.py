"""The launcher: found by Pulumi, replaced when it changes, never in the official plugin's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra.plugin.install import NAME, install, install_in_home, is_stand_in, launcher


def test_a_launcher_is_written_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = install(tmp_path / "bin", Path(sys.executable))
    assert path == tmp_path / "bin" / NAME
    assert os.access(path, os.X_OK)
    assert is_stand_in(path)
    before = path.stat()
    assert install(tmp_path / "bin").stat().st_mtime_ns == before.st_mtime_ns
    install(tmp_path / "bin", Path("/another/python 3"))
    assert path.read_text() == launcher(Path("/another/python 3"))
    assert "'/another/python 3'" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]


def test_an_installed_official_plugin_stays(tmp_path: Path) -> None:
    official = tmp_path / "plugins" / "resource-kubernetes-v4.34.2" / NAME
    official.parent.mkdir(parents=True)
    official.write_bytes(b"\x7fELF")
    assert install_in_home(tmp_path, "4.34.2") == official
    assert official.read_bytes() == b"\x7fELF"
    assert not is_stand_in(official)
    other = install_in_home(tmp_path, "4.34.1")
    assert is_stand_in(other)
    assert not is_stand_in(tmp_path / "absent")
