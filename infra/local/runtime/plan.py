"""From a container's spec to the plan that its shim carries out: an ordered list of plain steps.

Pure but for a look at the sources of its mounts. What a spec asks for that can't be had is refused here, before
anything is made, as StartError with the kubelet's word for it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from infra.local.runtime.spec import ContainerSpec, StartError

Step = tuple[Any, ...]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_HOSTNAME_MAX = 63
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_RESERVED = ("/proc", "/.host")
_DEVICES = (
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
    "fd",
    "stdin",
    "stdout",
    "stderr",
    "pts",
    "ptmx",
)


def check(spec: ContainerSpec, own_uid: int, own_gid: int) -> None:
    """Raise StartError for a spec that can't be carried out by this user."""
    if not _ID.fullmatch(spec.id):
        raise StartError("CreateContainerConfigError", f"container id {spec.id!r} is not safe as a file name")
    if not spec.argv:
        raise StartError("CreateContainerError", "no command: neither the image nor the pod names one")
    if ".." in PurePosixPath(spec.cgroup).parts or spec.cgroup.startswith("/") or not spec.cgroup:
        raise StartError("CreateContainerConfigError", f"cgroup {spec.cgroup!r} is not a relative path")
    if not spec.working_dir.startswith("/"):
        raise StartError(
            "CreateContainerConfigError", f"working directory {spec.working_dir!r} is not absolute"
        )
    for text in (*spec.argv, *spec.env, *spec.env.values()):
        if "\0" in text:
            raise StartError("CreateContainerConfigError", "a command or variable holds a NUL character")
    for mount in spec.mounts:
        _check_mount(mount.target)
        if not mount.source.exists():
            raise StartError("CreateContainerConfigError", f"{mount.target}: {mount.source} isn't there")
    for place in spec.tmpfs:
        _check_mount(place)
    if own_uid != 0 and set(spec.supplemental_groups) - {spec.gid}:
        groups = ", ".join(str(group) for group in spec.supplemental_groups)
        raise StartError(
            "CreateContainerConfigError",
            f"supplemental groups {groups} can't be honoured without root (own identity: {own_uid}:{own_gid})",
        )


def _check_mount(target: str) -> None:
    path = PurePosixPath(_plain(target))
    if not path.is_absolute() or path == PurePosixPath("/") or ".." in path.parts:
        raise StartError(
            "CreateContainerConfigError", f"mount path {target!r} is not an absolute path below /"
        )
    reserved = (*_RESERVED, *(f"/dev/{name}" for name in _DEVICES))
    if str(path) == "/dev" or any(path.is_relative_to(place) for place in reserved):
        raise StartError("CreateContainerConfigError", f"nothing can be mounted at {target}")


def steps(spec: ContainerSpec, host_resolv_conf: str, localtime: bytes | None) -> list[Step]:
    """What to make, parents before what lies in them; where two want one place, the pod's mount wins."""
    made: dict[str, Step] = {}
    for place in ("/tmp", "/run", "/etc", "/var", "/root", "/home", "/usr/local/bin"):  # noqa: S108
        made[place] = ("dir", place)
    made["/var/run"] = ("link", "/var/run", "/run")
    made["/tmp"] = ("tmpfs", "/tmp")  # noqa: S108
    for link, target in spec.image.links:
        made[link] = ("link", link, target)
    for source, place in spec.image.binds:
        made[place] = ("bind", str(source.resolve()), place, True)
    for place, text in _files(spec, host_resolv_conf).items():
        made[place] = ("file", place, text.encode(), 0o644)
    if localtime is not None:
        made["/etc/localtime"] = ("file", "/etc/localtime", localtime, 0o644)
    working_dir = _plain(spec.working_dir)
    made.setdefault(working_dir, ("dir", working_dir))
    hidden = [_plain(place) + "/" for place in (*spec.tmpfs, *(mount.target for mount in spec.mounts))]
    made = {place: step for place, step in made.items() if not _hidden(place, step, hidden)}
    for place in spec.tmpfs:
        made[_plain(place)] = ("tmpfs", _plain(place))
    for mount in spec.mounts:
        place = _plain(mount.target)
        made[place] = ("bind", str(mount.source.resolve()), place, mount.read_only)
    # Links first among equals of one depth: what lies behind a link is made in its target.
    return sorted(made.values(), key=lambda step: (_depth(step), step[0] != "link"))


def _hidden(place: str, step: Step, by: list[str]) -> bool:
    """A volume hides what the image has below it, except in /tmp: a checkout may lie there, and is needed."""
    below = [mount for mount in by if place.startswith(mount)]
    return bool(below) and not (below == ["/tmp/"] and step[0] == "bind")  # noqa: S108


def _depth(step: Step) -> int:
    return len(PurePosixPath(step[2] if step[0] == "bind" else step[1]).parts)


def _plain(path: str) -> str:
    """As the kernel reads it; PurePosixPath keeps two slashes at the beginning, which POSIX lets mean something."""
    return str(PurePosixPath("/" + path.lstrip("/") if path.startswith("/") else path))


def _files(spec: ContainerSpec, resolv_conf: str) -> dict[str, str]:
    users = {0: ("root", "/root"), 65534: ("nobody", "/nonexistent")}
    groups = {0: "root", 65534: "nogroup"}
    users.setdefault(spec.uid, ("app", home(spec.uid)))
    for group in (spec.gid, *spec.supplemental_groups):
        groups.setdefault(group, "app" if group == spec.uid else f"group{group}")
    gid_of = {0: 0, 65534: 65534, spec.uid: spec.gid}
    return {
        "/etc/passwd": "".join(
            f"{name}:x:{uid}:{gid_of[uid]}:{name}:{place}:/bin/sh\n" for uid, (name, place) in users.items()
        ),
        "/etc/group": "".join(f"{name}:x:{gid}:\n" for gid, name in groups.items()),
        "/etc/nsswitch.conf": _NSSWITCH,
        "/etc/resolv.conf": resolv_conf,
        "/etc/hostname": spec.hostname + "\n",
        "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {spec.hostname}\n",
    }


def home(uid: int) -> str:
    """Where a user's programs may keep things: a place that can be written even with a read-only root."""
    return "/root" if uid == 0 else "/tmp"  # noqa: S108


def environment(spec: ContainerSpec) -> dict[str, str]:
    """The image's variables, the pod's over them, and those that every container has."""
    terminal = {"TERM": "xterm"} if spec.tty else {}
    return {"HOME": home(spec.uid), "HOSTNAME": spec.hostname, **terminal, **spec.image.env, **spec.env}


def shim_plan(
    spec: ContainerSpec, folder: Path, join_files: list[str], oom_file: str, rootless: bool
) -> dict[str, Any]:
    """Everything that the shim needs, in plain values."""
    return {
        "dir": str(folder),
        "staging": str(folder / "root"),
        "steps": steps(spec, _text(Path("/etc/resolv.conf")), _bytes(Path("/etc/localtime"))),
        "argv": list(spec.argv),
        "env": environment(spec),
        "cwd": spec.working_dir,
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": sorted(set(spec.supplemental_groups)),
        "hostname": spec.hostname[:_HOSTNAME_MAX],
        "read_only_root": spec.read_only_root,
        "user_namespace": rootless,
        "join_files": join_files,
        "oom_file": oom_file,
        "log": str(spec.log_path),
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "tty": spec.tty,
    }


def _text(path: Path) -> str:
    data = _bytes(path)
    return "" if data is None else data.decode(errors="replace")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
