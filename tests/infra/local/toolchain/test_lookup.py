"""Where tools are found: by hand, on PATH if they fit, in the cache if they are whole."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.toolchain import locate, lookup
from infra.local.toolchain.recipes import RECIPES, TOOLS, DebianRecipe, GoRecipe
from infra.local.toolchain.versions import parse
from switchboard.errors import SwitchboardError
from tests.infra.local.toolchain.conftest import SYSTEM_PATH, Program

PULUMI = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec", "pulumi-analyzer-policy-python")


def _recipe(name: str) -> GoRecipe | DebianRecipe:
    return next(recipe for recipe in RECIPES if recipe.name == name)


def _cached(recipe_name: str, program: Program, package_version: str = "") -> Path:
    recipe = _recipe(recipe_name)
    key = recipe.key() if isinstance(recipe, GoRecipe) else recipe.key(package_version)
    for name in recipe.provides:
        program(lookup.tools_dir() / key / "bin" / name, "")
    return lookup.tools_dir() / key


@pytest.mark.parametrize(
    ("name", "says", "fits"),
    [
        ("kubectl", "Client Version: v1.36.0", True),
        ("kubectl", "Client Version: v1.38.4", True),
        ("kubectl", "Client Version: v1.32.4-dispatcher", False),
        ("kubectl", "Client Version: v1.39.0", False),
        ("kube-apiserver", "Kubernetes v1.37.9", True),
        ("kube-apiserver", "Kubernetes v1.36.9", False),
        ("etcd", "etcd Version: 3.6.1", True),
        ("etcd", "etcd Version: 3.5.21", False),
        ("prometheus", "prometheus, version 3.5.0", True),
        ("prometheus", "prometheus, version 2.42.0+ds (branch: debian/sid)", False),
        ("promtool", "promtool, version 3.13.0 (branch: , revision: unknown)", True),
        ("promtool", "promtool, version 2.55.1", False),
        ("alertmanager", "alertmanager, version 0.28.1", True),
        ("alertmanager", "nonsense", False),
    ],
)
def test_a_program_on_path_is_used_if_it_fits(
    on_path: Path, program: Program, name: str, says: str, fits: bool
) -> None:
    path = program(on_path / name, says)
    found = lookup.find(name)
    assert (found.path, found.source) == (path, "PATH") if found else not fits
    assert (found is not None) == fits


def test_what_does_not_fit_is_named_with_its_version(on_path: Path, program: Program) -> None:
    old = program(on_path / "kubectl", "Client Version: v1.32.4")
    with pytest.raises(SwitchboardError) as caught:
        locate(["kubectl", "etcd"])
    assert f"{old} is 1.32.4" in str(caught.value)
    assert "etcd (≥ 3.6 and < 3.7)" in str(caught.value)
    assert "switchboard infra toolchain build" in str(caught.value)


@pytest.mark.parametrize("whole", [True, False])
def test_a_prometheus_without_discovery_of_kubernetes_is_not_taken(on_path: Path, whole: bool) -> None:
    """Debian builds it so, and nothing that it prints tells. The binary is as the real ones where it counts."""
    path = on_path / "prometheus"
    part = "kubernetes" if whole else "dns"
    code = (
        "#include <stdio.h>\n"
        f'const char *part = "prometheus/discovery/{part}.(*Discovery)";\n'
        'int main(void) { puts("prometheus, version 3.5.0"); return part == 0; }\n'
    )
    subprocess.run(
        ["cc", "-x", "c", "-", "-o", path], input=code, text=True, check=True, env={"PATH": SYSTEM_PATH}
    )
    assert (lookup.find("prometheus") is not None) is whole
    assert (f"{path} lacks discovery of Kubernetes" in lookup.describe_missing("prometheus")) is not whole


def test_a_later_folder_of_path_may_fit(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "a" / "etcd", "etcd Version: 3.5.0")
    good = program(tmp_path / "b" / "etcd", "etcd Version: 3.6.2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert locate(["etcd"]).path("etcd") == good


def test_hand_built_tools_come_first_and_are_trusted(
    tmp_path: Path, on_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(on_path / "etcd", "etcd Version: 3.6.8")
    mine = program(tmp_path / "mine" / "bin" / "etcd", "my own")
    monkeypatch.setenv("SWITCHBOARD_TOOLS", str(tmp_path / "mine"))
    found = locate(["etcd"])["etcd"]
    assert (found.path, found.source) == (mine, "SWITCHBOARD_TOOLS")


def test_pulumi_on_path_needs_its_language_host_beside_it(on_path: Path, program: Program) -> None:
    cli = program(on_path / "pulumi", "v3.246.0")
    assert lookup.find("pulumi") is None, "an unknown host with this CLI was never tried"
    for name in PULUMI[1:]:
        program(on_path / name, "")
    tools = locate(PULUMI)
    assert tools.path("pulumi") == cli
    assert {tool.source for tool in tools.tools.values()} == {"PATH"}
    assert tools.bin_dirs == [], "what is on PATH needs no folder in front of it"


def test_a_link_to_a_program_finds_what_lies_beside_the_file(
    tmp_path: Path, on_path: Path, program: Program
) -> None:
    for name in PULUMI:
        program(tmp_path / "installed" / name, "v3.210.0")
    (on_path / "pulumi").symlink_to(tmp_path / "installed" / "pulumi")
    assert locate(PULUMI).path("pulumi-language-python") == tmp_path / "installed" / "pulumi-language-python"


def test_debian_calls_alertmanager_by_another_name(on_path: Path, program: Program) -> None:
    path = program(on_path / "prometheus-alertmanager", "alertmanager, version 0.25.0")
    assert locate(["alertmanager"]).path("alertmanager") == path


def test_only_a_whole_result_in_the_cache_counts(on_path: Path, program: Program) -> None:
    folder = _cached("kubernetes", program)
    assert locate(["kubectl"]).path("kubectl") == folder / "bin" / "kubectl"
    (folder / "bin" / "kube-scheduler").unlink()
    assert lookup.find("kubectl") is None


def test_a_result_of_other_sources_is_not_used(on_path: Path, program: Program) -> None:
    folder = _cached("etcd", program)
    folder.rename(folder.with_name("etcd-3.6.8-000000000000"))
    assert lookup.find("etcd") is None


def test_the_newest_fitting_debian_package_is_used(on_path: Path, program: Program) -> None:
    for version in ("0.9.0-1", "0.25.0-1+b4", "0.100.0+ds-1", "1.1.0-1"):
        folder = _cached("alertmanager", program, version)
        (folder / "root" / "usr" / "share").mkdir(parents=True)
    found = locate(["alertmanager"])["alertmanager"]
    assert found.version == "0.100.0+ds"
    assert found.path.parent.parent.name == f"alertmanager-0.100.0+ds-1-{platform.machine()}"
    assert found.share == found.path.parent.parent / "root" / "usr" / "share"


def test_prometheus_of_a_debian_package_in_the_cache_is_not_used(on_path: Path, program: Program) -> None:
    for name in ("prometheus", "promtool"):
        program(lookup.tools_dir() / f"prometheus-3.5.0+ds-1-{platform.machine()}" / "bin" / name, "")
    assert lookup.find("prometheus") is None, "it may be built without discovery of Kubernetes"
    folder = _cached("prometheus", program)
    found = locate(["prometheus"])["prometheus"]
    assert found.path == folder / "bin" / "prometheus"
    assert folder.name.startswith(f"prometheus-{found.version}-")
    assert parse(found.version) in TOOLS["prometheus"].fits
    assert found.share is None, "it reads nothing from there"


def test_the_cache_on_path_is_still_the_cache(
    on_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _cached("etcd", program)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    tools = locate(["etcd"])
    assert tools["etcd"].source == "cache"
    assert tools.bin_dirs == [folder / "bin"]


def test_envoy_is_the_program_itself_not_its_launcher(on_path: Path, program: Program) -> None:
    program(on_path / "envoy", "envoy version: 0/1.40.0/Clean/RELEASE/BoringSSL")
    found = locate(["envoy"])["envoy"]
    assert found.source == "virtual environment"
    assert found.path.read_bytes()[:4] == b"\x7fELF"


def test_an_unknown_name_is_a_mistake_of_the_caller(on_path: Path) -> None:
    with pytest.raises(KeyError, match="etdc"):
        locate(["etdc"])
    with pytest.raises(KeyError, match="kubectl"):
        locate(["envoy"]).path("kubectl")


def test_a_program_that_hangs_or_cannot_start_does_not_fit(on_path: Path, program: Program) -> None:
    broken = program(on_path / "etcd", "")
    broken.write_bytes(b"\x7fELF broken")
    assert lookup.find("etcd") is None
    assert lookup.ask_version(on_path / "absent", ("--version",)) is None


def test_lookup_needs_the_standard_library_alone() -> None:
    """The bootstrap asks it before anything is installed, and every node agent starts through it."""
    import subprocess

    root = Path(lookup.__file__).resolve().parents[3]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import infra.local.toolchain"
    python = shutil.which("python3", path=str(Path(sys.base_prefix) / "bin")) or sys.executable
    answer = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_tools_that_others_rely_on_are_known() -> None:
    assert {"pulumi", "etcd", "kube-apiserver", "kubectl", "prometheus", "alertmanager", "envoy"} <= set(
        TOOLS
    )
