"""Are the programs there: the tools, the virtual environment as its lock file says, Pulumi's Kubernetes plugin?

Each tool is run, since a file of the right name may be for another machine or lack a library. Nothing is built.
"""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infra import pulumi_cli
from infra.doctor.report import Finding, failed, ok, skipped, warning
from infra.local import bootstrap
from infra.local.toolchain import build, lookup, prerequisites
from infra.local.toolchain.recipes import TOOLS
from infra.local.toolchain.versions import Range, Version, show
from infra.plugin.install import NAME, is_stand_in, launcher
from switchboard import paths
from switchboard.errors import SwitchboardError

BUILD = "`make up` makes it, or `switchboard infra toolchain build` the tools alone"
INSTALL = "`make venv` puts in what the lock file says"
OWN = "switchboard"


# --- tools -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolFacts:
    """One tool: where it is (None: nowhere), what it says its version is (None: it can't be asked, or doesn't run),
    what else it lacks, and programs of its name on PATH that don't fit."""

    name: str
    fits: Range
    asked: bool
    path: Path | None = None
    source: str = ""
    version: Version | None = None
    lacks: str = ""
    unfit: tuple[str, ...] = ()


def judge_tool(facts: ToolFacts) -> Finding:
    """Found, in a fitting version, running."""
    check = f"tools/{facts.name}"
    if facts.path is None:
        others = f"; {', '.join(facts.unfit)}" if facts.unfit else ""
        return failed(check, f"missing: wanted {facts.fits}{others}", BUILD)
    where = f"{facts.path} ({facts.source})"
    if facts.asked and facts.version is None:
        return failed(check, f"{where} doesn't run, or doesn't say its version", _replace(facts))
    if facts.version is not None and facts.version not in facts.fits:
        return failed(check, f"{where} is {show(facts.version)}, wanted {facts.fits}", _replace(facts))
    if facts.lacks:
        return failed(check, f"{where} lacks {facts.lacks}", _replace(facts))
    return ok(check, f"{show(facts.version)} {where}" if facts.version else where)


def _replace(facts: ToolFacts) -> str:
    if facts.source == lookup.CACHED and facts.path is not None:
        return f"remove {facts.path.parent.parent} and run `make up`, which makes it anew"
    if facts.source == lookup.HAND_BUILT:
        return f"correct ${lookup.HAND_BUILT}: what lies there is taken as it is"
    if facts.source == lookup.IN_VENV:
        return "remove .venv and run `make venv`"
    return "install another version, or take it off PATH: then `make up` builds one"


def look_at_tools(names: Iterable[str]) -> list[ToolFacts]:
    """Where each tool is, and what it answers; 20-130 ms each, four at a time."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(_look_at_tool, names))


def _look_at_tool(name: str) -> ToolFacts:
    tool = TOOLS[name]
    asked = bool(tool.version_arguments)
    found = lookup.find(name)
    if found is None:
        return ToolFacts(name, tool.fits, asked, unfit=tuple(lookup.why_unfit(name)))
    answer = lookup.ask_version(found.path, tool.version_arguments) if asked else None
    return ToolFacts(
        name, tool.fits, asked, found.path, found.source, answer, lookup.lacking(tool, found.path)
    )


@dataclass(frozen=True)
class ToBuild:
    """What making the missing tools needs and this machine lacks."""

    missing: tuple[str, ...]
    problems: tuple[str, ...]


def judge_build(facts: ToBuild) -> Finding:
    """Asked only where something has to be made."""
    if not facts.missing:
        return ok("tools/to build", "nothing")
    if facts.problems:
        return failed("tools/to build", "; ".join(facts.problems), "install what is named, then `make up`")
    return ok("tools/to build", f"{', '.join(facts.missing)}: this machine can make them")


def look_at_build(tools: Iterable[ToolFacts]) -> ToBuild:
    missing = tuple(each.name for each in tools if each.path is None)
    if not missing:
        return ToBuild((), ())
    try:
        recipes = build.needed(missing)
    except SwitchboardError as error:  # Envoy comes with the virtual environment
        return ToBuild(missing, (error.what,))
    return ToBuild(missing, tuple(prerequisites.missing(recipes, lookup.tools_dir())))


# --- the virtual environment -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Packages:
    """The lock file's packages (name → the versions it names, several for several Pythons) and those installed.

    `conditional` are for some machines or Pythons only: they may be absent.
    """

    locked: Mapping[str, frozenset[str]]
    conditional: frozenset[str]
    installed: Mapping[str, str]
    stamped: bool
    """Whether the environment was made from the lock and project files as they are now."""
    own: str = ""
    """Which Python this is, where it isn't the checkout's virtual environment."""


@dataclass(frozen=True)
class Drift:
    """Where installed packages differ from the lock file's."""

    missing: tuple[str, ...]
    other: tuple[str, ...]
    extra: tuple[str, ...]


