"""Well-known servers as images made of Debian packages: fetched when a pod first asks for one, then kept in the cache.

A package's files are at `/opt/<image>` in the container, its programs on the PATH, its libraries found by
LD_LIBRARY_PATH, and all else is the machine's own, as in every image. The image's user, entry point and variables are
those of the official image of that name, as far as manifests rely on them. A tag has to be the version that the
machine's Debian release has (`postgres:15` in Debian 12): another one is an image that isn't there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from infra.local.runtime.spec import Image
from infra.local.toolchain import debian, locks, lookup
from infra.local.toolchain.running import CalledOff, Runner
from switchboard import paths
from switchboard.errors import SwitchboardError

_VERSION = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")
_TRY_TIMEOUT_S = 20
_FETCH_TIMEOUT_S = 600.0
"""Some 20 MB, and package lists of as much again; apt itself waits for a server that says nothing for minutes."""


@dataclass(frozen=True)
class Packaged:
    """An image of Debian packages; the first of `packages` gives the version, `{}` in a name is the tag's first number.

    `programs` are folders of programs within the packages' root; `check` is a command that must succeed with them.
    """

    name: str
    packages: tuple[str, ...]
    check: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: int
    default_tag: str = ""
    programs: tuple[str, ...] = ("usr/bin", "usr/sbin")
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    shown: tuple[tuple[str, str], ...] = ()
    """Further places in the container, as (path within the root, place)."""
    finish: Callable[[Path], None] = lambda root: None
    """What is added to the unpacked root."""

    def place(self, path: str = "") -> str:
        return f"/opt/{self.name}/{path}".rstrip("/")

    def paths_of(self, tag: str) -> list[str]:
        return [path.format(tag) for path in self.programs]


_POSTGRES_ENTRY = """set -eu
case "${1:-}" in -*) set -- postgres "$@";; esac
if [ "$1" = postgres ]; then  # at every start, as the official one: an fsGroup opens it to the pod's group
  mkdir -p "$PGDATA"
  chmod 00700 "$PGDATA" || :  # not its own: the server will say so
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?has to be set for a new database}"
  user="${POSTGRES_USER:-postgres}"
  umask 077 && printf %s "$POSTGRES_PASSWORD" > /tmp/.password
  initdb --username="$user" --pwfile=/tmp/.password --auth=scram-sha-256 --encoding=UTF8 --no-locale >&2
  rm /tmp/.password
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  if [ "${POSTGRES_DB:-$user}" != postgres ]; then
    printf 'CREATE DATABASE "%s";\\n' "${POSTGRES_DB:-$user}" | postgres --single -j postgres >&2
  fi
