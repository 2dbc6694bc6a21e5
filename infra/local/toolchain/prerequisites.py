"""What must be on the machine before tools can be made, checked at once and named in one message.

Only what the missing tools need is asked for: a machine on which everything is found needs neither Go nor apt. Uses the
standard library alone, since the bootstrap asks here before anything is installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from infra.local.toolchain.recipes import TOOLS, DebianRecipe, GoRecipe, Recipe
from infra.local.toolchain.versions import parse, show
from switchboard.errors import SwitchboardError

GO_AT_LEAST = (1, 26, 0)
_GIB = 1024**3
# A build from nothing fills Go's caches with about 10 GiB; one that goes on needs less: only the hopeless are refused.
_ROOM_BYTES = 3 * _GIB


def check(recipes: Iterable[Recipe], cache: Path) -> None:
    """Raise one SwitchboardError that names everything that is missing to make these recipes in `cache`."""
    if problems := missing(list(recipes), cache):
        raise SwitchboardError(
            f"can't make the tools: {'; '.join(problems)}", "install what is missing, then run again"
        )


def missing(recipes: list[Recipe], cache: Path) -> list[str]:
    """What is missing to make these recipes, each with how to get it."""
    problems = []
    go_recipes = [recipe for recipe in recipes if isinstance(recipe, GoRecipe)]
    if go_recipes:
        problem = go_problem(go_recipes[0].builds[0].folder)
        problems += [problem] if problem else _disk_problems(cache)
    packages = [recipe for recipe in recipes if isinstance(recipe, DebianRecipe)]
    if packages and not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        names = ", ".join(f"{recipe.name} ({TOOLS[recipe.provides[0]].fits})" for recipe in packages)
        problems.append(
            f"{names} on PATH (this machine has no apt-get and dpkg to unpack them from Debian's packages)"
        )
    return problems


def go_problem(folder: Path) -> str | None:
    """What is wrong with Go for the modules in `folder`; None if nothing.

    Asked in the folder, since a Go that is too old may fetch the right one by itself (GOTOOLCHAIN).
    """
    wanted = f"Go ≥ {GO_AT_LEAST[0]}.{GO_AT_LEAST[1]} (https://go.dev/dl)"
    if shutil.which("go") is None:
        return f"{wanted} is not on PATH"
    answer = subprocess.run(["go", "version"], cwd=folder, capture_output=True, text=True, check=False)
    version = parse(answer.stdout)
    if answer.returncode != 0:
        return f"{wanted}: `go version` says: {(answer.stderr.strip().splitlines() or ['nothing'])[-1]}"
    if version is None or version < GO_AT_LEAST:
        return f"{wanted}: {shutil.which('go')} is {show(version)}"
    return None


def _disk_problems(cache: Path) -> list[str]:
    """Too little room is better said now than after ten minutes."""
    answer = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=False)
    folders = [cache, *(Path(line) for line in answer.stdout.splitlines() if line)]
    places = {place.stat().st_dev: place for place in map(_existing, folders)}
    return [
        f"{_ROOM_BYTES / _GIB:.0f} GiB of room at {place} (there are {free / _GIB:.1f})"
        for place in places.values()
        if (free := shutil.disk_usage(place).free) < _ROOM_BYTES
    ]


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