def drift(facts: Packages) -> Drift:
    """Each difference, by name."""
    missing = sorted(set(facts.locked) - facts.conditional - set(facts.installed))
    other = [
        f"{name} {has} (locked: {' or '.join(sorted(facts.locked[name]))})"
        for name, has in sorted(facts.installed.items())
        if name in facts.locked and has not in facts.locked[name]
    ]
    extra = sorted(set(facts.installed) - set(facts.locked) - {OWN})
    return Drift(tuple(missing), tuple(other), tuple(extra))


def judge_packages(facts: Packages) -> list[Finding]:
    """The environment against its lock file: what is missing fails, what is too much warns."""
    check = "environment/packages"
    if facts.own:
        return [skipped(check, f"this runs on {facts.own}, not on the checkout's .venv")]
    found = drift(facts)
    if wrong := [*(f"{name} is missing" for name in found.missing), *found.other]:
        return [failed(check, f"not as the lock file says: {_some(wrong)}", INSTALL)]
    if found.extra:
        return [warning(check, f"not in the lock file: {_some(found.extra)}", INSTALL)]
    if not facts.stamped:
        return [
            warning(
                check,
                "made from another lock or project file, or in another place, than there is now",
                INSTALL,
            )
        ]
    return [ok(check, f"{len(facts.installed)} packages, as {bootstrap.LOCK} says")]


def _some(items: Iterable[str], count: int = 4) -> str:
    """The first few."""
    told = list(items)
    more = f" and {len(told) - count} more" if len(told) > count else ""
    return ", ".join(told[:count]) + more


_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(\s*;)?", re.MULTILINE)


def parse_lock(text: str) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """The versions by package, and the packages that all have a condition (`; python_version …`)."""
    versions: dict[str, set[str]] = {}
    always: set[str] = set()
    for name, pinned, condition in _PIN.findall(text):
        versions.setdefault(normal(name), set()).add(pinned)
        if not condition:
            always.add(normal(name))
    return {name: frozenset(found) for name, found in versions.items()}, frozenset(set(versions) - always)


def normal(name: str) -> str:
    """A package's name as PyPA compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def look_at_packages() -> Packages:
    """By the names of the packages' folders: reading 180 metadata files would take half a second."""
    locked, conditional = parse_lock((paths.ROOT / bootstrap.LOCK).read_text("utf-8"))
    installed = {}
    for folder in map(Path, site.getsitepackages()):
        for info in folder.glob("*.dist-info"):
            name, _, has = info.name.removesuffix(".dist-info").rpartition("-")
            installed[normal(name)] = has
    mine = Path(sys.prefix).resolve() == (paths.ROOT / ".venv").resolve()
    return Packages(
        locked, conditional, installed, bootstrap.up_to_date(paths.ROOT), "" if mine else sys.executable
    )


# --- Pulumi's Kubernetes plugin --------------------------------------------------------------------------


@dataclass(frozen=True)
class Plugin:
    """Where Pulumi would find its Kubernetes plugin of the version that the package wants."""

    wanted: str
    official: Path | None
    stand_in: Path | None
    stand_in_is_current: bool = True


def judge_plugin(facts: Plugin) -> Finding:
    """The official one, or the stand-in of the stack."""
    check = "tools/Kubernetes plugin"
    if facts.official is not None:
        return ok(check, f"official {facts.wanted} {facts.official}")
    if facts.stand_in is None:
        return skipped(
            check, f"{facts.wanted} isn't installed yet", "`make up` installs it, or Switchboard's stand-in"
        )
    if not facts.stand_in_is_current:
        return warning(
            check,
            f"the stand-in {facts.stand_in} starts another Python or checkout",
            "`make up` writes it anew",
        )
    return ok(check, f"Switchboard's stand-in for {facts.wanted}: the official one couldn't be fetched here")


def look_at_plugin(stack_name: str) -> Plugin:
    """By the folders that Pulumi itself looks in."""
    try:
        wanted = version("pulumi-kubernetes")
    except PackageNotFoundError:
        wanted = "(pulumi-kubernetes isn't installed)"
    home = pulumi_cli.pulumi_home(stack_name)
    usual = os.environ.get("PULUMI_HOME")
    folders = [Path(usual)] if usual and Path(usual) != home else [Path.home() / ".pulumi"]
    official = [folder / "plugins" / f"resource-kubernetes-v{wanted}" / NAME for folder in folders]
    own = home / "plugins" / f"resource-kubernetes-v{wanted}" / NAME
    return Plugin(
        wanted,
        next((path for path in official if path.exists() and not is_stand_in(path)), None),
        own if own.exists() else None,
        own.exists() and own.read_text() == launcher(Path(sys.executable)),
    )
