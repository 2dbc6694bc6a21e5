"""Makes tools from Debian packages without root: fetched by `apt-get download`, unpacked by `dpkg`.

apt's own package lists are used where they are there and current; else lists of our own are fetched into the cache,
with the machine's sources and keys, so that nothing of the system changes. The package's data packages (web pages'
scripts and fonts) are unpacked with it; its programs must run with the machine's libraries, which the caller checks.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from infra.local.toolchain.recipes import DebianRecipe
from infra.local.toolchain.running import Runner
from switchboard.errors import SwitchboardError

Detail = Callable[[str], None]

# 600 files of the time zones one by one, 212 MB on disk, which the pages don't read.
_TIME_ZONES = Path("usr/share/javascript/moment-timezone/data")

_DATA_PACKAGE = re.compile(r"(?:lib)?(?:js|fonts)-[a-z0-9.+-]+")


def make(recipe: DebianRecipe, target: Path, apt: Path, log: Path, runner: Runner, detail: Detail) -> str:
    """Unpack a recipe's package into `target/root`, its programs in `target/bin`; returns the package's version.

    `apt` is the folder of our own package lists; one process at a time may use it.
    """
    what = f"fetching the Debian package {recipe.package}"
    downloads = target / "downloads"
    downloads.mkdir(parents=True)
    options = _fetch([recipe.package], downloads, apt, log, runner, what, detail)
    version = _field(next(downloads.glob("*.deb")), "Version", log, runner)
    done: set[Path] = set()
    seen = {recipe.package}
    while new := set(downloads.glob("*.deb")) - done:
        done |= new
        data = {name for file in new for name in data_packages(_field(file, "Depends", log, runner))} - seen
        seen |= data
        if data:
            detail(f"{len(seen) - 1} packages of web pages' parts")
            runner.run(["apt-get", *options, "download", *sorted(data)], log, what, cwd=downloads)
    for file in sorted(downloads.glob("*.deb")):
        runner.run(["dpkg-deb", "--extract", str(file), str(target / "root")], log, f"unpacking {file.name}")
    shutil.rmtree(target / "root" / _TIME_ZONES, ignore_errors=True)
    (target / "bin").mkdir()
    for name, path in recipe.programs:
        os.link(target / "root" / path, target / "bin" / name)
    shutil.rmtree(downloads)
    return version


def data_packages(depends: str) -> list[str]:
    """The packages of a `Depends:` field that hold only scripts and fonts for web pages.

    >>> data_packages("adduser, libjs-d3 (>= 3), fonts-glyphicons-halflings | x, libc6 (>= 2.34)")
    ['libjs-d3', 'fonts-glyphicons-halflings']
    """
    first = (alternative.split("|")[0].split("(")[0].strip() for alternative in depends.split(","))
    return [name for name in first if _DATA_PACKAGE.fullmatch(name)]


def _field(package: Path, name: str, log: Path, runner: Runner) -> str:
    command = ["dpkg-deb", "--field", str(package), name]
    return "".join(runner.run(command, log, f"reading {package.name}")).strip()


def _fetch(
    packages: list[str], into: Path, apt: Path, log: Path, runner: Runner, what: str, detail: Detail
) -> list[str]:
    """Download packages, if need be with lists of our own; returns the options that it took."""
    plain = ["-o", "APT::Sandbox::User=root"]  # the folder is ours; apt's own user can't write to it
    try:
        runner.run(["apt-get", *plain, "download", *packages], log, what, cwd=into)
        return plain
    except SwitchboardError:
        detail("fetches the package lists")
    own = [*plain, *_own_lists(apt)]
    failed_lists: SwitchboardError | None = None
    try:
        # Without this mode apt calls it a success when nothing could be fetched.
        strict = ["-o", "APT::Update::Error-Mode=any"]
        runner.run(["apt-get", *own, *strict, "update"], log, f"fetching the package lists for {packages[0]}")
    except SwitchboardError as error:
        # A source that isn't Debian's own may fail; whether it matters shows in the download.
        failed_lists = error
    try:
        runner.run(["apt-get", *own, "download", *packages], log, what, cwd=into)
    except SwitchboardError as error:
        raise failed_lists or error from None
    return own


def _own_lists(apt: Path) -> list[str]:
    """The options by which apt keeps its lists and caches in a folder of ours."""
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::Lists={apt / 'lists'}", "-o", f"Dir::Cache={apt / 'cache'}"]
