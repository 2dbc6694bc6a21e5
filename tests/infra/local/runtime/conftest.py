"""A runtime in a folder of its own, which leaves nothing behind, and specs with sensible defaults."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.runtime import ContainerSpec, ExitStatus, Runtime, cleanup, leftovers, resolve

HOST_IMAGE = "debian:12"


class Box:
    """A runtime under test: `run` starts a shell script and waits for its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "containers"
        self.runtime = Runtime(self.directory)

    def spec(self, id: str, *argv: str, image: str = HOST_IMAGE, **more: Any) -> ContainerSpec:
        defaults: dict[str, Any] = {
            "id": id,
            "image": resolve(image),
            "argv": argv,
            "log_path": self.folder / "logs" / f"{id}.log",
            "cgroup": f"switchboard/test-{os.getpid()}/{self.folder.name}/{id}",
        }
        return ContainerSpec(**{**defaults, **more})

    async def run(self, id: str, script: str, **more: Any) -> ExitStatus:
        await self.runtime.start(self.spec(id, "/bin/sh", "-c", script, **more))
        return await self.runtime.wait(id)

    def lines(self, id: str, stream: str | None = None) -> list[str]:
        """The texts that a container logged, as far as whole lines of them are there."""
        path = self.folder / "logs" / f"{id}.log"
        whole, _, _ = (path.read_text() if path.exists() else "").rpartition("\n")
        parts = [line.split(" ", 3) for line in whole.splitlines()]
        return [text for _, kind, _, text in parts if stream in (None, kind)]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("containers as root need Linux and root (test_rootless tries them without)")
    made = Box(tmp_path)
    yield made
    await made.runtime.close()
    await cleanup(made.directory)
    assert leftovers(made.directory) == []
    assert not made.directory.exists()
