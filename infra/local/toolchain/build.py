"""Makes the tools that are missing, into the cache: all prerequisites checked first, then two builds at a time.

Two at once, the longest first, because the end of a Go build is one linker on one core: meanwhile the other compiles.
Each result is made in a folder of its own under a lock, its programs are run once, and only then it is renamed into its
place, so that what is in the cache is whole. Other processes wait for the lock and find the tool made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from infra.local.toolchain import debian, golang, locks, prerequisites
from infra.local.toolchain.lookup import (
    Toolchain,
    ask_version,
    cached_folder,
    describe_missing,
    locate,
    names_of,
    search,
    tools_dir,
)
from infra.local.toolchain.recipes import TOOLS, DebianRecipe, GoRecipe, Recipe, recipe_of
from infra.local.toolchain.running import CalledOff, Runner
from infra.local.toolchain.versions import show
from switchboard import paths
from switchboard.errors import SwitchboardError

if TYPE_CHECKING:
    from switchboard.progress import Progress, Step

_GO_BUILDS_AT_ONCE = 2
_BYTES_PER_GO_BUILD = 3 * 1024**3


def ensure(progress: Progress, names: Iterable[str] | None = None) -> Toolchain:
    """The named tools (all without names); what isn't there is made first.

    Raises SwitchboardError when a prerequisite is missing (before any work), a build fails or the network is away.
    Can be interrupted and called again at any time, and by several processes at once.
    """
    wanted = names_of(names)
    found, missing = search(wanted)
    if not missing:
        return Toolchain(found)
    recipes = needed(missing)
    prerequisites.check(recipes, tools_dir())
    make_all(recipes, progress)
    return locate(wanted)


def needed(missing: Iterable[str]) -> list[Recipe]:
    """The recipes for missing tools, in the order to start them: packages, then builds, the longest first."""
    recipes: dict[str, Recipe] = {}
    for name in missing:
        recipe = recipe_of(name)
        if recipe is None:
            raise SwitchboardError(
                f"missing: {describe_missing(name)}, which comes with the virtual environment",
                "run `make up` from the checkout, which repairs the virtual environment",
            )
        recipes[recipe.name] = recipe
    return sorted(recipes.values(), key=_order)


def builds_at_once(memory_bytes: int) -> int:
    """How many Go builds this much memory bears: two, where it is there."""
    return max(1, min(_GO_BUILDS_AT_ONCE, memory_bytes // _BYTES_PER_GO_BUILD))


def _order(recipe: Recipe) -> tuple[bool, float]:
    return isinstance(recipe, GoRecipe), -recipe.cpu_minutes if isinstance(recipe, GoRecipe) else 0.0


def make_all(recipes: list[Recipe], progress: Progress) -> None:
    """Make these recipes, several at once. The first failure calls the others off and is raised."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    runner = Runner()
    # Packages wait for the network, builds for the processor: each kind has threads of its own.
    with (
        ThreadPoolExecutor(1, thread_name_prefix="packages") as packages,
        ThreadPoolExecutor(builds_at_once(memory_bytes), thread_name_prefix="builds") as builds,
    ):
        parts: list[Future[None]] = [
            (builds if isinstance(recipe, GoRecipe) else packages).submit(_make, recipe, progress, runner)
            for recipe in recipes
        ]
        try:
            wait(parts, return_when=FIRST_EXCEPTION)
        finally:  # at a failure or Ctrl-C the others end too: Go's cache keeps what they have compiled
            if not all(part.done() and part.exception() is None for part in parts):
                runner.call_off()
    errors = [error for part in parts if (error := part.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, CalledOff)), errors[0])


def _make(recipe: Recipe, progress: Progress, runner: Runner) -> None:
    """Make one recipe under its lock, unless another process has made it meanwhile."""
    runner.check()
    verb = "build" if isinstance(recipe, GoRecipe) else "unpack"
    with (
        progress.step(f"{verb} {', '.join(recipe.provides)}") as step,
        locks.held(
            _lock(recipe.name),
            waiting=lambda holder: progress.note(
                f"  {recipe.name}: {holder} makes it already; waiting for it"
            ),
            cancelled=runner.check,
        ),
    ):
        if cached_folder(recipe) is None:
            _make_locked(recipe, step, runner)


def _make_locked(recipe: Recipe, step: Step, runner: Runner) -> None:
    staging = tools_dir() / f".{recipe.name}.partial"
    shutil.rmtree(staging, ignore_errors=True)  # what a killed build left
    log = _new_log(recipe)
    try:
        if isinstance(recipe, GoRecipe):
            golang.make(recipe, staging, log, runner, step.detail)
            key = recipe.key()
        else:
            with locks.held(
                _lock("apt"), waiting=lambda holder: step.detail(f"{holder} uses apt"), cancelled=runner.check
            ):
                key = recipe.key(debian.make(recipe, staging, tools_dir() / ".apt", log, runner, step.detail))
        _try_programs(recipe, staging, log)
        shutil.rmtree(tools_dir() / key, ignore_errors=True)  # a folder that lost programs to somebody
        staging.rename(tools_dir() / key)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _try_programs(recipe: Recipe, made: Path, log: Path) -> None:
    """Run what was made once: it must start on this machine, in a version that fits."""
    for name in recipe.provides:
        tool, program = TOOLS[name], made / "bin" / name
        if not os.access(program, os.X_OK):
            raise SwitchboardError(f"making {recipe.name} left no program {name}", f"see {log}")
        if not tool.version_arguments:
            continue
        version = ask_version(program, tool.version_arguments)
        if version not in tool.fits:
            source = (
                f"the Debian package {recipe.package}" if isinstance(recipe, DebianRecipe) else "its build"
            )
            raise SwitchboardError(
                f"{name} of {source} is version {show(version)} here, or doesn't run; {tool.fits} is needed",
                f"put a fitting {name} on PATH",
            )


def _lock(name: str) -> Path:
    return tools_dir() / ".locks" / f"{name}.lock"


def _new_log(recipe: Recipe) -> Path:
    log = paths.cache_dir() / "logs" / f"{recipe.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    return log
