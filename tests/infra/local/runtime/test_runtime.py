"""Containers as real processes: their ends, their limits, what they see, and that they outlive the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.local.runtime import (
    ContainerState,
    Limits,
    Mount,
    NoSuchContainer,
    Runtime,
    StartError,
    cleanup,
    leftovers,
)
from infra.local.runtime.record import Folder
from switchboard.paths import ROOT
from tests.infra.local.runtime.conftest import Box

MI = 1 << 20
PAGE = 4096
APP = {"uid": 10001, "gid": 10001}


async def until(condition: Callable[[], bool], deadline_s: float = 120) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def started(box: Box, id: str, script: str, **more: Any) -> ContainerState:
    """Start a script and wait until it says `ready`."""
    state = await box.runtime.start(box.spec(id, "/bin/sh", "-c", script, **more))
    log = box.folder / "logs" / f"{id}.log"
    await until(lambda: log.exists() and " F ready\n" in log.read_text())
    return state


def there(path: str) -> bool:
    return Path(path).exists()


def mounted() -> str:
    return Path("/proc/self/mountinfo").read_text()


def parent_and_session(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), int(fields[3])


@pytest.mark.parametrize(
    ("script", "exit_code", "sig"),
    [("exit 0", 0, None), ("exit 3", 3, None), ("nosuchprogram", 127, None)],
)
async def test_exit_codes(box: Box, script: str, exit_code: int, sig: int | None) -> None:
    end = await box.run("c", script)
    assert (end.exit_code, end.signal, end.oom_killed, end.reason) == (exit_code, sig, False, "")
    assert end.started_at <= end.finished_at
    assert await box.runtime.wait("c") == end


async def test_output_goes_to_the_log_of_its_stream(box: Box) -> None:
    await box.run("c", "echo out; echo err >&2; printf no-newline")
    assert sorted(box.lines("c", "stdout")) == ["no-newline", "out"]
    assert box.lines("c", "stderr") == ["err"]


async def test_much_output_is_complete_and_in_order(box: Box) -> None:
    end = await box.run("c", "seq 1 20000; head -c 40000 /dev/zero | tr '\\0' x")
    assert end.exit_code == 0
    lines = box.lines("c")
    assert lines[:20000] == [str(number) for number in range(1, 20001)]
    assert "".join(lines[20000:]) == "x" * 40000


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"argv": ("nosuchprogram",)}, "RunContainerError", "executable file not found in $PATH"),
        ({"argv": ("/etc/passwd",)}, "RunContainerError", "Permission denied"),
        ({"argv": ("/no/such",)}, "RunContainerError", "no such file"),
        (
            {"mounts": (Mount(Path("/nowhere"), "/data"),)},
            "CreateContainerConfigError",
            "/nowhere isn't there",
        ),
        (
            {"mounts": (Mount(Path("/usr"), "/usr/bin/env"),)},
            "RunContainerError",
            "can't be mounted on a folder",
        ),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    box: Box, spec: dict[str, Any], reason: str, says: str
) -> None:
    with pytest.raises(StartError) as caught:
        await box.runtime.start(replace(box.spec("c", "/bin/true"), **spec))
    assert caught.value.reason == reason
    assert says in caught.value.message
    assert list(box.directory.iterdir()) == []
    assert leftovers(box.directory) == []
    with pytest.raises(NoSuchContainer):
        await box.runtime.wait("c")


async def test_graceful_stop(box: Box) -> None:
    await started(box, "c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    await box.runtime.signal("c", signal.SIGTERM)
    assert (await box.runtime.wait("c")).exit_code == 7
    assert box.lines("c") == ["ready", "bye"]
    await box.runtime.signal("c", signal.SIGTERM)  # after the end: nothing happens


async def test_kill_ends_the_whole_tree(box: Box) -> None:
    state = await started(box, "c", "trap '' TERM; setsid sleep 1000 & sleep 1000 & echo ready; wait")
    assert state.pid is not None
    record = Folder(box.directory / "c").read_record()
    assert record is not None
    await until(lambda: not record.placement.directories or len(record.placement.processes()) == 3)
    await box.runtime.signal("c", signal.SIGTERM)
    await box.runtime.kill("c")
    end = await box.runtime.wait("c")
    assert (end.exit_code, end.signal, end.oom_killed) == (137, signal.SIGKILL, False)
    assert record.placement.processes() == set()
    assert not any(folder.exists() for folder in record.placement.folders)


async def test_pid_1_without_a_handler_ignores_sigterm_as_in_any_container(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    await box.runtime.signal("c", signal.SIGTERM)
    assert (await box.runtime.exec("c", ["true"], 60)).exit_code == 0
    await box.runtime.kill("c")


async def test_an_oom_kill_is_told_from_another_kill(box: Box) -> None:
    greedy = "x = bytearray(256 << 20); print(len(x))"
    limits = Limits(memory_bytes=64 * MI)
    argv = ("python", "-c", greedy)
    await box.runtime.start(box.spec("c", *argv, image="switchboard.dev/switchboard:1", limits=limits))
    end = await box.runtime.wait("c")
    assert (end.exit_code, end.oom_killed) == (137, True)


async def test_the_pids_limit_holds(box: Box) -> None:
    await box.run("c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all", limits=Limits(pids=5))
    assert "all" not in box.lines("c")
    assert any("fork" in line.lower() for line in box.lines("c"))


async def test_identity_and_privileges(box: Box) -> None:
    script = (
        "id -u; id -g; id -G; grep -e NoNewPrivs -e CapEff -e CapBnd /proc/self/status; hostname; echo $HOME"
    )
    await box.run("c", script, **APP, supplemental_groups=(2000,), hostname="chat-0")
    none = "0" * 16
    assert box.lines("c") == [
        "10001",
        "10001",
        "10001 2000",
        f"CapEff:\t{none}",
        f"CapBnd:\t{none}",
        "NoNewPrivs:\t1",
        "chat-0",
        "/tmp",
    ]


async def test_root_in_a_container_is_not_the_machines_root(box: Box) -> None:
    script = "id -u; mount -t tmpfs x /tmp; mknod /m b 8 0 && cat /m; echo x > /proc/sys/kernel/domainname; echo end"
    await box.run("c", script)
    assert box.lines("c", "stdout") == ["0", "end"]
    refused = "\n".join(box.lines("c", "stderr"))
    assert [word in refused for word in ("mount: /tmp", "cat: /m", "domainname")] == [True, True, True]


async def test_only_what_the_spec_shows_can_be_seen(box: Box) -> None:
    (box.folder / "secret").write_text("secret")
    script = (
        f"cat {box.folder}/secret; ls {ROOT} {Path.home()}/.bashrc /etc/shadow /etc/ssl/private /usr/local/bin/*; "
        "ls -d /.host /..host /sys/fs; ls -A /home /root /run /var/log; ls /proc | grep -c '^[0-9]'; "
        "readlink /proc/1/root; ls /proc/1/root/; echo end"
    )
    await box.run("c", script, read_only_root=True)
    out = box.lines("c", "stdout")
    assert "secret" not in out
    assert not {"work", ".host", "sys", "mnt", "opt", "boot"} & set(out)
    assert out[-1] == "end"
    count = next(int(line) for line in out if line.isdigit())
    assert count <= 5  # its own processes, not the machine's


async def test_read_only_root_and_tmp(box: Box) -> None:
    script = (
        "touch /x /etc/x /usr/bin/x /dev/x; echo a > /tmp/a && echo b > /dev/shm/b && cat /tmp/a /dev/shm/b"
    )
    end = await box.run("c", script, read_only_root=True)
    assert end.exit_code == 0
    assert box.lines("c", "stdout") == ["a", "b"]
    assert len([line for line in box.lines("c", "stderr") if "Read-only" in line]) == 4
    await box.run("d", "touch /x /etc/x && touch /usr/bin/x || echo refused", read_only_root=False)
    assert box.lines("d", "stdout") == ["refused"]
    assert not there("/x")


async def test_mounts(box: Box) -> None:
    for name in ("data", "config", "data/inner"):
        (box.folder / name).mkdir()
    (box.folder / "config" / "key").write_text("value\n")
    (box.folder / "hosts").write_text("127.1.2.3 svc\n")
    before = mounted()
    mounts = (
        Mount(box.folder / "config", "/data/inner", read_only=True),  # inside another one, named before it
        Mount(box.folder / "data", "/data"),
        Mount(box.folder / "hosts", "/etc/hosts", read_only=True),
        # Below a read-only folder of the image:
        Mount(box.folder / "config", "/usr/share/deep/er", read_only=True),
        Mount(box.folder / "config", "/var/run/secrets/x", read_only=True),  # through a link
    )
    script = (
        "cat /data/inner/key /usr/share/deep/er/key /run/secrets/x/key /etc/hosts; echo new > /data/new;"
        "touch /data/inner/x /usr/share/deep/x; ls /usr/share | wc -l; getent hosts svc"
    )
    await box.run("c", script, mounts=mounts, read_only_root=True)
    out = box.lines("c", "stdout")
    assert out[:4] == ["value", "value", "value", "127.1.2.3 svc"]
    assert out[-1].split() == ["127.1.2.3", "svc"]
    assert (box.folder / "data" / "new").read_text() == "new\n"
    assert not (box.folder / "config" / "x").exists()
    assert len(box.lines("c", "stderr")) == 2
    assert not there("/usr/share/deep")
    assert mounted() == before


async def test_a_volume_cannot_lead_a_mount_out_of_the_container(box: Box) -> None:
    volume = box.folder / "volume"
    volume.mkdir()
    target = box.folder / "target"
    (volume / "link").symlink_to(f"/.host{target}")
    mounts = (Mount(volume, "/v"), Mount(volume, "/v/link/made"))
    with pytest.raises(StartError, match="leads out of the container"):
        await box.runtime.start(box.spec("c", "true", mounts=mounts))
    assert not target.exists()


async def test_switchboards_own_image_as_its_user(box: Box) -> None:
    code = "import os, switchboard, bentoml; print(os.getuid(), os.access('.', os.W_OK)); open('/tmp/x', 'w')"
    image = "switchboard.dev/switchboard:0.1.0"
    spec = box.spec("c", "python", "-c", code, image=image, working_dir=str(ROOT), read_only_root=True, **APP)
    await box.runtime.start(spec)
    end = await box.runtime.wait("c")
    assert (end.exit_code, box.lines("c")) == (0, ["10001 False"])


async def test_exec(box: Box) -> None:
    await started(box, "c", "cd /tmp; echo here > f; echo ready; sleep 1000", **APP, env={"COLOUR": "blue"})
    runtime = box.runtime
    done = await runtime.exec(
        "c", ["sh", "-c", "id -u; cat /tmp/f; echo $COLOUR; cat /proc/1/comm >&2; exit 4"], 60
    )
    assert (done.exit_code, done.timed_out) == (4, False)
    assert done.text.split() == ["10001", "here", "blue", "sh"]
    missing = await runtime.exec("c", ["nosuchprogram"], 60)
    assert missing.exit_code == 127
    assert "not found" in missing.text
    background = await runtime.exec("c", ["sh", "-c", "sleep 1000 & echo done"], 60)  # its output stays open
    assert (background.exit_code, background.output) == (0, b"done\n")
    much = await runtime.exec("c", ["head", "-c", "3000000", "/dev/zero"], 60)
    assert (much.exit_code, len(much.output)) == (0, 1 << 20)
    killed = await runtime.exec("c", ["sh", "-c", "kill -9 $$"], 60)
    assert killed.exit_code == 137


async def test_exec_at_its_deadline_is_killed_with_its_children(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    done = await box.runtime.exec("c", ["sh", "-c", "echo begun; sleep 1001; echo never"], 3)
    assert (done.exit_code, done.timed_out, done.output) == (137, True, b"begun\n")
    script = "while cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[s]leep 1001'; do sleep 0.05; done"
    assert (await box.runtime.exec("c", ["sh", "-c", script], 60)).exit_code == 0


async def test_exec_where_nothing_runs(box: Box) -> None:
    with pytest.raises(NoSuchContainer):
        await box.runtime.exec("c", ["true"], 5)
    await box.run("c", "true")
    with pytest.raises(NoSuchContainer):
        await box.runtime.exec("c", ["true"], 5)
    with pytest.raises(NoSuchContainer):
        await box.runtime.stats("c")


async def test_stats(box: Box) -> None:
    script = (
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 20000000 /dev/zero > /dev/shm/x;"
        "echo ready; sleep 1000"
    )
    await started(box, "c", script)
    stats = await box.runtime.stats("c")
    assert stats.cpu_seconds > 0.02
    assert 20_000_000 < stats.memory_bytes < 60_000_000


async def test_another_process_adopts(box: Box) -> None:
    """What a restart of the agent is: a new process finds what runs, what ended, and can go on with it."""
    await box.run("ended", "exit 5")
    await started(box, "runs", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    state = Folder(box.directory / "runs").state()
    await box.runtime.close()
    program = """
