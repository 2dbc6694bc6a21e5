"""Makes tools and images from Debian packages without root: fetched by `apt-get download`, unpacked by `dpkg`.

apt's own package lists are used where they are there and current; else lists of our own are fetched into the cache,
with the machine's sources and keys, so that nothing of the system changes. The package's data packages (web pages'
scripts and fonts) are unpacked with it; its programs must run with the machine's libraries, which the caller checks.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.local.toolchain.recipes import DebianRecipe
from infra.local.toolchain.running import Runner
from switchboard.errors import SwitchboardError

Detail = Callable[[str], None]

# 600 files of the time zones one by one, 212 MB on disk, which the pages don't read.
_TIME_ZONES = Path("usr/share/javascript/moment-timezone/data")

_LIBRARY = re.compile(r"(?:lib|zlib)[a-z0-9.+-]+")
_NOT_NEEDED = re.compile(r"libc6|libllvm")

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


def make_root(
    packages: list[str], root: Path, apt: Path, log: Path, runner: Runner, detail: Detail
) -> dict[str, str]:
    """Unpack packages, and what libraries they need that the machine hasn't got, into `root`; their versions by name.

    `apt` is the folder of our own package lists; one process at a time may use it.
    """
    what = f"fetching the Debian package {packages[0]}"
    downloads = root.with_name(f"{root.name}.downloads")
    downloads.mkdir(parents=True)
    options = _fetch(packages, downloads, apt, log, runner, what, detail)
    versions: dict[str, str] = {}
    done: set[Path] = set()
    while new := set(downloads.glob("*.deb")) - done:
        done |= new
        for file in new:
            versions[_field(file, "Package", log, runner)] = _field(file, "Version", log, runner)
        needed = {name for file in new for name in libraries(_field(file, "Depends", log, runner))}
        if missing := sorted(needed - set(versions) - _installed(needed, log, runner)):
            detail(f"{', '.join(missing)}, which this machine hasn't got")
            runner.run(["apt-get", *options, "download", *missing], log, what, cwd=downloads)
    for file in sorted(downloads.glob("*.deb")):
        runner.run(["dpkg-deb", "--extract", str(file), str(root)], log, f"unpacking {file.name}")
    shutil.rmtree(downloads)
    return versions


def libraries(depends: str) -> list[str]:
    """The packages of a `Depends:` field that hold shared libraries, but for the C library (the machine's own is used)
    and LLVM (which PostgreSQL loads only where it is there).

    >>> libraries("adduser, libssl3 (>= 3.0.0), libfoo1 | libbar1, libc6 (>= 2.34), libllvm14, zlib1g (>= 1:1.1.4)")
    ['libssl3', 'libfoo1', 'zlib1g']
    """
    first = (alternative.split("|")[0].split("(")[0].strip() for alternative in depends.split(","))
    return [name for name in first if _LIBRARY.fullmatch(name) and not _NOT_NEEDED.match(name)]


def _installed(packages: Iterable[str], log: Path, runner: Runner) -> set[str]:
    """Which of these packages the machine has."""
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", "*"]
    lines = runner.run(command, log, "listing the machine's packages")
    have = {name for line in lines for name, _, state in [line.partition(" ")] if state == "installed"}
    return have & set(packages)


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
