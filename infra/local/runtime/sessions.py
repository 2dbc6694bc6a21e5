"""Commands inside a running container, and joining its streams: the agent's side of a shim's door (`commands`).

Everything is non-blocking descriptors in the event loop, without transports: an exec probe is asked all day for every
pod, and costs the agent a pipe, a connection and three wake-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import marshal
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from infra.local.runtime import door
from infra.local.runtime.spec import ExecResult, NoSuchContainer

OUTPUT_MAX_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_LATE_BYTES = 1 << 20
_JOINED_PIPE_BYTES = 1 << 20


class Session:
    """A command that runs in a container, or the container's own program joined; for one event loop.

    `stdin`, `stdout` and `stderr` are non-blocking descriptors of ours (-1: none); with a terminal the first two are
    the same. `close` ends the command with its process group; it has to be called, also after the end.
    """

    def __init__(self, container: str, connection: socket.socket) -> None:
        self.container = container
        self.stdin = self.stdout = self.stderr = -1
        self.terminal = False
        self.guest = False
        """It has joined the container's own program."""
        self.refusal: str | None = None
        self.on_close: Callable[[], None] | None = None
        """Called by the first `close`."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[tuple[int, bool] | None] = self._loop.create_future()
        self._joined: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(connection, self._hear)

    def _hear(self) -> None:
        try:
            data, fds = door.take_over(self._connection, door.REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        word, rest = data[:1], data[1:].decode(errors="replace")
        if word == b"!":
            code, _, why = rest.partition(" ")
            self.refusal = why or f"exit code {code}"
        elif word in (b"t", b"+"):
            for fd in fds:
                os.set_blocking(fd, False)
                self.stdin = fd
            if word == b"t" and fds:
                self.stdout = self.stdin
        elif not self._end.done():
            self._loop.remove_reader(self._connection)
            code, _, late = rest.partition(" ")
            self._end.set_result((int(code), late == "1") if word == b"=" else None)
        self.streams_are_there()

    def streams_are_there(self) -> None:
        """Let go who waits in `joined`."""
        if not self._joined.done():
            self._joined.set_result(None)

    async def joined(self) -> None:
        """Wait for the first word: the terminal is there, the program's streams are, or it is over already."""
        await asyncio.shield(self._joined)

    async def ended(self) -> tuple[int, bool] | None:
        """(exit code, ended by its deadline), or None where the container ended first; any number of waiters."""
        return await asyncio.shield(self._end)

    def resize(self, columns: int, rows: int) -> None:
        """Tell a terminal its size."""
        if self.terminal and self.stdin >= 0:
            with contextlib.suppress(OSError, struct.error):
                fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_stdin(self) -> None:
        """No more input; the other side reads an end of file (a terminal's input has no end)."""
        if self.terminal or self.stdin < 0:
            return
        os.close(self.stdin)
        self.stdin = -1
        if (
            self.guest
        ):  # (a shim that closes a connection with something unread in it takes its last word back)
            with contextlib.suppress(OSError):
                self._connection.send(b"e")

    def close(self) -> None:
        told, self.on_close = self.on_close, None
        if told is not None:
            told()
        self._loop.remove_reader(self._connection)
        self._connection.close()
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)
        self.stdin = self.stdout = self.stderr = -1
        for future in (self._end, self._joined):
            if not future.done():
                future.cancel()

    async def collect(self) -> ExecResult:
        """Read stdout until the command ends (not until its output closes: a background child may hold it).

        Raises:
            NoSuchContainer: the container ended meanwhile.
        """
        parts: list[bytes] = []
        size = 0

        def take() -> None:
            nonlocal size
            if data := read_now(self.stdout):
                parts.append(data[: max(0, OUTPUT_MAX_BYTES - size)])
                size += len(data)
            elif data == b"":
                self._loop.remove_reader(self.stdout)

        self._loop.add_reader(self.stdout, take)
        end = await self.ended()
        self._loop.remove_reader(self.stdout)
        for data in read_late(self.stdout):
            parts.append(data[: max(0, OUTPUT_MAX_BYTES - size)])
            size += len(data)
        if end is None:
            raise NoSuchContainer(f"container {self.container} ended while a command ran in it")
        output = b"".join(parts) if self.refusal is None else self.refusal.encode()
        return ExecResult(end[0], output, end[1])


