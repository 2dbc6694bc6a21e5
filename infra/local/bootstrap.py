"""Makes or repairs the virtual environment `.venv` of the checkout, so that everything else can start.

Runs on the system's Python with the standard library alone: `python3 infra/local/bootstrap.py`. It checks what the
machine must have and names all that is missing at once; installs exactly what `requirements.lock` says (with hashes,
compiled to bytecode, since pods see the environment read-only) and this checkout itself, editable. A stamp makes the
next run take no time; a run that was cut off is taken up again; of two at once, one waits for the other.
"""

# Down to the version check this must run on old Pythons, and all of it must parse there, or its message is never seen.
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - it is the system's Python that runs this
    sys.exit(
        "Switchboard needs Python 3.11 or newer, and this one ("
        + sys.executable
        + ") is "
        + sys.version.split()[0]
        + ". Install a newer one and name it: make PYTHON=python3.11 up"
    )

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCK = "requirements.lock"
STAMP = "switchboard-stamp"

# pip is often set up for a mirror of the package registry; uv reads none of pip's settings.
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
}


class BootstrapError(Exception):
    """What failed, and the next step."""


def main(root: Path = ROOT) -> int:
    """Bring the environment of a checkout up to date; the exit code for the shell."""
    try:
        if not up_to_date(root):
            check_machine()
            with held(root / LOCK):
                if not up_to_date(root):  # another run may have done it while this one waited
                    install(root)
    except BootstrapError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("\ninterrupted; run the same command again to go on")
        return 130
    return 0


# --- what is there ---------------------------------------------------------------------------------------


def up_to_date(root: Path) -> bool:
    """Whether the environment is whole and made from the lock file, the project file and the place it has now."""
    venv = root / ".venv"
    programs = (venv / "bin" / name for name in ("python", "switchboard", "uv"))
    if not all(
        program.exists() for program in programs
    ):  # `exists` follows links: a removed Python shows here
        return False
    try:
        return (venv / STAMP).read_text("ascii") == stamp(root)
    except OSError:
        return False


def stamp(root: Path) -> str:
    """A hash of all that the environment depends on."""
    digest = hashlib.sha256(str(root).encode())
    for name in (LOCK, "pyproject.toml", ".venv/pyvenv.cfg"):
        digest.update(b"\0" + (root / name).read_bytes())
    return digest.hexdigest()


