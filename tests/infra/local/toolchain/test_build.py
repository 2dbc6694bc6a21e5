"""Building: whole results only, one builder at a time, clear failures, and going on after a kill.

The module that is built here is tiny and needs no network; its program goes by the name of a real tool and says a
version that fits, so that all steps run as they do for the real ones.
"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.toolchain import build, ensure, golang, lookup, prerequisites
from infra.local.toolchain.recipes import RECIPES, GoBuild, GoRecipe, ModuleFiles
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress
from tests.infra.local.toolchain.conftest import SYSTEM_PATH

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go here to build with")

MAIN = 'package main\n\nvar version string\n\nfunc main() { println("etcd Version: " + version) }\n'


def _module(folder: Path, main: str = MAIN) -> Path:
    """A module that requires another one, which lies beside it."""
    (folder / "hello" / "script").mkdir(parents=True)
    (folder / "hello" / "go.mod").write_text("module example.test/hello/v3\n\ngo 1.26.0\n")
    (folder / "hello" / "main.go").write_text(main)
    (folder / "hello" / "script" / "etcd-script").write_text("#!/bin/sh\n")
    (folder / "hello" / "LICENSE").write_text("as you like\n")
    (folder / "hello" / "LICENSES").mkdir()
    (folder / "go.mod").write_text(
        "module example.test/tools\n\ngo 1.26.0\n\ntool example.test/hello/v3\n\n"
        "require example.test/hello/v3 v3.6.8 // indirect\n\nreplace example.test/hello/v3 => ./hello\n"
    )
    (folder / "go.sum").write_text("")
    return folder


def _recipe(folder: Path, name: str = "tiny") -> GoRecipe:
    module = "example.test/hello/v3"
    made = GoBuild(folder, module, (("etcd", module),), "-s -w -X main.version={version}")
    script = ModuleFiles(folder, module, (("pulumi-language-python-exec", "script/etcd-script"),))
    return GoRecipe(name, (made,), (script,), cpu_minutes=1)


def _progress() -> Progress:
    return Progress(io.StringIO())


def _make(recipe: GoRecipe) -> Path:
    build.make_all([recipe], _progress())
    folder = lookup.cached_folder(recipe)
    assert folder is not None
    return folder


@needs_go
def test_a_result_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    recipe = _recipe(_module(tmp_path / "module"))
    folder = _make(recipe)
    said = subprocess.run([folder / "bin" / "etcd"], capture_output=True, text=True, check=True).stderr
    assert said == "etcd Version: 3.6.8\n"
    assert os.access(folder / "bin" / "pulumi-language-python-exec", os.X_OK)
    assert (folder / "licenses" / "example.test_hello_v3" / "LICENSE").read_text() == "as you like\n"
    assert sorted(path.name for path in lookup.tools_dir().iterdir()) == [".locks", recipe.key()]
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "licenses"]


@needs_go
def test_a_recipes_tags_choose_the_code(tmp_path: Path) -> None:
    plain = _recipe(_module(tmp_path / "module"))
    hello = tmp_path / "module" / "hello"
    (hello / "tagged.go").write_text(
        '//go:build tagged\n\npackage main\n\nfunc init() { print("with a tag, ") }\n'
    )
    tagged = dataclasses.replace(
        plain, builds=(dataclasses.replace(plain.builds[0], tags=("other", "tagged")),)
    )
    said = [
        subprocess.run([_make(recipe) / "bin" / "etcd"], capture_output=True, text=True, check=True).stderr
        for recipe in (plain, tagged)
    ]
    assert said == ["etcd Version: 3.6.8\n", "with a tag, etcd Version: 3.6.8\n"]


@needs_go
def test_what_is_there_is_not_built_again_and_what_is_damaged_is(tmp_path: Path) -> None:
    recipe = _recipe(_module(tmp_path / "module"))
    program = _make(recipe) / "bin" / "etcd"
    before = program.stat().st_ino
    _make(recipe)
    assert program.stat().st_ino == before
    program.unlink()
    assert (_make(recipe) / "bin" / "etcd").exists()


@needs_go
@pytest.mark.parametrize("flags", ["-buildvcs=false", "-mod=vendor", "-tags=other -race", "nonsense"])
def test_the_users_go_settings_do_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    monkeypatch.setenv("GOFLAGS", flags)
    monkeypatch.setenv("GOOS", "plan9")
    assert (_make(_recipe(_module(tmp_path / "module"))) / "bin" / "etcd").exists()


@needs_go
def test_a_failed_build_names_the_tool_the_reason_and_the_log(tmp_path: Path) -> None:
    recipe = _recipe(_module(tmp_path / "module", 'package main\n\nfunc main() { undefined("x") }\n'))
    stream = io.StringIO()
    with pytest.raises(SwitchboardError) as caught:
        build.make_all([recipe], Progress(stream))
    text = str(caught.value)
    assert "building etcd failed (exit code 1)" in text
    assert "undefined: undefined" in text
    log = tmp_path / "cache" / "logs" / "tiny.log"
    assert str(log) in text
    assert "go build" in log.read_text()
    assert stream.getvalue().startswith("✗ build etcd")
    assert sorted(path.name for path in lookup.tools_dir().iterdir()) == [".locks"]


@needs_go
def test_without_network_the_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _module(tmp_path / "module")
    go_mod = (folder / "go.mod").read_text().replace("replace example.test/hello/v3 => ./hello\n", "")
    (folder / "go.mod").write_text(go_mod)
    (folder / "go.sum").write_text(
        "example.test/hello/v3 v3.6.8 h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        "example.test/hello/v3 v3.6.8/go.mod h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    )
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(SwitchboardError, match=r"a package server can't be reached") as caught:
        build.make_all([_recipe(folder)], _progress())
    assert "GOPROXY is http://127.0.0.1:1" in str(caught.value)


@needs_go
def test_a_program_in_the_wrong_version_is_not_kept(tmp_path: Path) -> None:
    recipe = _recipe(_module(tmp_path / "module", MAIN.replace("+ version", '+ "2.0.0"')))
    with pytest.raises(SwitchboardError, match=r"etcd .* is version 2\.0\.0"):
        build.make_all([recipe], _progress())
    assert lookup.cached_folder(recipe) is None


def test_missing_go_is_named_before_any_work(on_path: Path, cache: Path) -> None:
    with pytest.raises(SwitchboardError) as caught:
        ensure(_progress())
    assert "Go ≥ 1.26 (https://go.dev/dl) is not on PATH" in str(caught.value)
    assert "alertmanager (≥ 0.24 and < 1.0) on PATH" in str(caught.value)
    assert "prometheus (" not in str(caught.value), "Go makes it"
    assert not cache.exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo go version go1.22.3 linux/amd64", "go is 1.22.3"),
        (
            "echo 'go: go.mod requires go >= 1.26.0 (running go 1.22; GOTOOLCHAIN=local)' >&2; exit 1",
            "running go 1.22",
        ),
        ("echo go version go1.26.0 linux/amd64", None),
        ("echo go version go1.31.2 linux/arm64", None),
    ],
)
def test_gos_version_is_asked_where_it_matters(on_path: Path, script: str, problem: str | None) -> None:
    (on_path / "go").write_text(f"#!/bin/sh\n{script}\n")
    (on_path / "go").chmod(0o755)
    answer = prerequisites.go_problem(on_path)
    assert answer is None if problem is None else answer is not None and problem in answer


def test_found_tools_need_no_prerequisites(
    tmp_path: Path, on_path: Path, program: Callable[[Path, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "mine" / "etcd", "")
    monkeypatch.setenv("SWITCHBOARD_TOOLS", str(tmp_path / "mine"))
    assert ensure(_progress(), ["etcd"]).path("etcd") == path


def test_the_longest_build_is_started_first() -> None:
    order = [recipe.name for recipe in build.needed(reversed([*lookup.names_of(None)][:-1]))]
    assert order == ["alertmanager", "kubernetes", "prometheus", "pulumi", "etcd"]
    assert sorted(order) == sorted(recipe.name for recipe in RECIPES)


@pytest.mark.parametrize(("gib", "at_once"), [(2, 1), (4, 1), (8, 2), (64, 2)])
def test_two_builds_at_once_where_memory_bears_them(gib: int, at_once: int) -> None:
    assert build.builds_at_once(gib * 1024**3) == at_once


def test_a_build_environment_keeps_where_modules_come_from() -> None:
    made = golang.environment(
        Path("/scratch"), {"GOPROXY": "https://mirror.test", "GOOS": "plan9", "GOFLAGS": "-x"}
    )
    assert made["GOPROXY"] == "https://mirror.test"
    assert "GOOS" not in made
    assert made["CGO_ENABLED"] == "0"
    assert "-x" not in made["GOFLAGS"]


# --- several processes -------------------------------------------------------------------------------------


_CHILD = """
    import sys
    from pathlib import Path
    from infra.local.toolchain import build
    from switchboard.progress import Progress
    from tests.infra.local.toolchain.test_build import _recipe
    with Progress(sys.stdout) as progress:
        build.make_all([_recipe(Path(sys.argv[1]))], progress)
