"""What a shim does, from its plan (read from stdin, in marshal's form) to the end of its container.

`run` starts the container as PID 1 of a PID namespace, answers one line on stdout (`ok` or the failure), and then
stays: writes the log, and at the end records the exit in `state.json`. It is nobody's child (so that the node agent
can come and go), holds a lock on the container's folder for as long as it lives, and does not reap its child before
it ends itself, so that the recorded pid means this container while the lock is held. If it is killed, the kernel
kills the container.

Meanwhile it carries out `commands` inside the container for whoever may open its door.

Standard library only, and as little of it as will do: `json`, `signal` or `subprocess` would double the start.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: PTH104, S302, SIM105

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an import of enum
import errno
import marshal
import os
import select
import sys
import time

import commands  # type: ignore[import-not-found]
import crilog  # type: ignore[import-not-found]
import door  # type: ignore[import-not-found]
import sandbox  # type: ignore[import-not-found]

STATE_BYTES = 4096
_READ_BYTES = 1 << 16


def run(plan: dict) -> None:
    if os.fork():
        os._exit(0)
    for number in commands.SHIM_IGNORES:
        _signal.signal(number, _signal.SIG_IGN)
    state = {"phase": "created", "shim": os.getpid(), "pid": 0, "started_ns": time.time_ns()}
    try:
        _reserve(plan["dir"])
        _save(plan["dir"], state)
        entry = door.build(plan["dir"])
    except OSError as error:  # the node lacks something (room, say): no run of the program has failed
        _fail(plan, state, "CreateContainerError", _why(error))
    try:
        program = _start(plan)
    except sandbox.SetupError as error:
        _fail(plan, state, error.reason, str(error))
    except OSError as error:
        _fail(plan, state, "RunContainerError", _why(error))
    state |= {"phase": "running", "pid": program.pid, "pid_start": _start_ticks(program.pid)}
    state["started_ns"] = time.time_ns()
    _save(plan["dir"], state)
    log = crilog.CriLog(plan["log"])  # there as soon as the container runs
    _answer(b"ok\n" + program.warning.encode())
    _follow(plan, program, entry, log)
    log.finish(time.time_ns())
    info = os.waitid(os.P_PIDFD, program.pidfd, os.WEXITED | os.WNOWAIT)
    assert info is not None  # noqa: S101
    exited = info.si_code == os.CLD_EXITED
    code = info.si_status if exited else 128 + info.si_status
    state |= {
        "phase": "exited",
        "exit_code": code,
        "signal": 0 if exited else info.si_status,
        "oom_killed": code != 0 and _oom_kills(plan["oom_file"]) > 0,
        "finished_ns": time.time_ns(),
        "log_lines_dropped": log.dropped,
        "reason": "",
    }
    _save(plan["dir"], state)


class _Program:
    """PID 1 of the container: its process, what it writes to (read ends), what it reads from (-1: nothing)."""

    def __init__(self, pid: int, outputs: dict[int, bytes], input: int, terminal: bool, warning: str) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.outputs = outputs
        self.input = input
        self.terminal = terminal
        self.warning = warning


def _start(plan: dict) -> _Program:
    """Fork PID 1 and wait until the program has been executed."""
    error_read, error_write = os.pipe()
    procs = [os.open(path, os.O_WRONLY) for path in plan["join_files"]]
    if plan["user_namespace"]:
        sandbox.enter_user_namespace(plan["uid"], plan["gid"])
    streams, outputs, typed, near = _make_streams(plan)
    try:
        sandbox.unshare(sandbox.CLONE_NEWPID)
    except PermissionError as error:
        raise sandbox.SetupError(
            "RunContainerError", "root without CAP_SYS_ADMIN makes no containers"
        ) from error
    child = os.fork()
    if child == 0:
        os.close(error_read)
        _inside(plan, procs, streams, error_write)
    for fd in (*streams, error_write, *procs):
        os.close(fd)
    said = _read_all(error_read)
    os.close(error_read)
    reason, found, message = said.decode(errors="replace").partition("\0")
    if found:
        os.waitpid(child, 0)
        raise sandbox.SetupError(reason, message)
    if near is not None:
        typed = door.take_over(near, 1)[1][0]
        near.close()
        outputs[typed] = b"stdout"
    return _Program(child, outputs, typed, near is not None, reason)


def _make_streams(plan: dict) -> tuple[list[int], dict[int, bytes], int, door.Socket | None]:
    """The container's ends (its stdin, stdout, stderr; one socket where it makes a terminal), and the shim's."""
    if plan["tty"]:
        near, far = door.pair()
        return [far.detach()], {}, -1, near
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    if plan["stdin"]:
        stdin, typed = os.pipe()
    else:
        stdin, typed = os.open("/dev/null", os.O_RDONLY), -1
    streams = [stdin, out_write, err_write]
    if not plan["user_namespace"]:
        # So that /dev/stdout can be opened again by the container's user.
        for fd in streams[0 if plan["stdin"] else 1 :]:
            os.fchown(fd, plan["uid"], plan["gid"])
    return streams, {out_read: b"stdout", err_read: b"stderr"}, typed, None


def _inside(plan: dict, procs: list[int], streams: list[int], error_fd: int) -> None:
    """PID 1 up to its exec. `error_fd` closes by the exec; what it says before is a warning or the failure."""
    try:
        os.setsid()
        commands.plain_signals()
        os.umask(0o022)
        sandbox.build_root(plan["staging"], plan["steps"], plan["hostname"], plan["read_only_root"])
        if refused := sandbox.join_cgroup(procs):
            os.write(error_fd, b"%d of %d cgroups could not be joined" % (refused, len(procs)))
        sandbox.drop_bounding_set(plan["uid"])
        sandbox.become(plan["uid"], plan["gid"], plan["groups"], plan["user_namespace"])
        _die_if_orphaned(error_fd)
        if plan["tty"]:
            master, slave = sandbox.open_terminal()
            door.hand_over(door.as_socket(streams[0]), b"t", master)
            streams = [slave, slave, slave]
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        sandbox.execute(plan["argv"], plan["env"], plan["cwd"])
    except sandbox.SetupError as error:
        _tell(error_fd, error.reason, str(error))
    except OSError as error:
        _tell(error_fd, "RunContainerError", f"{error.filename or ''}: {error.strerror}".lstrip(": "))
    except BaseException as error:
        _tell(error_fd, "RunContainerError", repr(error))
    os._exit(128)


def _die_if_orphaned(error_fd: int) -> None:
    """The shim may have died before the kernel was told to kill us with it: then nobody reads this pipe."""
    poll = select.poll()
    poll.register(error_fd, select.POLLOUT)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        os._exit(137)


def _tell(fd: int, reason: str, message: str) -> None:
    os.write(fd, f"{reason}\0{message}".encode())


def _follow(plan: dict, program: _Program, entry: door.Socket, log: crilog.CriLog) -> None:
    """Copy the output to the log until the container has ended and nothing is left to read; obey meanwhile."""
    poll = select.poll()
    sandbox.drop_bounding_set(
        plan["uid"]
    )  # once, for all commands to come; what this process holds, it keeps
    guests = commands.Commands(plan, entry, program.pid, poll)
    guests.input, guests.terminal = program.input, program.terminal
    for fd in (program.pidfd, *program.outputs):
        poll.register(fd, select.POLLIN)
    alive = True
    while True:
        events = poll.poll(guests.timeout_ms() if alive else 0)
        if not events and not alive:
            return
        for fd, _ in events:
            if fd == program.pidfd:
                alive = False
                poll.unregister(fd)
                guests.close_door()
            elif (stream := program.outputs.get(fd)) is None:
                guests.handle(fd)
            elif data := _read_some(fd):
                log.feed(stream, data, time.time_ns())
                guests.show(stream, data)
            elif data is not None:
                poll.unregister(fd)
        guests.kill_overdue()


def _read_some(fd: int) -> bytes | None:
    """What is there; b"" at the end, which a terminal that nobody has open any more tells by EIO."""
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:  # who joined a terminal may have made it so
        return None
    except OSError:
        return b""


def _why(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}"


def _fail(plan: dict, state: dict, reason: str, message: str) -> None:
    now = time.time_ns()
    state |= {"phase": "exited", "exit_code": 128, "signal": 0, "oom_killed": False, "finished_ns": now}
    state |= {"log_lines_dropped": 0, "reason": f"{reason}: {message}"}
    try:
        _save(plan["dir"], state)
    except OSError:
        pass  # the agent removes the folder; without an agent, it finds a start that came to nothing
    _answer(f"{reason}\n{message}".encode())
    os._exit(1)


def _reserve(folder: str) -> None:
    """Take the room of all states now: on a full disk they can still be overwritten and renamed."""
    for phase in ("created", "running", "exited"):
        fd = os.open(f"{folder}/state.{phase}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        room = os.write(fd, b" " * STATE_BYTES)
        os.close(fd)
        if room < STATE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{folder}/state.{phase}")


def _save(folder: str, state: dict) -> None:
    path = f"{folder}/state.{state['phase']}"
    body = "{" + ", ".join(f'"{key}": {_json(value)}' for key, value in state.items()) + "}\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, body.encode().ljust(STATE_BYTES))
    os.close(fd)
    os.rename(path, folder + "/state.json")


def _json(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)[:500].replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c <= "~" else f"\\u{min(ord(c), 0xFFFF):04x}" for c in text) + '"'


def _start_ticks(pid: int) -> int:
    """When a process started (clock ticks since boot): with its pid, who it is."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    fields = os.read(fd, 4096).rpartition(b")")[2].split()
    os.close(fd)
    return int(fields[19])


def _oom_kills(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return 0
    lines = os.read(fd, 4096).splitlines()
    os.close(fd)
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"oom_kill "))


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, _READ_BYTES):
        parts.append(part)
    return b"".join(parts)


def _answer(text: bytes) -> None:
    """Say the one thing that stdout is for, and close it (the asker waits for its end)."""
    while text:
        text = text[os.write(1, text) :]
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)


def main() -> None:
    lock = int(sys.argv[2])
    if lock >= 0:
        os.set_inheritable(lock, False)
    plan = marshal.loads(_read_all(0))
    run(plan)
