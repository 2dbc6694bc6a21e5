"""Which tools there are, which versions fit, and how each is made where no fitting one is found.

Tables only, and the cache key that follows from them. The version of a built tool stands in one place: the
`go.mod` of its folder here; a recipe's key is a hash of everything that its result depends on, so that a changed
`go.mod`, `go.sum` or flag gets a folder of its own in the cache and the old one goes on serving other checkouts.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infra.local.toolchain.versions import Range, Version, parse, same_major, same_minor, show

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Tool:
    """A program, how it is asked for its version, and the versions that fit when it is found on PATH.

    `beside` are programs that must lie in the same folder for it to fit; `aliases` are other names for it on PATH.
    Without `version_arguments` it can't be asked, and fits on PATH only as a companion of another tool.
    `parts` are what a build of it may have left out, with bytes that only a build with that part holds.
    """

    name: str
    version_arguments: tuple[str, ...]
    fits: Range
    beside: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    companion_of: str | None = None
    parts: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class GoBuild:
    """One `go build`: the folder of its `go.mod`, the module that gives the version, program → package, flags.

    `ldflags` may use `{version}`, `{major}` and `{minor}`; `numbered` is for a program whose version isn't its
    module's.
    """

    folder: Path
    module: str
    programs: tuple[tuple[str, str], ...]
    ldflags: str = "-s -w"
    tags: tuple[str, ...] = ()
    numbered: Callable[[Version], Version] = lambda version: version

    def version(self) -> Version:
        """The program's version, from that of `module` in the folder's `go.mod`."""
        return self.numbered(module_version(self.folder / "go.mod", self.module))

    def linker_flags(self) -> str:
        """`ldflags` with the version filled in."""
        major, minor, _ = version = self.version()
        return self.ldflags.format(version=show(version), major=major, minor=minor)


@dataclass(frozen=True)
class ModuleFiles:
    """Programs taken as they are from a module in Go's module cache: program → path in the module."""

    folder: Path
    module: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class GoRecipe:
    """Tools that are built from Go modules into one folder; `cpu_minutes` orders the builds, longest first."""

    name: str
    builds: tuple[GoBuild, ...]
    files: tuple[ModuleFiles, ...]
    cpu_minutes: float

    @property
    def provides(self) -> tuple[str, ...]:
        """The programs that it makes."""
        built = [name for build in self.builds for name, _ in build.programs]
        return (*built, *(name for part in self.files for name, _ in part.files))

    def key(self) -> str:
        """The name of its folder in the cache, such as `etcd-3.6.8-0123456789ab`."""
        digest = hashlib.sha256(f"{platform.system()} {platform.machine()}\n".encode())
        for build in self.builds:
            for file in ("go.mod", "go.sum"):
                digest.update((build.folder / file).read_bytes())
            digest.update(f"{build.programs} {build.linker_flags()}\n".encode())
            if build.tags:
                digest.update(f"tags {' '.join(build.tags)}\n".encode())
        digest.update(repr([(part.module, part.files) for part in self.files]).encode())
        return f"{self.name}-{show(self.builds[0].version())}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class DebianRecipe:
    """Tools that are unpacked from a Debian package; the version is whichever the machine's release has."""

    name: str
    package: str
    programs: tuple[tuple[str, str], ...]

    @property
    def provides(self) -> tuple[str, ...]:
        """The programs that it unpacks."""
        return tuple(name for name, _ in self.programs)

    def key(self, package_version: str) -> str:
        """The name of its folder in the cache, such as `alertmanager-0.25.0-1-x86_64`."""
        return f"{self.name}-{package_version.replace(':', '_')}-{platform.machine()}"


Recipe = GoRecipe | DebianRecipe


@cache
def module_version(go_mod: Path, module: str) -> Version:
    """The version at which a `go.mod` requires a module."""
    found = re.search(
        rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", go_mod.read_text("utf-8"), re.MULTILINE
    )
    version = parse(found[1]) if found else None
    if version is None:
        raise ValueError(f"{go_mod} requires no {module}")
    return version


