"""What a shim does on request while its container runs: commands inside it, and joining its streams.

Who knocks (see `door`) hands over the descriptors that are to be used as streams, so the data never passes through the
shim, and a command costs one fork.

Closing the connection kills the command and its process group. Every process here is a child of the shim inside the
container's PID namespace: it ends with the container, and has to be reaped at once, or the container can't end.

Loaded by the shim under `python -I -S`: standard library only, cheap imports only.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: S302, SIM105

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import marshal
import os
import select
import time

import door  # type: ignore[import-not-found]
import sandbox  # type: ignore[import-not-found]

MOST = 64
"""Connections at a time; more have to wait outside."""

_NAMESPACES = (
    ("uts", sandbox.CLONE_NEWUTS),
    ("ipc", sandbox.CLONE_NEWIPC),
    ("mnt", sandbox.CLONE_NEWNS),
)
SHIM_IGNORES = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)


def plain_signals() -> None:
    """Undo what Python and the shim changed: a program starts with the default dispositions and no mask."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, *SHIM_IGNORES):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


class _Guest:
    """One connection: what it asked for, and what runs for it."""

    def __init__(self, connection: door.Socket) -> None:
        self.connection = connection
        self.asked = False
        self.pid = 0
        self.pidfd = -1
        self.deadline = 0.0
        self.timed_out = False
        self.outputs: dict[bytes, int] = {}
        self.holds_stdin = False


