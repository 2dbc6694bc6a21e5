"""Commands in a running container and its own streams joined: what they are given, how they end, what they can't do."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from infra.local.runtime import ExecResult, Mount, NoSuchContainer, Runtime, Session, StartError
from infra.local.runtime.record import Folder
from infra.local.runtime.runtime import VIEWERS_MOST
from infra.local.runtime.sessions import read, read_late, write
from tests.infra.local.runtime.conftest import Box

APP: dict[str, Any] = {"uid": 10001, "gid": 10001, "supplemental_groups": (4242,)}
DEADLINE_S = 120.0


async def text_of(fd: int, until: str = "") -> str:
    """Read until that is there, or to the end."""
    found = ""
    async with asyncio.timeout(DEADLINE_S):
        while data := await read(fd):
            found += data.decode()
            if until and until in found:
                break
    return found


async def end_of(session: Session) -> tuple[int, bool] | None:
    async with asyncio.timeout(DEADLINE_S):
        return await session.ended()


async def test_a_command_is_as_the_container_s_own_program(box: Box) -> None:
    looks = (
        "id; pwd; hostname; echo $HOME $COLOUR; cat /proc/self/limits /proc/self/cgroup; readlink /proc/self/ns/*;"
        "grep -E 'Cap|NoNewPrivs|Sig(Blk|Ign|Cgt)|Umask' /proc/self/status; ls -l /proc/self/fd | wc -l"
    )
    spec = box.spec(
        "c", "sh", "-c", f"{looks}; echo ready; sleep 1000", **APP, env={"COLOUR": "blue"}, working_dir="/srv"
    )
    await box.runtime.start(spec)
    async with asyncio.timeout(DEADLINE_S):
        while "ready" not in (lines := box.lines("c")):
            await asyncio.sleep(0.01)
    done = await box.runtime.exec("c", ["sh", "-c", looks], 60)
    assert done.text.splitlines() == lines[: lines.index("ready")]
    assert "groups=10001(app),4242" in lines[0]


async def test_streams_apart(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    session = box.runtime.open(
        "c", ["sh", "-c", "cat; echo no >&2; exit 7"], stdin=True, stderr=True, tty=False
    )
    reading = asyncio.create_task(text_of(session.stdout))
    await write(session.stdin, b"x" * 300_000)
    session.close_stdin()
    assert await reading == "x" * 300_000
    assert await text_of(session.stderr) == "no\n"
    assert await end_of(session) == (7, False)
    session.close()


async def test_a_terminal_of_the_container_s_own(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000", **APP))
    script = "tty; stat -c %u $(tty); read line; stty size; echo $line $TERM; sleep 1000"
    session = box.runtime.open("c", ["sh", "-c", script], stdin=True, stderr=False, tty=True)
    await session.joined()
    await text_of(session.stdout, "/dev/pts/0\r\n10001\r\n")
    session.resize(columns=101, rows=31)
    await write(session.stdin, b"typed\n")
    await text_of(session.stdout, "31 101\r\ntyped xterm\r\n")
    ended = asyncio.create_task(end_of(session))
    while not ended.done():  # the shell misses one that comes while it starts a program
        await write(session.stdin, b"\x03")
        await asyncio.wait({ended}, timeout=0.1)
    assert await ended == (130, False)
    session.close()


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["nosuch"], 127, "exec: 'nosuch': executable file not found in $PATH"),
        (["/bin/nosuch"], 127, "exec: '/bin/nosuch': no such file"),
        (["/etc/hosts"], 126, "exec: '/etc/hosts': Permission denied"),
        (["/tmp"], 126, "exec: '/tmp': Permission denied"),
    ],
)
async def test_what_cannot_be_executed(box: Box, argv: list[str], code: int, why: str) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    assert await box.runtime.exec("c", argv, 60) == ExecResult(code, why.encode())


async def test_bounds(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    for argv in ([], ["echo", "x" * 200_000]):
        with pytest.raises(ValueError, match="a command has 1 to 131,072 characters"):
            await box.runtime.exec("c", argv, 60)
    # More than may be inside at once: the others wait at the door.
    done = await asyncio.gather(
        *(box.runtime.exec("c", ["sh", "-c", f"sleep 0.1; echo {n}"], DEADLINE_S) for n in range(90))
    )
    assert [result.text for result in done] == [f"{n}\n" for n in range(90)]


async def test_closing_ends_the_command_with_its_group(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    session = box.runtime.open(
        "c", ["sh", "-c", "sleep 1234 & echo begun; wait"], stdin=False, stderr=False, tty=False
    )
    await text_of(session.stdout, "begun")
    session.close()
    script = "while cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[s]leep 1234'; do sleep 0.05; done"
    assert (await box.runtime.exec("c", ["sh", "-c", script], DEADLINE_S)).exit_code == 0


async def test_commands_die_with_their_container(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    lasting = ["sh", "-c", "echo up > /proc/1/fd/1; exec sleep 1000"]
    session = box.runtime.open("c", lasting, stdin=False, stderr=False, tty=False)
    running = asyncio.create_task(box.runtime.exec("c", lasting, 1000))
    async with asyncio.timeout(DEADLINE_S):
        while box.lines("c") != ["up", "up"]:
            await asyncio.sleep(0.01)
        await box.runtime.kill("c")
    assert await end_of(session) in ((137, False), None)
    session.close()
    try:
        assert (await running).exit_code == 137
    except NoSuchContainer as error:
        assert "ended while a command ran in it" in str(error)


async def test_another_agent_finds_the_door_which_is_the_owner_s_alone(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    door = box.directory / "c" / "door"
    assert stat.S_IMODE(door.stat().st_mode) == 0o600
    await box.runtime.close()
    again = Runtime(box.directory)
    assert (await again.exec("c", ["echo", "hello"], 60)).text == "hello\n"
    await again.close()


async def test_joining_the_program_s_own_streams(box: Box) -> None:
    script = "while read line; do echo got $line; echo err $line >&2; done; echo over"
    await box.runtime.start(box.spec("c", "sh", "-c", script, stdin=True, stdin_once=True))
    one = box.runtime.attach("c", stdin=True, tty=False)
    two = box.runtime.attach("c", stdin=False, tty=False)
    await one.joined()
    await two.joined()
    assert (one.stdin >= 0, two.stdin) == (True, -1)
    await write(one.stdin, b"a\n")
    assert "got a" in await text_of(two.stdout, "got a\n")
    assert "err a" in await text_of(two.stderr, "err a\n")
    assert "got a" in await text_of(one.stdout, "got a\n")
    one.close_stdin()  # it was for one only
    assert await text_of(two.stdout) == "over\n"
    assert await end_of(one) is None
    assert (await box.runtime.wait("c")).exit_code == 0
    one.close()
    two.close()
    assert box.lines("c", "stdout") == ["got a", "over"]


async def test_stdin_for_many_stays_open(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sh", "-c", "while read line; do echo got $line; done", stdin=True))
    for word in ("a", "b"):
        session = box.runtime.attach("c", stdin=True, tty=False)
        await session.joined()
        await write(session.stdin, f"{word}\n".encode())
        await text_of(session.stdout, f"got {word}\n")
        session.close()


async def test_a_program_with_a_terminal(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sh", stdin=True, tty=True, **APP))
    session = box.runtime.attach("c", stdin=True, tty=True)
    await session.joined()
    session.resize(columns=90, rows=20)
    await write(session.stdin, b"tty; stty size; echo $TERM; exit 3\n")
    said = await text_of(session.stdout)
    assert "/dev/pts/0\r\n20 90\r\nxterm\r\n" in said
    assert (await box.runtime.wait("c")).exit_code == 3
    session.close()


async def test_who_does_not_read_holds_nothing_up(box: Box) -> None:
    await box.runtime.start(
        box.spec("c", "sh", "-c", "read go; head -c 5000000 /dev/zero | tr '\\0' x", stdin=True)
    )
    session = box.runtime.attach("c", stdin=True, tty=False)
    await session.joined()
    await write(session.stdin, b"go\n")
    async with asyncio.timeout(DEADLINE_S):
        assert (await box.runtime.wait("c")).exit_code == 0
    session.close()
    assert sum(len(line) for line in box.lines("c")) == 5_000_000


async def test_who_leaves_before_being_let_in_does_no_harm(box: Box) -> None:
    await box.runtime.start(
        box.spec("c", "sh", "-c", "read line; echo got $line", stdin=True, stdin_once=True)
    )
    shim = Folder(box.directory / "c").open_shim()
    assert shim is not None
    signal.pidfd_send_signal(shim, signal.SIGSTOP)
    try:
        for stdin in (True, False):
            box.runtime.attach("c", stdin=stdin, tty=False).close()
    finally:
        signal.pidfd_send_signal(shim, signal.SIGCONT)
        os.close(shim)
    session = box.runtime.attach("c", stdin=True, tty=False)
    await session.joined()
    await write(session.stdin, b"a\n")
    assert "got a" in await text_of(session.stdout, "got a\n")
    session.close()
    assert (await box.runtime.wait("c")).exit_code == 0


async def test_viewers_leave_room_for_probes(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    held = [
        box.runtime.open("c", ["sleep", "1000"], stdin=False, stderr=False, tty=False)
        for _ in range(VIEWERS_MOST - 1)
    ]
    held.append(box.runtime.attach("c", stdin=False, tty=False))
    assert not box.runtime.has_room("c")
    for ask in (
        lambda: box.runtime.open("c", ["true"], stdin=False, stderr=False, tty=False),
        lambda: box.runtime.attach("c", stdin=False, tty=False),
    ):
        with pytest.raises(OSError, match="56 commands and viewers"):
            ask()
    assert await box.runtime.exec("c", ["echo", "well"], DEADLINE_S) == ExecResult(0, b"well\n")
    held.pop().close()
    held.append(box.runtime.open("c", ["true"], stdin=False, stderr=False, tty=False))
    assert await end_of(held[-1]) == (0, False)
    for session in held:
        session.close()
    held = [
        box.runtime.open("c", ["true"], stdin=False, stderr=False, tty=False) for _ in range(VIEWERS_MOST)
    ]
    assert not box.runtime.has_room("c")
    for session in held:
        session.close()


def test_what_comes_late_is_bounded() -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    assert sum(len(data) for data in read_late(endless)) == 1 << 20
    os.close(endless)


async def test_a_child_that_never_stops_writing_holds_no_command_up(box: Box) -> None:
    await box.runtime.start(box.spec("c", "sleep", "1000"))
    script = "for n in 1 2 3 4; do cat /dev/zero & done; exit 3"
    done = await box.runtime.exec("c", ["sh", "-c", script], DEADLINE_S)
    assert (done.exit_code, done.timed_out) == (3, False)


async def test_without_stdin_it_reads_an_end(box: Box) -> None:
    assert (await box.run("c", "cat; echo end")).exit_code == 0
    assert box.lines("c") == ["end"]


async def test_a_file_below_dev_can_be_mounted_but_for_the_devices(box: Box, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.touch(0o666)
    message.chmod(0o666)
    mounts = (Mount(message, "/dev/termination-log"),)
    script = "echo why > /dev/termination-log; echo x > /dev/null"
    assert (await box.run("c", script, mounts=mounts, read_only_root=True, **APP)).exit_code == 0
    assert message.read_text() == "why\n"
    for place in ("/dev", "/dev/null", "/dev/pts/0", "/dev/fd"):
        with pytest.raises(StartError, match=f"nothing can be mounted at {place}"):
            await box.runtime.start(box.spec("d", "true", mounts=(Mount(message, place),)))
