"""A package server that says nothing holds up only who asks for its images."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.local.node.image_fetches import Fetches
from infra.local.runtime import UnknownImage, packages
from switchboard.errors import SwitchboardError
from switchboard.kube import PODS
from switchboard.paths import ROOT
from tests.infra.local.node.conftest import Space, is_ready, main, wait

APT = """#!/bin/sh
echo >> "$0.asked"
while ! test -e "$0.go"; do sleep 0.05; done
echo no such package >&2
exit 100
"""


@pytest_asyncio.fixture
async def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """An `apt-get` that hangs until the file `apt-get.go` is there, and a cache without any package."""
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(APT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path / "cache"))
    yield program
    program.with_name("apt-get.go").touch()

    async def idle() -> bool:
        return not any(thread.name.startswith("fetch ") for thread in threading.enumerate())

    await wait(idle, "a fetch goes on")


@pytest_asyncio.fixture
async def few_threads() -> AsyncIterator[None]:
    """As many as on a small machine, however many cores this one has."""
    loop, few = asyncio.get_running_loop(), concurrent.futures.ThreadPoolExecutor(4)
    loop.set_default_executor(few)
    yield
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor())
    few.shutdown(wait=False)


async def hangs(apt: Path) -> None:
    async def asked() -> bool:
        return apt.with_name("apt-get.asked").exists()

    await wait(asked, "nobody asked apt")


async def test_other_pods_go_on_and_one_that_ends_leaves_its_fetch(
    space: Space, apt: Path, few_threads: None
) -> None:
    names = [f"db{number}" for number in range(6)]
    for number, name in enumerate(names):
        await space.run(name, "true", image=f"postgres:{90 + number}")
    await hangs(apt)
    await space.run("other", "sh", "-c", "echo up; sleep inf")
    await space.until("other", is_ready)
    await space.said("other", "up\n")
    await space.kube.delete(PODS, names[0], space.name)
    await space.kube.delete(PODS, "other", space.name)
    await space.gone(names[0])
    await space.gone("other")
    waits = await space.until(names[1], lambda p: main(p)["state"]["waiting"])
    assert main(waits)["state"]["waiting"]["reason"] == "ContainerCreating"
    apt.with_name("apt-get.go").touch()
    failed = await space.until(names[1], lambda p: "Pull" in main(p)["state"]["waiting"]["reason"])
    assert "postgresql-91" in main(failed)["state"]["waiting"]["message"]
    for name in names[1:]:
        await space.kube.delete(PODS, name, space.name)
    for name in names[1:]:
        await space.gone(name)


async def test_all_who_want_an_image_share_its_fetch(apt: Path) -> None:
    fetches = Fetches()
    asking = [asyncio.create_task(fetches.image("postgres:99")) for _ in range(3)]
    await hangs(apt)
    asking.pop().cancel()
    apt.with_name("apt-get.go").touch()
    for one in asking:
        with pytest.raises(UnknownImage, match="postgresql-99"):
            await one
    tries = apt.with_name("apt-get.asked").read_text()
    assert len(tries) == 3, "a download, the lists, a download"


async def test_an_apt_that_hangs_is_given_up(apt: Path) -> None:
    def fetch() -> None:
        packages._fetch_in_turn(packages.IMAGES["redis"], "", ["redis-server"], timeout_s=0.5)

    with pytest.raises(SwitchboardError, match=r"redis-server wasn't done within 0\.5 s"):
        await asyncio.to_thread(fetch)


ASKS_AND_ENDS = """
import asyncio, pathlib, sys
from infra.local.node.image_fetches import Fetches
async def main():
    asking = asyncio.create_task(Fetches().image("postgres:99"))
    while not pathlib.Path(sys.argv[1]).exists():
        await asyncio.sleep(0.05)
asyncio.run(main())
"""


async def test_an_agent_that_ends_does_not_wait_for_its_fetch(apt: Path) -> None:
    command = [sys.executable, "-c", ASKS_AND_ENDS, str(apt.with_name("apt-get.asked"))]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, timeout=120, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
