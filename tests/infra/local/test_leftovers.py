"""Finding and removing what may be left of a stack."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import leftovers, processes
from infra.local.runtime import Runtime, cgroups
from tests.infra.local.runtime.conftest import Box
from tests.infra.local.test_processes import wait_for

MOUNTINFO = r"""
22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw
35 28 0:30 /kubepods/a /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
90 28 8:1 /usr /state/a\040b/usr ro - ext4 /dev/sda1 rw
91 28 0:50 / /state/a\040b/usr/tmp rw shared:3 master:1 - tmpfs tmpfs rw
""".strip()


def test_mountinfo_is_read() -> None:
    assert leftovers.parse_mounts(MOUNTINFO) == [
        leftovers.Mount(Path("/proc"), "proc"),
        leftovers.Mount(Path("/sys/fs/cgroup/memory"), "cgroup"),
        leftovers.Mount(Path("/state/a b/usr"), "ext4"),
        leftovers.Mount(Path("/state/a b/usr/tmp"), "tmpfs"),
    ]


@given(st.text(st.characters(codec="ascii", exclude_characters="\0/"), min_size=1, max_size=20))
def test_any_name_survives_the_escaping(name: str) -> None:
    """The kernel escapes white space and backslash as octal; read back, it is the name again."""
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" or c.isspace() or ord(c) < 32 else c for c in name)
    (mount,) = leftovers.parse_mounts(f"1 2 0:1 / /state/{escaped} rw - tmpfs tmpfs rw")
    assert str(mount.point) == str(Path(f"/state/{name}"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder with two mounts in it, one on the other; only root may."""
    outer = tmp_path / "state" / "root fs"
    outer.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", outer], capture_output=True, check=False).returncode:
        pytest.skip("mounting isn't allowed here")
    (outer / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", outer / "inner"], check=True)
    yield tmp_path / "state"
    for point in leftovers.mounts_below(tmp_path):
        leftovers.detach(point)


def test_mounts_are_found_and_detached(mounted: Path) -> None:
    assert leftovers.mounts_below(mounted) == [mounted / "root fs" / "inner", mounted / "root fs"]
    assert leftovers.remove(mounted, "no-such-stack") == []
    assert leftovers.mounts_below(mounted) == []


def test_control_groups_are_found_and_removed() -> None:
    stack = f"leftover-test-{os.getpid()}"
    parents = {found.mount_point for found in cgroups.hierarchies()}
    made = []
    for parent in parents:
        try:
            (parent / "switchboard" / stack / "site" / "pod").mkdir(parents=True)
            made.append(parent / "switchboard" / stack)
        except OSError:
            continue
    if not made:
        pytest.skip("no control group can be made here")
    assert set(made) <= set(leftovers.cgroups_of(stack))
    assert leftovers.remove(Path("/nowhere/state"), stack) == []
    assert not any(path.exists() for path in made)


async def test_a_container_that_outlived_its_agent_is_found_and_ended(box: Box, tmp_path: Path) -> None:
    """Neither its shim's command nor its environment names the stack: the runtime's records do."""
    state = tmp_path / "state"
    site = state / "sites" / "private"
    runtime = Runtime(site / "nodes" / "private-1" / "runtime")
    container = await runtime.start(box.spec("c", "/bin/sleep", "600"))
    await runtime.close()
    assert container.pid is not None
    ticks = processes.started_ticks(container.pid)
    assert ticks is not None
    for directory in (state, site):
        assert any("container c runs" in line for line in leftovers.find(directory, "no-such-stack"))
    assert await asyncio.to_thread(leftovers.remove, site, "no-such-stack") == []
    assert processes.started_ticks(container.pid) != ticks


def test_only_our_own_processes_are_found(tmp_path: Path) -> None:
    """One with the mark is ours; one that stands in the folder and names it (a shell, `tail`) is not."""
    code = "import time; time.sleep(600)"
    ours = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        env={processes.MARK: str(tmp_path / "sites/private/run/proxy.json")},
    )
    theirs = subprocess.Popen([sys.executable, "-S", "-c", code, str(tmp_path / "log")], cwd=tmp_path)
    try:
        # Popen returns in the middle of the kernel's exec: the environment may show an instant later.
        wait_for(lambda: leftovers.processes_of(tmp_path) != [])
        assert [p.pid for p in leftovers.processes_of(tmp_path)] == [ours.pid]
        assert leftovers.processes_of(tmp_path / "sites/public") == []
        assert leftovers.remove(tmp_path, "no-such-stack") == []
        assert ours.wait(60) < 0
        assert theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()
