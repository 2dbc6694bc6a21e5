"""What a shim does, from its plan (read from stdin, in marshal's form) to the end of its container.

`run` starts the container as PID 1 of a PID namespace, answers one line on stdout (`ok` or the failure), and then
stays: writes the log, and at the end records the exit in `state.json`. It is nobody's child (so that the node agent
can come and go), holds a lock on the container's folder for as long as it lives, and does not reap its child before
it ends itself, so that the recorded pid means this container while the lock is held. If it is killed, the kernel
kills the container.

`exec` runs one command inside a running container and answers with its exit and output.

Standard library only, and as little of it as will do: `json`, `signal` or `subprocess` would double the start.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: PTH104, S302, SIM105

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` costs an import of enum
import marshal
import os
import select
import sys
import time

import crilog  # type: ignore[import-not-found]
import sandbox  # type: ignore[import-not-found]

STATE_BYTES = 4096
_READ_BYTES = 1 << 16
_OUTPUT_MAX_BYTES = 1 << 20
_IGNORED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
_NAMESPACES = (
    ("uts", sandbox.CLONE_NEWUTS),
    ("ipc", sandbox.CLONE_NEWIPC),
    ("pid", sandbox.CLONE_NEWPID),
    ("mnt", sandbox.CLONE_NEWNS),
)


def run(plan: dict) -> None:
    if os.fork():
        os._exit(0)
    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    state = {"phase": "created", "shim": os.getpid(), "pid": 0, "started_ns": time.time_ns()}
    try:
        _reserve(plan["dir"])
        _save(plan["dir"], state)
        child, pidfd, streams, warning = _start(plan)
    except sandbox.SetupError as error:
        _fail(plan, state, error.reason, str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(plan, state, "RunContainerError", f"{place}{error.strerror}")
    state |= {"phase": "running", "pid": child, "pid_start": _start_ticks(child)}
    state["started_ns"] = time.time_ns()
    _save(plan["dir"], state)
    log = crilog.CriLog(plan["log"])  # there as soon as the container runs
    _answer(b"ok\n" + warning.encode())
    _follow(pidfd, streams, log)
    log.finish(time.time_ns())
    info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
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


def _start(plan: dict) -> tuple[int, int, dict[int, bytes], str]:
    """Fork PID 1 and wait until the program has been executed."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    error_read, error_write = os.pipe()
    procs = [os.open(path, os.O_WRONLY) for path in plan["join_files"]]
    if plan["user_namespace"]:
        sandbox.enter_user_namespace(plan["uid"], plan["gid"])
    else:
        # So that /dev/stdout can be opened again by the container's user.
        os.fchown(out_write, plan["uid"], plan["gid"])
        os.fchown(err_write, plan["uid"], plan["gid"])
    try:
        sandbox.unshare(sandbox.CLONE_NEWPID)
    except PermissionError as error:
        raise sandbox.SetupError(
            "RunContainerError", "root without CAP_SYS_ADMIN makes no containers"
        ) from error
    child = os.fork()
    if child == 0:
        os.close(error_read)
        _inside(plan, procs, (out_write, err_write), error_write)
    pidfd = os.pidfd_open(child)
    for fd in (out_write, err_write, error_write, *procs):
        os.close(fd)
    said = _read_all(error_read)
    os.close(error_read)
    reason, found, message = said.decode(errors="replace").partition("\0")
    if found:
        os.waitpid(child, 0)
        raise sandbox.SetupError(reason, message)
    return child, pidfd, {out_read: b"stdout", err_read: b"stderr"}, reason


def _inside(plan: dict, procs: list[int], output: tuple[int, int], error_fd: int) -> None:
    """PID 1 up to its exec. `error_fd` closes by the exec; what it says before is a warning or the failure."""
    try:
        os.setsid()
        _plain_signals()
        os.umask(0o022)
        sandbox.build_root(plan["staging"], plan["steps"], plan["hostname"], plan["read_only_root"])
        null = os.open("/dev/null", os.O_RDONLY)
        for number, fd in enumerate((null, *output)):
            os.dup2(fd, number)
        if refused := sandbox.join_cgroup(procs):
            os.write(error_fd, b"%d of %d cgroups could not be joined" % (refused, len(procs)))
        sandbox.become(plan["uid"], plan["gid"], plan["groups"], plan["user_namespace"])
        _die_if_orphaned(error_fd)
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