import asyncio, json, signal, sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from infra.local.runtime import Runtime
async def main():
    runtime = Runtime(Path(sys.argv[1]))
    states = await runtime.adopt()
    inside = await runtime.exec("runs", ["cat", "/proc/1/comm"], 60)
    await runtime.signal("runs", signal.SIGTERM)
    end = await runtime.wait("runs")
    found = [[s.id, s.phase, s.pid, s.exit and s.exit.exit_code] for s in states]
    print(json.dumps([found, inside.text.strip(), end.exit_code]))
    await runtime.close()
asyncio.run(main())
"""
    done = subprocess.run(  # noqa: ASYNC221 - there is nothing else to do meanwhile
        [sys.executable, "-c", program, str(box.directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found, inside, exit_code = json.loads(done.stdout)
    assert found == [["ended", "exited", found[0][2], 5], ["runs", "running", state.pid, None]]
    assert (inside, exit_code) == ("sh", 6)
    box.runtime = Runtime(box.directory)
    assert {each.id: each.phase for each in await box.runtime.adopt()} == {
        "ended": "exited",
        "runs": "exited",
    }
    assert (await box.runtime.wait("runs")).exit_code == 6


async def test_an_end_while_nobody_looked_is_known(box: Box) -> None:
    gate = box.folder / "gate"
    gate.mkdir()
    script = "echo ready; while [ ! -e /gate/open ]; do sleep 0.02; done; exit 9"
    await started(box, "c", script, mounts=(Mount(gate, "/gate"),))
    await box.runtime.close()
    (gate / "open").touch()
    await until(lambda: Folder(box.directory / "c").state().phase == "exited")
    box.runtime = Runtime(box.directory)
    (state,) = await box.runtime.adopt()
    assert state.exit is not None
    assert state.exit.exit_code == 9


async def test_a_container_dies_with_its_shim(box: Box) -> None:
    state = await started(box, "c", "setsid sleep 1000 & echo ready; sleep 1000", **APP)
    folder = Folder(box.directory / "c")
    record = folder.read_record()
    assert record is not None
    os.kill(folder.read_raw()["shim"], signal.SIGKILL)
    end = await box.runtime.wait("c")
    assert (end.exit_code, end.signal) == (137, signal.SIGKILL)
    assert "shim was killed" in end.reason
    assert record.placement.processes() == set()
    assert (await box.runtime.adopt())[0].exit == end
    assert state.pid is not None


async def test_a_shim_that_died_while_no_agent_ran(box: Box) -> None:
    await started(box, "c", "echo ready; sleep 1000", **APP)
    await box.runtime.close()
    folder = Folder(box.directory / "c")
    os.kill(folder.read_raw()["shim"], signal.SIGKILL)
    await until(lambda: not folder.shim_lives())
    box.runtime = Runtime(box.directory)
    (state,) = await box.runtime.adopt()
    assert state.exit is not None
    assert state.exit.exit_code == 137


async def test_a_pid_that_means_someone_else_by_now_is_never_signalled(box: Box) -> None:
    await box.run("c", "true")
    folder = Folder(box.directory / "c")
    raw = folder.read_raw() | {"phase": "running", "pid": os.getpid(), "shim": os.getpid()}
    (folder.path / "state.json").write_text(json.dumps(raw))
    assert folder.open_program() is None
    assert folder.open_shim() is None
    await box.runtime.signal("c", signal.SIGKILL)


async def test_shims_ignore_the_terminals_signals_and_are_nobodys_children(box: Box) -> None:
    await started(box, "c", "echo ready; sleep 1000")
    shim = Folder(box.directory / "c").read_raw()["shim"]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(shim, number)
    assert (await box.runtime.exec("c", ["true"], 60)).exit_code == 0
    parent, session = parent_and_session(shim)
    assert parent != os.getpid()
    assert session != os.getsid(0)


async def test_twenty_at_once(box: Box) -> None:
    ids = [f"c{number}" for number in range(20)]
    start = (box.spec(id, "/bin/sh", "-c", "echo $0; sleep 1000", limits=Limits(64 * MI)) for id in ids)
    states = await asyncio.gather(*(box.runtime.start(spec) for spec in start))
    assert {state.phase for state in states} == {"running"}
    await asyncio.gather(*(box.runtime.exec(id, ["true"], 120) for id in ids))
    await until(lambda: all(box.lines(id) for id in ids))
    await asyncio.gather(*(box.runtime.kill(id) for id in ids))
    await asyncio.gather(*(box.runtime.remove(id) for id in ids))
    assert list(box.directory.iterdir()) == []
    assert all(box.lines(id) == ["/bin/sh"] for id in ids)


async def test_the_same_id_twice_and_the_same_cgroup_twice(box: Box) -> None:
    spec = box.spec("c_0", "sleep", "1000", cgroup=f"switchboard/test-{os.getpid()}/{box.folder.name}/pod/c")
    await box.runtime.start(spec)
    with pytest.raises(StartError, match="there already"):
        await box.runtime.start(spec)
    assert (await box.runtime.exec("c_0", ["true"], 60)).exit_code == 0
    record = Folder(box.directory / "c_0").read_record()
    assert record is not None
    if record.placement.directories:
        with pytest.raises(StartError, match="in use by another container"):
            await box.runtime.start(box.spec("c_1", "true", cgroup=spec.cgroup))
    await box.runtime.kill("c_0")


async def test_a_restart_in_the_same_cgroup_keeps_its_limits_while_the_old_run_is_removed(box: Box) -> None:
    cgroup = f"switchboard/test-{os.getpid()}/{box.folder.name}/pod/c"
    limits = Limits(memory_bytes=64 * MI)
    await box.run("c_0", "exit 1", cgroup=cgroup, limits=limits)
    await box.runtime.start(box.spec("c_1", "sleep", "1000", cgroup=cgroup, limits=limits))
    await box.runtime.remove("c_0")
    record = Folder(box.directory / "c_1").read_record()
    assert record is not None
    assert all(folder.exists() for folder in record.placement.folders)
    assert len(record.placement.processes()) == (1 if record.placement.directories else 0)


async def test_leftovers_names_what_runs(box: Box) -> None:
    state = await started(box, "c", "echo ready; sleep 1000")
    found = leftovers(box.directory)
    assert any(f"container c runs (pid {state.pid}" in line for line in found)
    await box.runtime.kill("c")
    assert leftovers(box.directory) == []


async def test_remove_kills_what_runs_and_keeps_the_log(box: Box) -> None:
    await started(box, "c", "echo ready; sleep 1000")
    await box.runtime.remove("c")
    await box.runtime.remove("c")
    assert list(box.directory.iterdir()) == []
    assert box.lines("c") == ["ready"]


@pytest.mark.parametrize("as_far_as", ["lock", "shim.log"])
async def test_a_start_that_is_cancelled_leaves_nothing(box: Box, as_far_as: str) -> None:
    starting = asyncio.create_task(box.runtime.start(box.spec("c", "sleep", "1000")))
    while not there(f"{box.directory}/c/{as_far_as}"):
        await asyncio.sleep(0)  # a busy machine might have started it at the end of any longer one
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert leftovers(box.directory) == []
    assert list(box.directory.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a mount needs root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "disk", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


async def test_a_disk_without_room_is_no_run_of_the_program(small_disk: Path) -> None:
    """However few pages are left, the container starts and its end is recorded, or it was never created."""
    box, ballast = Box(small_disk), small_disk / "ballast"
    outcomes: list[int | str] = []
    try:
        for pages in range(24):
            with ballast.open("wb", buffering=0) as file:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\1" * PAGE)
                file.truncate(file.tell() - pages * PAGE)
            try:
                outcomes.append((await box.run("c", "exit 3")).exit_code)
                await box.runtime.remove("c")
            except StartError as error:
                outcomes.append(error.reason)
            assert list(box.directory.iterdir()) == []
            ballast.unlink()
    finally:
        await box.runtime.close()
        await cleanup(box.directory)
    start = outcomes.index(3)
    assert start > 0
    assert outcomes == ["CreateContainerError"] * start + [3] * (len(outcomes) - start)
