"""Makes tools from Go modules: `go build` in a recipe's folder, and scripts out of the module cache.

The result depends on the recipe alone: flags from the user's Go settings that would change it are set aside, and
nothing of the machine's paths or of this repository gets into a program. Go's own cache makes a build that was cut
off go on where it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.local.toolchain.recipes import GoBuild, GoRecipe, ModuleFiles
from infra.local.toolchain.running import Runner

Detail = Callable[[str], None]

# Settings that choose another target or other code; where modules come from (GOPROXY, GOSUMDB, …) stays the user's.
_SET_ASIDE = ("GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140", "GODEBUG")


def environment(scratch: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a build that keeps its temporary files in `scratch`."""
    kept = {name: value for name, value in inherited.items() if name not in _SET_ASIDE}
    return kept | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTMPDIR": str(scratch),
    }


def make(recipe: GoRecipe, target: Path, log: Path, runner: Runner, detail: Detail) -> None:
    """Make all of a recipe's programs in `target/bin`, with the licences of their modules in `target/licenses`."""
    (target / "bin").mkdir(parents=True)
    scratch = target / "scratch"
    scratch.mkdir()
    variables = environment(scratch)
    for build in recipe.builds:
        _build(build, target, log, runner, detail, variables)
    for part in recipe.files:
        _copy(part, target, log, runner, detail, variables)
    shutil.rmtree(scratch)


def _build(
    build: GoBuild, target: Path, log: Path, runner: Runner, detail: Detail, variables: dict[str, str]
) -> None:
    what = f"building {', '.join(name for name, _ in build.programs)}"
    packages = [package for _, package in build.programs]
    tags = ["-tags", ",".join(build.tags)] if build.tags else []
    listing = runner.run(
        ["go", "list", "-deps", *tags, *packages], log, what, _Downloads(detail), build.folder, variables
    )
    # Programs of one `go build` share what they compile; the linker takes the name from the package or from `-o`.
    output = f"{target / 'bin'}{os.sep}" if len(packages) > 1 else str(target / "bin" / build.programs[0][0])
    flags = ["-v", "-trimpath", *tags, "-ldflags", build.linker_flags()]
    runner.run(
        ["go", "build", *flags, "-o", output, *packages],
        log,
        what,
        _Compiled(detail, len(listing)),
        build.folder,
        variables,
    )
    _licence(build.folder, build.module, target, log, runner, variables)


def _copy(
    part: ModuleFiles, target: Path, log: Path, runner: Runner, detail: Detail, variables: dict[str, str]
) -> None:
    what = f"unpacking {', '.join(name for name, _ in part.files)}"
    download = ["go", "mod", "download", part.module]
    runner.run(download, log, what, _Downloads(detail), part.folder, variables)
    source = _module_dir(part.folder, part.module, what, log, runner, variables)
    for name, path in part.files:
        shutil.copyfile(source / path, target / "bin" / name)
        (target / "bin" / name).chmod(0o755)
    _licence(part.folder, part.module, target, log, runner, variables)


def _licence(
    folder: Path, module: str, target: Path, log: Path, runner: Runner, variables: dict[str, str]
) -> None:
    source = _module_dir(folder, module, f"looking for the licence of {module}", log, runner, variables)
    for file in sorted(file for file in source.glob("LICENSE*") if file.is_file()):
        place = target / "licenses" / module.replace("/", "_") / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _module_dir(
    folder: Path, module: str, what: str, log: Path, runner: Runner, variables: dict[str, str]
) -> Path:
    command = ["go", "list", "-m", "-f", "{{.Dir}}", module]
    return Path(runner.run(command, log, what, cwd=folder, environment=variables)[0])


class _Downloads:
    """Counts the modules that Go says it downloads."""

    def __init__(self, detail: Detail) -> None:
        self._detail, self._count = detail, 0

    def __call__(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self._count += 1
            self._detail(f"{self._count:,} modules downloaded")


class _Compiled:
    """Counts the packages that Go says it compiles; those in its cache it doesn't name, hence "of at most"."""

    def __init__(self, detail: Detail, total: int) -> None:
        self._detail, self._total, self._count = detail, total, 0
        detail(f"compiles at most {total:,} packages")

    def __call__(self, line: str) -> None:
        if "/" in line and not line.startswith(("go: ", "#")):
            self._count += 1
        self._detail(f"{self._count:,} of at most {self._total:,} packages compiled")
