"""The inside of a container: its root file system, its identity and the step into the program.

Runs in the forked child of a shim, as a script's module under `python -I -S`: standard library only, and nothing may
be imported once the root has been changed. Relies on Linux ≥ 5.3 and on CAP_SYS_ADMIN, the host's or that of a user
namespace of its own. Nothing is ever mounted in the host's namespace: all mounts are made private first, and the
host's root is detached at the end, so that a path outside the plan can't be reached.

There is no seccomp filter: `RuntimeDefault` is taken as given, not enforced.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: PTH101, PTH102, PTH106, PTH110, PTH112, PTH115, PTH116, PTH118, PTH120, PTH208, PTH211, S108, S606

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_RELATIME = 1 << 21
_ST_RELATIME = 4096
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SIGKILL = 9
_TIOCSCTTY, _TIOCGPTN, _TIOCSPTLCK = 0x540E, 0x80045430, 0x40045431
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

_OLD = "/.host"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_PROC_MASKED = ("kcore", "keys", "timer_list", "sched_debug")
_MIMIC_MAX_ENTRIES = 4000

# What uid 0 keeps: the usual set of container runtimes, by capability number (chown, dac_override, fowner, fsetid,
# kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap).
_ROOT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.sethostname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


class SetupError(Exception):
    """A container that can't be made: the kubelet's word for it, and why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotThere(SetupError):
    """A program that isn't there."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    _check(_libc.mount(raw(source), os.fsencode(target), raw(kind), flags, raw(options)), f"mount {target}")


def enter_user_namespace(uid: int, gid: int) -> None:
    """Become `uid`:`gid` of a new user namespace, in which they stand for the caller's own identity."""
    own_uid, own_gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER)
        _write("/proc/self/setgroups", b"deny")
        _write("/proc/self/uid_map", f"{uid} {own_uid} 1".encode())
        _write("/proc/self/gid_map", f"{gid} {own_gid} 1".encode())
    except OSError as error:
        raise SetupError(
            "CreateContainerConfigError",
            f"user {uid}:{gid} can't be honoured: not root, and a user namespace can't be made ({error.strerror})",
        ) from error


def build_root(staging: str, steps: list[tuple], hostname: str, read_only: bool) -> None:
    """Make the mount namespace with the planned root, and go into it.

    `steps` are made in order: ("dir", path), ("file", path, data, mode), ("link", path, target), ("tmpfs", path),
    ("bind", source on the host, path, read_only).
    """
    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    _check(_libc.sethostname(hostname.encode(), len(hostname.encode())), "sethostname")
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    submounts = _mount_points()
    _pivot(staging)
    _make_proc()
    _make_dev()
    mimics: list[str] = []
    for step in steps:
        try:
            _apply(step, submounts, mimics)
        except OSError as error:
            place = step[2] if step[0] == "bind" else step[1]
            raise SetupError("RunContainerError", f"{place}: {error.strerror or error}") from error
    _seal_proc()
    _check(_libc.umount2(_OLD.encode(), _MNT_DETACH), "detach the host's root")
    os.rmdir(_OLD)
    for place in mimics:
        _remount(place, read_only=True)
    if read_only:
        _remount("/dev", read_only=True, devices=True)
        _remount("/", read_only=True)


def drop_bounding_set(uid: int) -> None:
    """Leave no more capabilities to what is executed from here on than that user's programs may have."""
    keep = _ROOT_CAPABILITIES if uid == 0 else frozenset()
    for capability in range(64):
        if capability in keep:
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # EINVAL: past the last capability that this kernel knows


def become(uid: int, gid: int, groups: list[int], user_namespace: bool) -> None:
    """Take the identity, for good: no new privileges, and die with the parent (after `drop_bounding_set`)."""
    try:
        if not user_namespace:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    except OSError as error:
        raise SetupError(
            "CreateContainerConfigError", f"user {uid}:{gid} can't be honoured: {error.strerror}"
        ) from error
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # After the change of identity, which clears it.
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "pdeathsig")


def execute(argv: list[str], env: dict[str, str], working_dir: str) -> None:
    """Replace this process by the program; returns never, raises SetupError when it can't be."""
    try:
        os.chdir(working_dir)
    except OSError as error:
        message = f"working directory {working_dir!r}: {error.strerror}"
        raise SetupError("RunContainerError", message) from error
    name = argv[0]
    kind: type[SetupError] = NotThere
    folders = [""] if "/" in name else env.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":")
    failure = f"exec: {name!r}: " + ("no such file" if "/" in name else "executable file not found in $PATH")
    for folder in folders:
        path = os.path.join(folder, name) if folder else name
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure, kind = f"exec: {path!r}: {error.strerror}", SetupError
    raise kind("RunContainerError", failure)


