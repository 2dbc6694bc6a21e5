"""Faults, caused in real containers, and mended."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local import faults, processes
from infra.local.processes import Program
from infra.local.runtime.spec import Limits
from switchboard.errors import SwitchboardError
from tests.infra.local.runtime.conftest import Box
from tests.pods import until

SLEEP = "echo there; exec sleep 600"
BUSY = "echo there; while :; do :; done"


async def started(box: Box, uid: str, script: str = SLEEP, **more: object) -> faults.Container:
    """A pod's only container, that has begun."""
    await box.runtime.start(box.spec(f"{uid}_main_0", "/bin/sh", "-c", script, **more))

    async def there() -> list[faults.Container]:
        return faults.containers(box.directory, uid) if box.lines(f"{uid}_main_0") == ["there"] else []

    found: list[faults.Container] = await until(there)
    return found[0]


def states(pids: set[int]) -> set[str]:
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}


async def test_a_pod_is_killed_and_no_other(box: Box) -> None:
    one, other = await started(box, "u-1"), await started(box, "u-2")
    assert {found.pod_uid for found in faults.containers(box.directory)} == {"u-1", "u-2"}
    assert faults.kill([one]) == 1
    ended = await box.runtime.wait("u-1_main_0")
    assert ended.signal == 9
    assert faults.containers(box.directory) == [other]
    assert states(other.processes()) <= {"S", "R"}


async def test_what_is_frozen_stands_still_until_the_end(box: Box) -> None:
    one, other = await started(box, "u-1", BUSY), await started(box, "u-2")
    with faults.frozen([one]):
        assert states(one.processes()) == {"T"}
        assert "T" not in states(other.processes())
    await until(lambda: states(one.processes()) == {"R"})


async def test_a_fault_is_mended_whatever_happens_meanwhile(box: Box) -> None:
    one = await started(box, "u-1", BUSY)
    with pytest.raises(RuntimeError, match="something else"), faults.frozen([one]):
        raise RuntimeError("something else")
    await until(lambda: states(one.processes()) == {"R"})


async def test_what_is_slowed_has_little_processor_time(box: Box) -> None:
    one = await started(box, "u-1", BUSY)
    folder = one.placement.directories.get("cpu")
    if folder is None:
        pytest.skip("no cgroups for processor time")
    file, _ = faults._quota(Path(folder), 20)
    before = file.read_text()
    with faults.slowed([one], 20):
        begun, spent = time.monotonic(), (await box.runtime.stats("u-1_main_0")).cpu_seconds
        await asyncio.sleep(2.0)  # what it has had by then is what is asked
        spent = (await box.runtime.stats("u-1_main_0")).cpu_seconds - spent
        assert spent / (time.monotonic() - begun) < 0.2
        assert file.read_text() != before
    assert file.read_text() == before


async def test_of_no_processor_time_nothing_is_made(box: Box) -> None:
    one = await started(box, "u-1")
    with pytest.raises(SwitchboardError, match="0m of processor time can't be"), faults.slowed([one], 0):
        pass


async def test_a_process_of_a_site_is_found_by_its_name(tmp_path: Path) -> None:
    site = SimpleNamespace(run=tmp_path / "run", name="public")
    program = Program(
        "kube-apiserver",
        (sys.executable, "-S", "-c", "import time; time.sleep(600)"),
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        log=tmp_path / "log",
        record=tmp_path / "run" / "kube-apiserver.json",
    )
    record = processes.start(program)
    try:
        assert faults.program(site, "kube-apiserver").pid == record.pid  # type: ignore[arg-type]
        with faults.frozen((), [record.pid]):
            assert states({record.pid}) == {"T"}
        with pytest.raises(SwitchboardError, match="no process etcd runs in the site public") as raised:
            faults.program(site, "etcd")  # type: ignore[arg-type]
        assert "kube-apiserver" in str(raised.value)
    finally:
        processes.stop(program.record)
    with pytest.raises(SwitchboardError, match="there are none"):
        faults.program(site, "kube-apiserver")  # type: ignore[arg-type]


async def test_what_is_filled_has_no_more_memory(box: Box) -> None:
    """It has taken some, and takes more when it is told to: that is too much, and the kernel ends it."""
    script = (
        "mkfifo /tmp/more; taken=$(head -c 40000000 /dev/zero | tr '\\0' x); echo there; "
        "read told </tmp/more; more=$taken$taken; exec sleep 600"
    )
    one = await started(box, "u-1", script, limits=Limits(memory_bytes=400_000_000))
    folder = one.placement.directories.get("memory")
    if folder is None:
        pytest.skip("no cgroups for memory")
    file = faults._memory_file(Path(folder))
    before = file.read_text()
    with faults.filled([one]):
        assert 40_000_000 < int(file.read_text()) < 200_000_000
        assert states(one.processes()) == {"S"}
    assert file.read_text() == before
    with faults.filled([one]):
        await asyncio.to_thread(Path("/proc", str(one.pid), "root", "tmp", "more").write_text, "more\n")
        ended = await box.runtime.wait("u-1_main_0")
    assert ended.oom_killed
