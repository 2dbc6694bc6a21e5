"""A toolchain of its own for each test: an empty cache, an empty PATH, and programs that say a version."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEM_PATH = os.environ.get("PATH", "")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no hand-built tools."""
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SWITCHBOARD_TOOLS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


Program = Callable[[Path, str], Path]


@pytest.fixture
def program() -> Program:
    """Writes a program that prints a text."""

    def write(path: Path, says: str = "") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return path

    return write
