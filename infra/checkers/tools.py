"""The checkers as programs: an environment of Python packages and one Go program, made once into the cache.

Apart from the embedded cloud's tools, since nothing that serves needs them, and from the project's own environment,
since checkov pins older versions of what it shares with it. Both are locked with hashes; the folder's name follows the
locks, so a changed lock gets a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.local import bootstrap
from infra.local.toolchain import golang, locks, prerequisites
from infra.local.toolchain.lookup import tools_dir
from infra.local.toolchain.recipes import GoBuild, GoRecipe
from infra.local.toolchain.running import Runner
from switchboard import paths
from switchboard.progress import Progress

FOLDER = Path(__file__).resolve().parent
LOCK = FOLDER / "requirements.lock"
KUBE_SCORE = GoRecipe(
    "kube-score",
    (
        GoBuild(
            FOLDER / "kube-score",
            "github.com/zegl/kube-score",
            (("kube-score", "github.com/zegl/kube-score/cmd/kube-score"),),
            "-s -w -X main.version={version}",
        ),
    ),
    (),
    cpu_minutes=0.5,
)
_WHOLE = "whole"


@dataclass(frozen=True)
class Checkers:
    """Where the programs are: the Python that has the packages, and kube-score."""

    python: Path
    kube_score: Path


def folder() -> Path:
    """Where this version of the checkers is, or will be."""
    digest = hashlib.sha256(LOCK.read_bytes())
    digest.update(f"{KUBE_SCORE.key()} {sys.prefix} {platform.python_version()}".encode())
    return tools_dir() / f"checkers-{digest.hexdigest()[:12]}"


def ensure(progress: Progress) -> Checkers:
    """The checkers, made where they aren't there: about a minute, once.

    Raises:
        SwitchboardError: Go is missing, a build failed, or a package registry can't be reached.
    """
    place = folder()
    found = Checkers(place / "venv" / "bin" / "python", place / "bin" / "kube-score")
    if (
        place / _WHOLE
    ).exists() and found.python.exists():  # `exists` follows links: a removed Python shows here
        return found
    prerequisites.check([KUBE_SCORE], tools_dir())
    with (
        progress.step("make the checkers: checkov, kube-score, kubernetes-validate") as step,
        locks.held(
            tools_dir() / ".locks" / "checkers.lock",
            waiting=lambda holder: progress.note(f"  {holder} makes the checkers already; waiting for it"),
        ),
    ):
        if not (place / _WHOLE).exists():
            _make(place, step.detail)
    return found


def _make(place: Path, detail: Callable[[str], None]) -> None:
    shutil.rmtree(place, ignore_errors=True)  # what a killed run left
    log = paths.cache_dir() / "logs" / "checkers.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    runner = Runner()
    golang.make(KUBE_SCORE, place, log, runner, detail)
    detail("installs the packages")
    uv, venv = str(Path(sys.executable).with_name("uv")), place / "venv"
    variables = {**os.environ, "VIRTUAL_ENV": str(venv)}
    variables.update(bootstrap.uv_settings(_pip_settings(), variables))
    what = "installing the checkers' packages"
    runner.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], log, what)
    install = [uv, "pip", "sync", "--compile-bytecode", "--require-hashes", str(LOCK)]
    runner.run(install, log, what, environment=variables)
    (place / _WHOLE).touch()


def _pip_settings() -> str:
    """How pip is set up on this machine: uv reads none of it by itself."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
