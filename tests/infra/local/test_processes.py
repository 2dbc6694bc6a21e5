"""Detached processes and their records, with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local import processes
from infra.local.processes import Program, Record
from switchboard.errors import SwitchboardError

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
STUBBORN = (
    *(sys.executable, "-S", "-c"),
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    made: list[Program] = []

    def program(argv: tuple[str, ...] = SLEEP, name: str = "p", **more: object) -> Program:
        fields = {"env": {"PATH": os.environ["PATH"]}, "cwd": tmp_path, "log": tmp_path / f"{name}.log"}
        made.append(Program(name, argv, record=tmp_path / "run" / f"{name}.json", **{**fields, **more}))  # type: ignore[arg-type]
        return made[-1]

    yield program
    for each in made:
        for pid in processes.marked(each.record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        processes.stop(each.record)


DYING = (
    *(sys.executable, "-S", "-c"),
    """
import ctypes, os, socket, sys, threading, time
held = socket.create_server((sys.argv[1], int(sys.argv[2])))
def rest():
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.02)
    os._exit(0)
threading.Thread(target=rest).start()
print("holds", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # the first thread alone
""",
)
"""A process whose first thread has ended, as that of one just killed: its socket is held by the rest, unseen."""


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_start_and_stop(make: Callable[..., Program]) -> None:
    program = make()
    record, started = processes.ensure(program)
    assert started
    assert processes.alive(record)
    assert os.getsid(record.pid) == record.pid != os.getsid(0), "a session of its own"
    assert processes.read(program.record) == record
    assert processes.stop(program.record)
    assert not processes.alive(record)
    assert not program.record.exists()
    assert not processes.stop(program.record), "the second time there is nothing to stop"


def test_one_that_fits_is_left_alone(make: Callable[..., Program]) -> None:
    program = make()
    record, _ = processes.ensure(program)
    assert processes.ensure(program) == (record, False)


CHANGES = {
    "arguments": {"argv": (*SLEEP, "--more")},
    "environment": {"env": {"PATH": "/bin"}},
    "what it reads": {"fingerprint": "another certificate"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_that_does_not_fit_is_restarted(make: Callable[..., Program], change: dict[str, object]) -> None:
    old, _ = processes.ensure(make())
    new, started = processes.ensure(make(**change))
    assert started
    assert not processes.alive(old)
    assert processes.alive(new)


def test_a_killed_one_is_started_again(make: Callable[..., Program]) -> None:
    program = make()
    old, _ = processes.ensure(program)
    os.kill(old.pid, signal.SIGKILL)
    wait_for(lambda: not processes.alive(old))
    new, started = processes.ensure(program)
    assert started
    assert processes.alive(new)


def test_the_deaf_are_killed(make: Callable[..., Program]) -> None:
    program = make(STUBBORN)
    record, _ = processes.ensure(program)
    wait_for(lambda: "deaf" in processes.tail(program.log))
    assert processes.stop(program.record, grace_s=0.1)
    assert not processes.alive(record)


def test_a_pid_used_again_is_somebody_else(make: Callable[..., Program]) -> None:
    """A record whose pid now belongs to another process is dead, and that process is not touched."""
    bystander = make(name="bystander")
    theirs, _ = processes.ensure(bystander)
    mine = make(name="mine")
    mine.record.parent.mkdir(exist_ok=True)
    stale = theirs.model_copy(update={"name": "mine", "started_ticks": theirs.started_ticks - 100})
    mine.record.write_text(stale.model_dump_json())
    assert not processes.alive(stale)
    assert not processes.stop(mine.record)
    assert processes.alive(theirs)


def test_a_record_of_another_boot_is_dead(make: Callable[..., Program]) -> None:
    record, _ = processes.ensure(make())
    assert not processes.alive(record.model_copy(update={"boot_id": "before"}))


@pytest.mark.parametrize("text", [None, "", "{", json.dumps({"pid": "x"})])
def test_a_lost_record_is_found_again(make: Callable[..., Program], text: str | None) -> None:
    """Cut off between start and record: the process is found by its mark, restarted and not doubled."""
    program = make()
    lost, _ = processes.ensure(program)
    program.record.unlink()
    if text is not None:
        program.record.write_text(text)
    # Popen returns in the middle of the kernel's exec: the environment may show an instant later.
    wait_for(lambda: processes.find(program) is not None)
    found = processes.find(program)
    assert found is not None
    assert found.pid == lost.pid
    new, started = processes.ensure(program)
    assert started, "with what it was started isn't known, so it fits nothing"
    assert not processes.alive(lost)
    assert list(processes.marked(program.record)) == [new.pid]


def test_children_carry_the_mark(make: Callable[..., Program], tmp_path: Path) -> None:
    code = f"import subprocess, time; subprocess.Popen({SLEEP!r}); time.sleep(600)"
    program = make((sys.executable, "-S", "-c", code))
    processes.ensure(program)
    wait_for(lambda: len(list(processes.marked(program.record))) == 2)
    assert len(list(processes.marked(tmp_path / "run"))) == 2
    assert list(processes.marked(tmp_path / "ru")) == [], "a path that only begins alike is another one"


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="a kernel that shares among threads alone"
)
def test_one_that_is_started_under_nice_yields_as_a_whole(
    make: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shares processors among sessions first, and each program is one of its own."""

    def niceness(program: Program) -> str:
        return Path(f"/proc/{processes.start(program).pid}/autogroup").read_text().split()[-1]

    assert niceness(make()) == "0"
    monkeypatch.setattr(os, "getpriority", lambda which, who: 7)
    assert niceness(make(name="nice")) == "7"


def test_an_address_in_use_is_named(make: Callable[..., Program]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.31.99.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SwitchboardError) as caught:
            processes.check_addresses([make(listens=(("127.31.99.1", port),), name="etcd")])
    assert f"127.31.99.1:{port}, where etcd is to listen, is in use by pid {os.getpid()}" in caught.value.what
    assert caught.value.next_step is not None


def test_an_address_held_by_the_program_itself_is_fine(make: Callable[..., Program]) -> None:
    code = "import socket,time\ns=socket.socket()\ns.bind(('127.31.99.2',0))\ns.listen()\n"
    code += "print(s.getsockname()[1],flush=True)\ntime.sleep(600)"
    running = make((sys.executable, "-S", "-c", code), name="server")
    processes.ensure(running)
    wait_for(lambda: processes.tail(running.log).strip().isdigit())
    port = int(processes.tail(running.log))
    processes.check_addresses([make(running.argv, name="server", listens=(("127.31.99.2", port),))])


def test_an_address_that_a_dying_process_still_holds_is_waited_for(
    make: Callable[..., Program], tmp_path: Path
) -> None:
    with socket.create_server(("127.31.99.3", 0)) as probe:
        port = probe.getsockname()[1]
    lets_go = tmp_path / "go"
    dying = make((*DYING, "127.31.99.3", str(port), str(lets_go)), name="dying")
    record = processes.start(dying)
    wait_for(lambda: processes.tail(dying.log).strip() == "holds" and not processes.alive(record))
    server = make(name="server", listens=(("127.31.99.3", port),))
    with pytest.raises(SwitchboardError, match="is in use by a process "):
        processes.check_addresses([server], patience_s=0.0)
    later = threading.Timer(0.3, lets_go.touch)
    later.start()
    processes.check_addresses([server], patience_s=60.0)
    later.join()


def test_a_missing_program_is_named(make: Callable[..., Program]) -> None:
    with pytest.raises(SwitchboardError, match="can't start p: /nowhere/etcd: No such file"):
        processes.ensure(make(("/nowhere/etcd",)))


def test_a_long_log_is_turned_over(make: Callable[..., Program], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT_BYTES", 10)
    program = make((sys.executable, "-S", "-c", "print('new')"))
    program.log.write_text("old" * 10)
    record = processes.start(program)
    wait_for(lambda: not processes.alive(record))
    assert program.log.read_text() == "new\n"
    assert program.log.with_suffix(".log.1").read_text() == "old" * 10


def test_a_process_that_is_gone_is_not_alive() -> None:
    here = Record(
        name="me",
        pid=os.getpid(),
        started_ticks=processes.started_ticks(os.getpid()) or 0,
        boot_id=processes.boot_id(),
        argv=(),
        digest="",
    )
    assert processes.alive(here)
    assert not processes.alive(here.model_copy(update={"pid": 2**22 - 1}))