class Commands:
    """The guests of one container; the shim's loop hands events to `handle` and output to `show`."""

    def __init__(self, plan: dict, entry: door.Socket, program: int, poll: select.poll) -> None:
        self._plan = plan
        self._door = entry
        self._program = program
        self._poll = poll
        self._guests: dict[int, _Guest] = {}
        self._running: dict[int, _Guest] = {}
        self.input = -1
        """Where what is typed for the container goes: its stdin, or the master of its terminal."""
        self.terminal = False
        poll.register(entry.fileno(), select.POLLIN)

    def handle(self, fd: int) -> None:
        """Something happened to one of our descriptors."""
        if fd == self._door.fileno():
            self._let_in()
        elif (guest := self._running.get(fd)) is not None:
            self._ended(guest)
        elif (guest := self._guests.get(fd)) is not None:
            self._hear(guest)

    def timeout_ms(self) -> float | None:
        """Until the next deadline; None where there is none."""
        waits = [guest.deadline for guest in self._running.values() if guest.deadline]
        return max(0.0, (min(waits) - time.monotonic()) * 1000) if waits else None

    def kill_overdue(self) -> None:
        now = time.monotonic()
        for guest in self._running.values():
            if guest.deadline and guest.deadline <= now:
                guest.deadline, guest.timed_out = 0.0, True
                _kill_group(guest.pid)

    def show(self, stream: bytes, data: bytes) -> None:
        """Pass output on to who has joined; what one is too slow for, that one doesn't get (the log has it all)."""
        for guest in self._guests.values():
            if (fd := guest.outputs.get(stream, -1)) >= 0:
                try:
                    os.write(fd, data)
                except OSError:
                    pass

    def close_door(self) -> None:
        """The container has ended: nobody is let in any more."""
        if len(self._guests) < MOST:
            self._poll.unregister(self._door.fileno())
        self._door.close()

    def _let_in(self) -> None:
        try:
            fd, _ = self._door._accept()
        except OSError:
            return
        connection = door.as_socket(fd)
        connection.setblocking(False)
        self._guests[fd] = _Guest(connection)
        self._poll.register(fd, select.POLLIN)
        if len(self._guests) == MOST:
            self._poll.unregister(self._door.fileno())  # until one leaves

    def _leave(self, guest: _Guest) -> None:
        fd = guest.connection.fileno()
        if len(self._guests) == MOST and self._door.fileno() >= 0:
            self._poll.register(self._door.fileno(), select.POLLIN)
        del self._guests[fd]
        self._poll.unregister(fd)
        guest.connection.close()
        for output in guest.outputs.values():
            os.close(output)
        if guest.holds_stdin and self._plan["stdin_once"]:
            self._end_input()

    def _hear(self, guest: _Guest) -> None:
        try:
            data, fds = door.take_over(guest.connection, door.REQUEST_BYTES)
        except BlockingIOError:  # what happened, happened to the connection that had this number before
            return
        except OSError:
            data, fds = b"", []
        try:
            if not data:  # it has gone
                if guest.pid:
                    _kill_group(guest.pid)
                self._leave(guest)
            elif guest.asked:
                if data == b"e" and guest.holds_stdin and self._plan["stdin_once"]:
                    self._end_input()
            else:
                guest.asked = True
                request = marshal.loads(data)
                if request["argv"]:
                    self._run(guest, request, fds)
                else:
                    given, fds = fds, []  # they are the guest's from here on, who may be gone already
                    self._join(guest, request, given)
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            self._leave(guest)
        finally:
            for fd in fds:
                os.close(fd)

    def _end_input(self) -> None:
        if self.input >= 0 and not self.terminal:
            os.close(self.input)
            self.input = -1

    def _join(self, guest: _Guest, request: dict, fds: list[int]) -> None:
        guest.outputs = dict(zip((b"stdout", b"stderr"), fds, strict=False))
        types = bool(request["stdin"])
        if self.input >= 0 and (self.terminal or types):
            door.hand_over(guest.connection, b"+", self.input)
        else:
            guest.connection.send(b"+")
        guest.holds_stdin = types  # who never got in, ends nothing by leaving

    def _run(self, guest: _Guest, request: dict, fds: list[int]) -> None:
        child = os.fork()
        if child == 0:
            self._inside(guest.connection, request, fds)
        try:
            guest.pidfd = os.pidfd_open(child)
        except OSError:
            os.kill(child, _signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        guest.pid = child
        if request["timeout_s"]:
            guest.deadline = time.monotonic() + request["timeout_s"]
        self._running[guest.pidfd] = guest
        self._poll.register(guest.pidfd, select.POLLIN)

    def _inside(self, connection: door.Socket, request: dict, fds: list[int]) -> None:
        """The command's process up to its exec; never returns."""
        plan, code = self._plan, 126
        try:
            connection.setblocking(True)
            os.setsid()
            plain_signals()
            procs = [os.open(path, os.O_WRONLY) for path in plan["join_files"]]
            kinds = [
                (os.open(f"/proc/{self._program}/ns/{name}", os.O_RDONLY), kind) for name, kind in _NAMESPACES
            ]
            for fd, kind in kinds:
                sandbox.setns(fd, kind)
            sandbox.join_cgroup(procs)
            sandbox.become(plan["uid"], plan["gid"], plan["groups"], plan["user_namespace"])
            env = plan["env"]
            if request["tty"]:
                master, slave = sandbox.open_terminal()
                door.hand_over(connection, b"t", master)
                fds = [slave, slave, slave]
                env = {"TERM": "xterm", **env}
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            sandbox.execute(request["argv"], env, plan["cwd"])
        except sandbox.NotThere as error:
            code, why = 127, str(error)
        except BaseException as error:
            why = str(error)
        try:
            connection.send(f"!{code} {why}".encode(errors="replace")[:4096])
        finally:
            os._exit(code)

    def _ended(self, guest: _Guest) -> None:
        reaped, status = os.waitpid(guest.pid, os.WNOHANG)
        if not reaped:  # what ended, had this descriptor before
            return
        self._poll.unregister(guest.pidfd)
        os.close(guest.pidfd)
        del self._running[guest.pidfd]
        code = os.waitstatus_to_exitcode(status)
        guest.pid = 0
        if guest.connection.fileno() < 0:
            return  # it has left already
        try:
            guest.connection.send(b"=%d %d" % (code if code >= 0 else 128 - code, guest.timed_out))
        except OSError:
            pass
        self._leave(guest)


def _kill_group(pid: int) -> None:
    """Kill a command (a session's leader) with its process group; it may not have made its session yet."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, _signal.SIGKILL)
        except ProcessLookupError:
            pass