def open_terminal() -> tuple[int, int]:
    """Make a terminal of the container's own (master, slave) and let it control the caller, who leads its processes.

    To be called as the user that it is for, who owns it then.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, (0).to_bytes(4, sys.byteorder))
    number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, bytes(4)), sys.byteorder)
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
    return master, slave


def join_cgroup(descriptors: list[int]) -> int:
    """Put this process into the cgroups whose open `cgroup.procs` these are; the number that refused."""
    refused = 0
    for fd in descriptors:
        try:
            os.write(fd, b"0")
        except OSError:
            refused += 1
    return refused


def _pivot(staging: str) -> None:
    mount("tmpfs", staging, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    os.mkdir(staging + _OLD, 0o700)
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise SetupError("RunContainerError", f"no pivot_root known for {os.uname().machine}")
    root = os.fsencode(staging)
    _check(_libc.syscall(ctypes.c_long(number), root, root + _OLD.encode()), "pivot_root")
    os.chdir("/")


def _make_proc() -> None:
    os.mkdir("/proc", 0o555)
    try:
        mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    except OSError as error:
        raise SetupError(
            "RunContainerError",
            f"/proc can't be mounted ({error.strerror}): this machine's own /proc is masked, run as root",
        ) from error


def _seal_proc() -> None:
    """What of /proc speaks of the host's kernel is read-only or hidden, as in other runtimes."""
    for name in _PROC_READ_ONLY:
        path = "/proc/" + name
        if os.path.exists(path):
            mount(path, path, None, _MS_BIND | _MS_REC)
            _remount(path, read_only=True)
    for name in _PROC_MASKED:
        path = "/proc/" + name
        if os.path.exists(path):
            mount("/dev/null", path, None, _MS_BIND)


def _make_dev() -> None:
    os.mkdir("/dev", 0o755)
    mount("tmpfs", "/dev", "tmpfs", _MS_NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        if os.path.exists(f"{_OLD}/dev/{name}"):
            _touch("/dev/" + name)
            mount(f"{_OLD}/dev/{name}", "/dev/" + name, None, _MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, "/dev/" + name)
    os.mkdir("/dev/pts", 0o755)
    mount("devpts", "/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.mkdir("/dev/shm", 0o1777)
    mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=1777")


def _apply(step: tuple, submounts: list[str], mimics: list[str]) -> None:
    kind, path = step[0], step[1]
    if kind == "dir":
        _place(path, True, mimics)
    elif kind == "file":
        place = _place(path, False, mimics)
        _write(place, step[2])
        os.chmod(place, step[3])
    elif kind == "link":
        if not os.path.lexists(path):
            _place(os.path.dirname(path), True, mimics)
            os.symlink(step[2], path)
    elif kind == "tmpfs":
        mount("tmpfs", _place(path, True, mimics), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    else:
        _bind(step[1], step[2], step[3], submounts, mimics)


def _bind(source: str, target: str, read_only: bool, submounts: list[str], mimics: list[str]) -> None:
    origin = _OLD + source
    place = _place(target, stat.S_ISDIR(os.stat(origin).st_mode), mimics)
    mount(origin, place, None, _MS_BIND | _MS_REC)
    # At once: until it is read-only, making a mount point below it would write to the host.
    _remount(place, read_only)
    for point in submounts:
        if point.startswith(source + "/"):
            _remount(place + point[len(source) :], read_only)


def _remount(place: str, read_only: bool, devices: bool = False) -> None:
    """Set the flags of one mount; those that it has stay (a user namespace may not take them away)."""
    have = os.statvfs(place).f_flag
    flags = (have & ~_ST_RELATIME) | (_MS_RELATIME if have & _ST_RELATIME else 0)
    flags |= _MS_NOSUID | (0 if devices else _MS_NODEV) | (_MS_RDONLY if read_only else 0)
    mount(None, place, None, _MS_REMOUNT | _MS_BIND | flags)


def _place(target: str, directory: bool, mimics: list[str]) -> str:
    """The mount point of a target, made where it is missing; links are followed within the new root."""
    real = os.path.realpath(target)
    if real == _OLD or real.startswith(_OLD + "/"):
        raise OSError(errno.EPERM, "leads out of the container", target)
    try:
        is_directory = stat.S_ISDIR(os.stat(real).st_mode)
    except FileNotFoundError:
        _create(real, directory, mimics)
        return real
    if is_directory != directory:
        raise OSError(errno.ENOTDIR, "a file can't be mounted on a folder, nor a folder on a file", target)
    return real


def _create(path: str, directory: bool, mimics: list[str]) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _create(parent, True, mimics)
    make = _mkdir if directory else _touch
    try:
        make(path)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        _mimic(parent)
        mimics.append(parent)
        make(path)


def _mimic(folder: str) -> None:
    """Replace a read-only folder by one in memory with the same entries, so that one more can be added."""
    names = os.listdir(folder)
    if len(names) > _MIMIC_MAX_ENTRIES:
        raise OSError(errno.E2BIG, f"{folder} has too many entries to add one", folder)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for name in names:
        origin, copy = f"/proc/self/fd/{fd}/{name}", f"{folder}/{name}"
        kind = os.lstat(origin).st_mode
        if stat.S_ISLNK(kind):
            os.symlink(os.readlink(origin), copy)
        elif stat.S_ISDIR(kind):
            _mkdir(copy)
            mount(origin, copy, None, _MS_BIND | _MS_REC)
        elif stat.S_ISREG(kind):
            _touch(copy)
            mount(origin, copy, None, _MS_BIND)
    os.close(fd)


def _mount_points() -> list[str]:
    """The host's mount points, with mountinfo's escapes undone."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY)
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    os.close(fd)
    points = [line.split(b" ", 5)[4] for line in b"".join(parts).splitlines()]
    return [os.fsdecode(point.replace(b"\\040", b" ").replace(b"\\134", b"\\")) for point in points]


def _mkdir(path: str) -> None:
    os.mkdir(path, 0o755)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