_COMPONENT = "-X k8s.io/component-base/version"
_KUBERNETES = GoBuild(
    FOLDER / "kubernetes",
    "k8s.io/kubernetes",
    tuple(
        (name, f"k8s.io/kubernetes/cmd/{name}")
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
    ),
    f"-s -w {_COMPONENT}.gitVersion=v{{version}} {_COMPONENT}.gitMajor={{major}} {_COMPONENT}.gitMinor={{minor}}"
    " -X k8s.io/client-go/pkg/version.gitVersion=v{version}",
)
_ETCD = GoBuild(FOLDER / "etcd", "go.etcd.io/etcd/server/v3", (("etcd", "go.etcd.io/etcd/server/v3"),))
_PULUMI = GoBuild(
    FOLDER / "pulumi",
    "github.com/pulumi/pulumi/pkg/v3",
    (("pulumi", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"),),
    "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{version}",
)
_PULUMI_PYTHON = GoBuild(
    FOLDER / "pulumi-language-python",
    "github.com/pulumi/pulumi/sdk/v3",
    (("pulumi-language-python", "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"),),
)
_PROMETHEUS = GoBuild(
    FOLDER / "prometheus",
    "github.com/prometheus/prometheus",
    tuple((name, f"github.com/prometheus/prometheus/cmd/{name}") for name in ("prometheus", "promtool")),
    "-s -w -X github.com/prometheus/common/version.Version={version}",
    # Discovery of Kubernetes only: each of the others brings the SDK of a cloud along.
    tags=("netgo", "remove_all_sd", "enable_kubernetes_sd"),
    # Prometheus 3.13.0 is the module's v0.313.0.
    numbered=lambda version: (version[1] // 100, version[1] % 100, version[2]),
)
# The host runs a program through the first, the CLI a policy pack through the second; both must be as new as the CLI.
_PULUMI_SCRIPTS = ModuleFiles(
    FOLDER / "pulumi",
    "github.com/pulumi/pulumi/sdk/v3",
    (
        ("pulumi-language-python-exec", "python/cmd/pulumi-language-python-exec"),
        ("pulumi-analyzer-policy-python", "python/dist/pulumi-analyzer-policy-python"),
    ),
)

RECIPES: tuple[Recipe, ...] = (
    GoRecipe("kubernetes", (_KUBERNETES,), (), cpu_minutes=11),
    # One folder for all of Pulumi's: the CLI looks beside itself first, and warns of what it finds on PATH alone.
    GoRecipe("pulumi", (_PULUMI, _PULUMI_PYTHON), (_PULUMI_SCRIPTS,), cpu_minutes=3.5),
    GoRecipe("etcd", (_ETCD,), (), cpu_minutes=0.8),
    # Debian's Prometheus is built without discovery of Kubernetes.
    GoRecipe("prometheus", (_PROMETHEUS,), (), cpu_minutes=5),
    DebianRecipe(
        "alertmanager",
        "prometheus-alertmanager",
        (("alertmanager", "usr/bin/prometheus-alertmanager"), ("amtool", "usr/bin/amtool")),
    ),
)

_KUBERNETES_VERSION = _KUBERNETES.version()[:2]
_CONTROL_PLANE = same_minor(*_KUBERNETES_VERSION)
_ETCD_FITS = same_minor(*_ETCD.version()[:2])
_PULUMI_FITS = same_major(*_PULUMI.version()[:2])
_PROMETHEUS_FITS = Range((3, 0, 0), (4, 0, 0))
_ALERTMANAGER_FITS = Range((0, 24, 0), (1, 0, 0))
_HOST = "pulumi-language-python"
# Debian's is built without it, and says so nowhere; the names of a Go program's functions stay in a stripped one.
_DISCOVERY = ("discovery of Kubernetes", b"prometheus/discovery/kubernetes.(*Discovery)")

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        # Any newer CLI of the same major release is good, but only with the language host that it came with.
        Tool("pulumi", ("version",), _PULUMI_FITS, beside=(_HOST, f"{_HOST}-exec")),
        Tool(_HOST, (), _PULUMI_FITS, companion_of="pulumi"),
        Tool(f"{_HOST}-exec", (), _PULUMI_FITS, companion_of="pulumi"),
        Tool("pulumi-analyzer-policy-python", (), _PULUMI_FITS, companion_of="pulumi"),
        Tool("etcd", ("--version",), _ETCD_FITS),
        Tool("kube-apiserver", ("--version",), _CONTROL_PLANE),
        Tool("kube-controller-manager", ("--version",), _CONTROL_PLANE),
        Tool("kube-scheduler", ("--version",), _CONTROL_PLANE),
        Tool("kubectl", ("version", "--client"), same_minor(*_KUBERNETES_VERSION, within=1)),
        Tool("prometheus", ("--version",), _PROMETHEUS_FITS, parts=(_DISCOVERY,)),
        Tool("promtool", ("--version",), _PROMETHEUS_FITS),
        Tool("alertmanager", ("--version",), _ALERTMANAGER_FITS, aliases=("prometheus-alertmanager",)),
        Tool("amtool", ("--version",), _ALERTMANAGER_FITS),
        Tool("envoy", ("--version",), Range((1, 37, 0), (2, 0, 0))),
    )
}


def recipe_of(tool: str) -> Recipe | None:
    """What makes a tool; None for Envoy, which comes with the virtual environment."""
    return next((recipe for recipe in RECIPES if tool in recipe.provides), None)