def _plain_signals() -> None:
    """Undo what Python and the shim changed: a program starts with the default dispositions and no mask."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, *_IGNORED):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _follow(pidfd: int, streams: dict[int, bytes], log: crilog.CriLog) -> None:
    """Copy the output to the log until the container has ended and nothing is left to read."""
    poll = select.poll()
    for fd in (pidfd, *streams):
        poll.register(fd, select.POLLIN)
    alive = True
    while True:
        events = poll.poll(None if alive else 0)
        if not events:
            return
        for fd, _ in events:
            if fd == pidfd:
                alive = False
                poll.unregister(pidfd)
            elif data := os.read(fd, _READ_BYTES):
                log.feed(streams[fd], data, time.time_ns())
            else:
                poll.unregister(fd)


def execute(plan: dict) -> None:
    """Run a command in a container; answers `code timed_out\\n` and the output, `!` and why not, `?` if it ended."""
    output_read, output_write = os.pipe()
    error_read, error_write = os.pipe()
    try:
        child = _enter(plan, output_write, error_read, error_write)
    except OSError:
        _answer(b"?")  # it is ending
        return
    os.close(output_write)
    os.close(error_write)
    pidfd = os.pidfd_open(child)
    _, found, message = _read_all(error_read).decode(errors="replace").partition("\0")
    if found:
        _answer(f"!{message}".encode())
        return
    output, timed_out = _collect(pidfd, output_read, time.monotonic() + plan["timeout_s"])
    if timed_out:
        try:
            os.killpg(child, _signal.SIGKILL)
        except ProcessLookupError:
            pass
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _answer(b"%d %d\n%s" % (code if code >= 0 else 128 - code, timed_out, output))


def _enter(plan: dict, output_write: int, error_read: int, error_write: int) -> int:
    procs = [os.open(path, os.O_WRONLY) for path in plan["join_files"]]
    kinds = ((("user", sandbox.CLONE_NEWUSER),) if plan["user_namespace"] else ()) + _NAMESPACES
    namespaces = [(os.open(f"/proc/{plan['pid']}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds]
    *before, (mount_namespace, mount_kind) = namespaces
    for fd, kind in before:
        sandbox.setns(fd, kind)
    child = os.fork()
    if child:
        return child
    try:
        os.close(error_read)
        os.setsid()
        _plain_signals()
        sandbox.setns(mount_namespace, mount_kind)
        sandbox.join_cgroup(procs)
        null = os.open("/dev/null", os.O_RDONLY)
        for number, fd in enumerate((null, output_write, output_write)):
            os.dup2(fd, number)
        sandbox.become(plan["uid"], plan["gid"], plan["groups"], plan["user_namespace"])
        sandbox.execute(plan["argv"], plan["env"], plan["cwd"])
    except BaseException as error:
        _tell(error_write, "RunContainerError", str(error))
    os._exit(128)


def _collect(pidfd: int, source: int, deadline: float) -> tuple[bytes, bool]:
    """Read the output until the command ends (not until its output closes: a background child may hold it)."""
    parts: list[bytes] = []
    size = 0
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(source, select.POLLIN)
    alive = True
    while True:
        left_ms = max(0.0, (deadline - time.monotonic()) * 1000) if alive else 0
        events = poll.poll(left_ms)
        if not events:
            return b"".join(parts), alive
        for fd, _ in events:
            if fd == pidfd:
                alive = False
                poll.unregister(pidfd)
            elif data := os.read(source, _READ_BYTES):
                parts.append(data[: max(0, _OUTPUT_MAX_BYTES - size)])
                size += len(data)
            else:
                poll.unregister(source)


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
        os.write(fd, b" " * STATE_BYTES)
        os.close(fd)


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
    (run if sys.argv[1] == "run" else execute)(plan)