"""


def _child(module: Path, path: str = SYSTEM_PATH) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_CHILD), str(module)],
        cwd=Path(build.__file__).resolve().parents[3],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _slow_go(folder: Path) -> str:
    """A PATH whose `go build` says that it began and then lasts until it is ended."""
    real = shutil.which("go")
    folder.mkdir()
    (folder / "go").write_text(
        f'#!/bin/sh\n[ "$1" = build ] && echo $$ > {folder}/begun.tmp && mv {folder}/begun.tmp {folder}/begun'
        f' && [ ! -e {folder}/quick ] && exec sleep 600\nexec {real} "$@"\n'
    )
    (folder / "go").chmod(0o755)
    return f"{folder}:{SYSTEM_PATH}"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@needs_go
def test_two_processes_make_it_once(tmp_path: Path) -> None:
    module = _module(tmp_path / "module")
    children = [_child(module), _child(module)]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    log = (tmp_path / "cache" / "logs" / "tiny.log").read_text()
    assert log.count("$ go build") == 1, "the second took what the first had made"
    assert lookup.cached_folder(_recipe(module)) is not None


@needs_go
def test_a_killed_build_ends_its_commands_and_the_next_run_goes_on(tmp_path: Path) -> None:
    module, slow = _module(tmp_path / "module"), tmp_path / "slow"
    path = _slow_go(slow)
    child = _child(module, path)
    _until(lambda: (slow / "begun").exists())
    command = int((slow / "begun").read_text())
    waiting = _child(module, path)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == f"  tiny: process {child.pid} makes it already; waiting for it\n"
    (slow / "quick").touch()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    _until(lambda: _gone(command))
    rest = waiting.communicate(timeout=300)[0]
    assert waiting.returncode == 0, rest
    assert sorted(path.name for path in lookup.tools_dir().iterdir()) == [".locks", _recipe(module).key()]


@needs_go
def test_an_interrupt_ends_the_commands_and_leaves_nothing(tmp_path: Path) -> None:
    module, slow = _module(tmp_path / "module"), tmp_path / "slow"
    child = _child(module, _slow_go(slow))
    _until(lambda: (slow / "begun").exists())
    child.send_signal(signal.SIGINT)
    output = child.communicate(timeout=180)[0]
    assert child.returncode != 0
    assert "KeyboardInterrupt" in output
    _until(lambda: _gone(int((slow / "begun").read_text())))
    assert sorted(path.name for path in lookup.tools_dir().iterdir()) == [".locks"]


@needs_go
def test_a_failure_calls_the_other_builds_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    monkeypatch.setenv("PATH", _slow_go(slow))
    lasting = _recipe(_module(tmp_path / "good"), "lasting")
    broken = _recipe(_module(tmp_path / "bad"), "broken")
    (tmp_path / "bad" / "go.mod").write_text("require example.test/hello/v3 v3.6.8\nnonsense\n")
    with pytest.raises(SwitchboardError, match="building etcd failed"):
        build.make_all([lasting, broken], _progress())
    if (slow / "begun").exists():
        _until(lambda: _gone(int((slow / "begun").read_text())))
    assert sorted(path.name for path in lookup.tools_dir().iterdir()) == [".locks"]
