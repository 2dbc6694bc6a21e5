"""What runs in place of an image: a small table from image names to programs of this machine.

Tags and digests are not looked at: there is one version of each, the one that the toolchain or the virtual
environment holds; only a server made of Debian packages (`packages`) has a version that its tag must name. Every
image also shows the machine's own system folders (/usr but for /usr/local, /lib, /bin and the certificates),
read-only, for dynamic linking and a shell. An image that isn't in the table is `UnknownImage`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from infra.local.runtime.spec import Image, UnknownImage
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

SWITCHBOARD_UID = 10001
"""Who runs in Switchboard's own image; nobody on the host."""

PACKAGES = ("switchboard", "models", "serving", "operators", "infra", "loadtests", "runbooks")

_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "share")
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "mime.types", "protocols", "services")
_CERTIFICATES = ("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust")
_LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Binds = tuple[tuple[Path, str], ...]
Links = tuple[tuple[str, str], ...]


def resolve(ref: str) -> Image:
    """The image of a reference such as `docker.io/library/debian:12@sha256:…`. Raises UnknownImage."""
    name = repository(ref)
    make = _TABLE.get(name)
    if make is None:
        raise UnknownImage(ref, tuple(_TABLE))
    try:
        return make(ref)
    except SwitchboardError as error:
        raise UnknownImage(ref, tuple(_TABLE), f"image {ref!r}: {error}") from error


def repository(ref: str) -> str:
    """The name of an image without tag, digest and Docker Hub's implied parts."""
    name = ref.partition("@")[0]
    if ":" in name.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    for implied in ("docker.io/", "index.docker.io/", "library/"):
        name = name.removeprefix(implied)
    return name


@cache
def _switchboard(ref: str) -> Image:
    """This virtual environment and this checkout's packages, at their own paths."""
    venv, interpreter = Path(sys.prefix), Path(sys.base_prefix)
    shown = [venv, *(ROOT / name for name in (*PACKAGES, "pyproject.toml"))]
    if interpreter != Path("/usr"):  # else it is among the system folders
        shown.append(interpreter)
    binds, links = _system(exclude=())
    interpreter_binds, interpreter_links = _hops(venv / "bin" / "python", [*shown, Path("/usr")])
    return Image(
        reference=ref,
        binds=(*binds, *((path, str(path)) for path in shown if path.exists()), *interpreter_binds),
        links=(*links, *interpreter_links),
        env={
            "PATH": f"{venv / 'bin'}:{_SYSTEM_PATH}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
        },
        working_dir=str(ROOT),
        user=SWITCHBOARD_UID,
    )


@cache
def _drills(ref: str) -> Image:
    """Switchboard's own, in which a drill's candidates are as bad as they say (`operators/drills`)."""
    own = _switchboard(ref)
    path = f"{ROOT / 'operators' / 'drills' / 'image'}:{own.env['PYTHONPATH']}"
    return replace(own, env={**own.env, "PYTHONPATH": path})


def _hops(program: Path, shown: list[Path]) -> tuple[Binds, Links]:
    """What has to be shown beyond `shown` so that a program behind a chain of links is reachable."""
    links: list[tuple[str, str]] = []
    for _ in range(40):  # as many links as the kernel follows
        parent = program.parent.resolve()
        if parent != program.parent:
            links += [link for link in _folder_links(program.parent) if not _below(Path(link[0]), shown)]
            program = parent / program.name
        if not program.is_symlink():
            break
        target = str(program.readlink())
        if not _below(program, shown):
            links.append((str(program), target))
        program = Path(os.path.normpath(program.parent / target))
    binds = () if _below(program, shown) else ((program, str(program)),)
    return binds, tuple(dict.fromkeys(links))