fi
exec "$@"
"""

_NGINX_ENTRY = """set -eu
mkdir -p /tmp/conf.d
for template in /etc/nginx/templates/*.template; do
  [ -e "$template" ] || continue
  awk '{ out = ""; while (match($0, /\\$\\{[A-Za-z_][A-Za-z_0-9]*\\}/)) {
           name = substr($0, RSTART + 2, RLENGTH - 3)
           out = out substr($0, 1, RSTART - 1) (name in ENVIRON ? ENVIRON[name] : substr($0, RSTART, RLENGTH))
           $0 = substr($0, RSTART + RLENGTH) }
         print out $0 }' "$template" > "/tmp/conf.d/$(basename "$template" .template)"
done
exec "$@"
"""

_NGINX_CONF = """worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    client_body_temp_path /tmp/client; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    include /etc/nginx/conf.d/*.conf;
    include /tmp/conf.d/*.conf;
}
"""


def _nginx_root(root: Path) -> None:
    """A configuration that an ordinary user can run, with the official image's places for one's own."""
    shutil.rmtree(root / "etc" / "nginx" / "conf.d", ignore_errors=True)
    for name in ("conf.d", "templates"):
        (root / "etc" / "nginx" / name).mkdir(parents=True, exist_ok=True)
    (root / "etc" / "nginx" / "nginx.conf").write_text(_NGINX_CONF)


IMAGES = {
    one.name: one
    for one in (
        Packaged(
            "postgres",
            ("postgresql-{}", "postgresql-client-{}"),
            ("postgres", "--version"),
            ("/bin/sh", "-c", _POSTGRES_ENTRY, "postgres"),
            ("postgres",),
            999,
            default_tag="15",
            programs=("usr/lib/postgresql/{}/bin",),
            env={"PGDATA": "/var/lib/postgresql/data"},
        ),
        Packaged(
            "redis",
            ("redis-server", "redis-tools"),
            ("redis-server", "--version"),
            (
                "/bin/sh",
                "-c",
                'case "${1:-}" in -*|*.conf) set -- redis-server "$@";; esac; exec "$@"',
                "redis",
            ),
            ("redis-server",),
            999,
            working_dir="/data",
        ),
        Packaged(
            "nginx",
            ("nginx", "nginx-common"),
            ("nginx", "-v"),
            ("/bin/sh", "-c", _NGINX_ENTRY, "nginx"),
            ("nginx", "-g", "daemon off;"),
            101,
            shown=(("etc/nginx", "/etc/nginx"),),
            finish=_nginx_root,
        ),
    )
}


def make(ref: str, tag: str, one: Packaged, binds: tuple[tuple[Path, str], ...], links: tuple) -> Image:
    """The image; its packages are fetched where they aren't in the cache.

    Raises:
        SwitchboardError: they can't be had (no apt, no network), don't run here, or are of another version.
    """
    root = _root(one, tag)
    first = _first_number(tag) or one.default_tag
    programs = [one.place(path) for path in one.paths_of(first)]
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Image(
        reference=ref,
        binds=(*binds, (root, one.place()), *((root / path, place) for path, place in one.shown)),
        links=links,
        entrypoint=one.entrypoint,
        cmd=one.cmd,
        env={
            "PATH": ":".join([*programs, system]),
            "LD_LIBRARY_PATH": ":".join(one.place(path) for path in library_folders()),
            "LANG": "C.UTF-8",
            **one.env,
        },
        working_dir=one.working_dir,
        user=one.user,
    )


def is_here(ref: str) -> bool:
    """Whether nothing has to be fetched for that image: its packages are in the cache, or it isn't made of any."""
    from infra.local.runtime import images  # here: that module knows this one's images by name

    one = IMAGES.get(images.repository(ref))
    return one is None or _cached(_first_package(one, images.tag(ref))) is not None


def _first_package(one: Packaged, tag: str) -> str:
    return one.packages[0].format(_first_number(tag) or one.default_tag)


def fits(tag: str, version: str) -> bool:
    """Whether a tag such as `15`, `15-alpine` or `latest` may stand for that package version.

    >>> [fits(tag, "5:7.0.15-1~deb12u10") for tag in ("", "latest", "7", "7.0-alpine", "7.0.15", "7.2", "8", "70")]
    [True, True, True, True, True, False, False, False]
    """
    wanted, have = re.match(r"\d+(?:\.\d+)*", tag), _VERSION.match(version)
    if wanted is None:
        return True
    parts = wanted[0].split(".")
    return have is not None and have[1].split(".")[: len(parts)] == parts


def _first_number(tag: str) -> str:
    found = re.match(r"\d+", tag)
    return found[0] if found else ""


def _root(one: Packaged, tag: str) -> Path:
    """The unpacked root in the cache."""
    first = _first_number(tag) or one.default_tag
    packages = [name.format(first) for name in one.packages]
    if (known := _cached(packages[0])) is None:
        known = _fetch_in_turn(one, first, packages)
    version = unquote(known.name.split("_")[1])
    if not fits(tag, version):
        raise SwitchboardError(
            f"{one.name}:{tag} isn't to be had: Debian's package {packages[0]} is version {version}",
            f"use {one.name}:{_first_number(version.partition(':')[2] or version)}",
        )
    return known / "root"


def _fetch_in_turn(
    one: Packaged, first: str, packages: list[str], timeout_s: float = _FETCH_TIMEOUT_S
) -> Path:
    """One process at a time uses apt's folders; an apt that hangs is given up after `timeout_s`."""
    runner = Runner()
    timer = threading.Timer(timeout_s, runner.call_off)
    timer.daemon = True
    timer.start()
    lock = lookup.tools_dir() / ".locks" / "apt.lock"
    try:
        with locks.held(lock, waiting=lambda holder: None, cancelled=runner.check):
            return _cached(packages[0]) or _fetch(one, first, packages, runner)
    except CalledOff:
        raise SwitchboardError(
            f"fetching the Debian package {packages[0]} wasn't done within {timeout_s:g} s",
            "check the network and the machine's package sources (`apt-get update`)",
        ) from None
    finally:
        timer.cancel()


def _cached(package: str) -> Path | None:
    whole = [path for path in _folder().glob(f"{package}_*_{platform.machine()}") if (path / "root").is_dir()]
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)


def _folder() -> Path:
    return lookup.tools_dir() / "images"


def _fetch(one: Packaged, first: str, packages: list[str], runner: Runner) -> Path:
    if missing := [name for name in ("apt-get", "dpkg-deb", "dpkg-query") if shutil.which(name) is None]:
        raise SwitchboardError(f"it is made of Debian packages, and this machine has no {', '.join(missing)}")
    staging = _folder() / f".{one.name}.partial"
    shutil.rmtree(staging, ignore_errors=True)  # what was cut off
    staging.mkdir(parents=True)
    log = paths.cache_dir() / "logs" / f"image-{one.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    root, apt = staging / "root", lookup.tools_dir() / ".apt"
    try:
        versions = debian.make_root(packages, root, apt, log, runner, lambda text: None)
        _try(one, first, root)
        one.finish(root)
        target = _folder() / f"{packages[0]}_{quote(versions[packages[0]])}_{platform.machine()}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        return target
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _try(one: Packaged, first: str, root: Path) -> None:
    """The program must start with the machine's C library."""
    folders = [str(root / path) for path in one.paths_of(first)]
    env = {
        "PATH": os.pathsep.join([*folders, "/usr/bin", "/bin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(str(root / path) for path in library_folders()),
    }
    program = shutil.which(one.check[0], path=env["PATH"])
    try:
        done = subprocess.run(
            [program or one.check[0], *one.check[1:]],
            env=env,
            capture_output=True,
            text=True,
            timeout=_TRY_TIMEOUT_S,
            check=False,
        )
        said, works = done.stderr.strip()[-300:], done.returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        said, works = str(error), False
    if not works:
        raise SwitchboardError(f"{one.check[0]} of Debian's packages doesn't run on this machine: {said}")


def library_folders() -> tuple[str, ...]:
    """Where a root of Debian packages has its libraries."""
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    return (f"usr/lib/{triplet}", f"lib/{triplet}")