def usable(venv: Path) -> bool:
    """Whether an environment's Python runs, is new enough, and lies where it was made."""
    question = "import sys; print(sys.version_info[:2] >= (3, 11))"
    command = [str(venv / "bin" / "python"), "-I", "-S", "-c", question]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        activate = (venv / "bin" / "activate").read_text("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == "True" and str(venv) in activate


# --- what the machine must have --------------------------------------------------------------------------


def check_machine() -> None:
    """Raise one error that names everything that is missing on this machine."""
    problems = machine_problems() + tool_problems()
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise BootstrapError(
            f"this machine lacks:{lines}\nInstall what is named, then run the same command again."
        )


def machine_problems() -> list[str]:
    """What everything needs, as far as it is missing."""
    if not sys.platform.startswith("linux"):
        return ["Linux: the embedded cloud runs there alone; from here use a stack on existing clusters"]
    missing = []
    for names, package in (
        (("git",), "git"),
        (("make",), "make"),
        (("cc", "gcc", "clang"), "a C compiler (gcc)"),
    ):
        if not any(map(shutil.which, names)):
            missing.append(f"{package}: {_how('build-essential' if 'C' in package else package)}")
    if not (importlib.util.find_spec("ensurepip") or shutil.which("uv")):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        missing.append(f"Python's module ensurepip: {_how(f'python{version}-venv')}")
    return missing


def tool_problems() -> list[str]:
    """What the tools that must be built need, as far as it is missing: asked now, not after the environment is made."""
    sys.path.insert(
        0, str(ROOT)
    )  # this file runs as a script, and those modules need the standard library alone
    from infra.local.toolchain import build, lookup, prerequisites

    names = [name for name in lookup.names_of(None) if name != "envoy"]  # it comes with the environment
    return prerequisites.missing(build.needed(lookup.search(names)[1]), lookup.tools_dir())


def _how(package: str) -> str:
    for manager, command in (("apt-get", "apt-get install"), ("dnf", "dnf install"), ("apk", "apk add")):
        if shutil.which(manager):
            return f"{command} {package}"
    return f"install {package} with the system's package manager"


# --- the installation ------------------------------------------------------------------------------------


def install(root: Path) -> None:
    """Make the environment if need be, and put into it what the lock file says."""
    venv = root / ".venv"
    if venv.exists() and not usable(venv):
        _say("  the virtual environment is broken or was moved: making it anew")
        shutil.rmtree(venv)
    (venv / STAMP).unlink(missing_ok=True)
    # Bytecode is made now or never: pods can't write into the environment.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.update(VIRTUAL_ENV=str(venv), PIP_DISABLE_PIP_VERSION_CHECK="1")
    uv = venv / "bin" / "uv"
    if not _runs([str(uv), "--version"]):
        with _step("make the virtual environment"):
            make_venv(root, venv, environment)
    environment.update(uv_settings(_pip_settings(venv), environment))
    with _step("install the packages of " + LOCK):
        _run([str(uv), "pip", "sync", "--compile-bytecode", "--require-hashes", LOCK], root, environment)
    with _step("install Switchboard itself"):
        options = ["--quiet", "--no-deps", "--no-build-isolation"]
        _run([str(uv), "pip", "install", *options, "--editable", "."], root, environment)
    partial = venv / (STAMP + ".partial")
    partial.write_text(stamp(root), "ascii")
    partial.rename(venv / STAMP)


def make_venv(root: Path, venv: Path, environment: dict[str, str]) -> None:
    """An environment with the uv that the lock file names; the rest is uv's work, which is many times faster."""
    wanted = root / ".venv-uv.txt"
    wanted.write_text(requirement((root / LOCK).read_text("utf-8"), "uv"), "utf-8")
    try:
        if importlib.util.find_spec("ensurepip"):
            _run([sys.executable, "-m", "venv", str(venv)], root, environment)
            pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet", "install", "--force-reinstall"]
            _run([*pip, "--require-hashes", "-r", str(wanted)], root, environment)
        else:
            _run(["uv", "venv", "--quiet", "--python", sys.executable, str(venv)], root, environment)
            options = ["--quiet", "--reinstall", "--require-hashes"]
            _run(["uv", "pip", "install", *options, "-r", str(wanted)], root, environment)
    finally:
        wanted.unlink()


def requirement(lock: str, name: str) -> str:
    """One package's lines of a lock file: its version and its hashes."""
    found = re.search(rf"^{re.escape(name)}==(?:[^\n]*\\\n)*[^\n]*\n", lock, re.MULTILINE)
    if found is None:
        raise BootstrapError(f"{LOCK} names no version of {name}\n  → restore the file: git checkout {LOCK}")
    return found[0]


def uv_settings(pip_config: str, environment: dict[str, str]) -> dict[str, str]:
    """The registry that pip is set up with (`pip config list`), for uv, where uv hasn't settings of its own."""
    settings: dict[str, str] = {}
    for key, value in re.findall(r"^\S*?\.([a-z-]+)='(.*)'$", pip_config, re.MULTILINE):
        name = _PIP_TO_UV.get(key)
        if name and name not in environment:
            settings[name] = value.replace("\\n", " ").strip()
    return settings


def _pip_settings(venv: Path) -> str:
    python = str(venv / "bin" / "python")
    answer = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return answer.stdout  # without pip in the environment there are no settings to carry over


# --- small parts -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock on a file that is always there, so that nothing is left behind."""
    with file.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("  another run is making the virtual environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        _say(f"{mark} {name:<58} {time.monotonic() - started:6.1f} s")


def _run(command: list[str], root: Path, environment: dict[str, str]) -> None:
    """Run a command and show what it says as it goes, but not uv's list of 180 installed packages."""
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            if not line.startswith((" + ", " - ", " ~ ")):
                _say("    " + line.rstrip())
    if process.returncode != 0:
        raise BootstrapError(
            f"`{' '.join(command)}` failed (exit code {process.returncode}); its reason is above\n"
            "  → check the network (the package registry must be reachable) and the disk, then run the command again"
        )


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