def read_now(fd: int) -> bytes | None:
    """What is there to read: b"" at the end (for a terminal: EIO), None where there is nothing yet."""
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def read_late(fd: int) -> Iterator[bytes]:
    """What a command that has ended left in its pipe, of a MiB at most: its child may go on writing for ever."""
    left = _LATE_BYTES
    while left > 0 and (data := read_now(fd)):
        left -= len(data)
        yield data


async def read(fd: int) -> bytes:
    """Wait for something to read; b"" at the end."""
    loop = asyncio.get_running_loop()
    while (data := read_now(fd)) is None:
        await _ready(fd, loop.add_reader, loop.remove_reader)
    return data


async def write(fd: int, data: bytes) -> None:
    """Write all of it. Raises OSError where nobody reads any more."""
    loop, left = asyncio.get_running_loop(), memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            await _ready(fd, loop.add_writer, loop.remove_writer)


async def _ready(fd: int, add: Any, remove: Any) -> None:
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)


def run(
    folder: Path,
    argv: Sequence[str],
    *,
    timeout_s: float = 0.0,
    stdin: bool = False,
    errors: Literal["apart", "merged", "none"] = "merged",
    tty: bool = False,
) -> Session:
    """Have a command run in the container of that folder; at once, the outcome comes with the session.

    With `tty` its streams are a terminal of the container's (wait for `joined`); a `timeout_s` of 0 is none.

    Raises:
        NoSuchContainer: it doesn't run.
        ValueError: the command is empty or too long.
    """
    request = {"argv": [str(word) for word in argv], "tty": tty, "timeout_s": timeout_s}
    if not argv or len(packet := marshal.dumps(request)) > door.REQUEST_BYTES:
        raise ValueError(f"a command has 1 to {door.REQUEST_BYTES:,} characters")
    if tty:
        session = _ask(folder, packet, [])
        session.terminal = True
        return session
    ours: list[int] = []
    theirs: list[int] = []
    try:
        theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        ours.append(-1)
        if stdin:
            os.close(theirs.pop())
            read_end, ours[0] = os.pipe2(os.O_CLOEXEC)
            theirs.append(read_end)
        for wanted in (True, errors == "apart"):
            if wanted:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                ours.append(read_end)
                theirs.append(write_end)
            else:
                ours.append(-1)
        if errors == "none":
            theirs.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        elif errors == "merged":
            theirs.append(os.dup(theirs[1]))
        session = _ask(folder, packet, theirs)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    _give(session, ours)
    session.streams_are_there()
    return session


def join(folder: Path, *, stdin: bool, tty: bool) -> Session:
    """Join the container's own streams from now on (wait for `joined`).

    Raises:
        NoSuchContainer: it doesn't run.
    """
    ours, theirs = [-1], []
    try:
        for _ in range(1 if tty else 2):
            read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ours.append(read_end)
            theirs.append(write_end)
            with contextlib.suppress(OSError):
                fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _JOINED_PIPE_BYTES)
        session = _ask(folder, marshal.dumps({"argv": [], "stdin": stdin}), theirs)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    session.terminal, session.guest = tty, True
    _give(session, ours)
    return session


def _give(session: Session, ours: list[int]) -> None:
    for fd in ours:
        if fd >= 0:
            os.set_blocking(fd, False)
    session.stdin, session.stdout, session.stderr = (*ours, -1)[:3]


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _ask(folder: Path, packet: bytes, fds: list[int]) -> Session:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setblocking(False)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{at}/{door.NAME}")
        finally:
            os.close(at)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        connection.sendmsg([packet], control)
        return Session(folder.name, connection)
    except (FileNotFoundError, ConnectionError) as error:
        connection.close()
        raise NoSuchContainer(f"container {folder.name} doesn't run") from error
    except BlockingIOError as error:
        connection.close()
        raise OSError(f"too many commands wait to be run in container {folder.name}") from error
    except BaseException:
        connection.close()
        raise