def _folder_links(folder: Path) -> list[tuple[str, str]]:
    """The links on the way to a folder, as (place, target), outermost first."""
    links = [path for path in (folder, *folder.parents) if path.is_symlink()]
    return [(str(path), str(path.readlink())) for path in reversed(links)]


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _system(exclude: tuple[str, ...]) -> tuple[Binds, Links]:
    """The machine's own folders; where /bin and the like are links into /usr, they are links here too."""
    binds: list[tuple[Path, str]] = []
    links: list[tuple[str, str]] = []
    places = [f"/usr/{name}" for name in _USR] + [f"/{name}" for name in _TOP]
    places += [f"/etc/{name}" for name in _ETC] + [*_CERTIFICATES, _LOCAL_CERTIFICATES]
    for place in (Path(place) for place in places if place not in exclude):
        if place.is_symlink():
            links.append((str(place), str(place.readlink())))
        elif place.exists():
            binds.append((place, str(place)))
    return tuple(binds), tuple(links)


def _tool(
    ref: str, tool: str, place: str, entrypoint: tuple[str, ...], cmd: tuple[str, ...], home: str, uid: int
) -> Image:
    """An upstream image of one program: the toolchain's, at the place where the image has it."""
    from infra.local.toolchain import locate  # here: only who runs tools needs the toolchain

    found = locate([tool])[tool]
    folder = str(Path(place).parent)
    # A program in /bin: a /bin of its own with a shell, since the machine's can't take one more.
    exclude = (folder,) + (("/usr/share",) if found.share else ())
    binds, links = _system(exclude)
    binds += ((found.path.resolve(), place),)
    if found.share:
        binds += ((found.share, "/usr/share"),)
    if folder == "/bin":
        links += (("/bin/sh", "/usr/bin/sh"),)
    return Image(
        reference=ref,
        binds=binds,
        links=links,
        entrypoint=entrypoint,
        cmd=cmd,
        env={"PATH": _SYSTEM_PATH},
        working_dir=home,
        user=uid,
    )


@cache
def _envoy(ref: str) -> Image:
    # As the image's own entry script: options alone are options of Envoy.
    script = 'case "$1" in -*) set -- envoy "$@";; esac; exec "$@"'
    entrypoint = ("/bin/sh", "-c", script, "envoy")
    command = ("envoy", "-c", "/etc/envoy/envoy.yaml")
    return _tool(ref, "envoy", "/usr/local/bin/envoy", entrypoint, command, "/", 101)


@cache
def _prometheus(ref: str) -> Image:
    command = ("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus")
    return _tool(ref, "prometheus", "/bin/prometheus", ("/bin/prometheus",), command, "/prometheus", 65534)


@cache
def _alertmanager(ref: str) -> Image:
    command = ("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager")
    place = "/bin/alertmanager"
    return _tool(ref, "alertmanager", place, (place,), command, "/alertmanager", 65534)


@cache
def _host(ref: str) -> Image:
    """The machine's own programs, for tools and tests."""
    binds, links = _system(exclude=())
    return Image(ref, binds, links, cmd=("/bin/sh",), env={"PATH": _SYSTEM_PATH})


def tag(ref: str) -> str:
    """The tag of a reference; empty where there is none."""
    last = ref.partition("@")[0].rpartition("/")[2]
    return last.partition(":")[2]


@cache
def _packaged(ref: str) -> Image:
    """A server of Debian packages; may take as long as their download the first time."""
    from infra.local.runtime import packages  # here: only who runs these needs apt's part of the toolchain

    binds, links = _system(exclude=())
    return packages.make(ref, tag(ref), packages.IMAGES[repository(ref)], binds, links)


_TABLE: dict[str, Callable[[str], Image]] = {
    "switchboard.dev/switchboard": _switchboard,
    "switchboard.dev/switchboard-drills": _drills,
    "envoyproxy/envoy": _envoy,
    "prom/prometheus": _prometheus,
    "prom/alertmanager": _alertmanager,
    "debian": _host,
    "busybox": _host,
    "postgres": _packaged,
    "redis": _packaged,
    "nginx": _packaged,
}
