"""Tools, packages and the plugin: judged from facts, and looked at where they really are."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra import pulumi_cli
from infra.doctor import programs
from infra.doctor.programs import Packages, Plugin, ToBuild, ToolFacts
from infra.doctor.report import Verdict
from infra.local.toolchain import lookup
from infra.local.toolchain.versions import Range
from infra.plugin.install import NAME, install_in_home
from switchboard import paths

ETCD = ToolFacts(
    "etcd", Range((3, 6, 0), (3, 7, 0)), True, Path("/c/etcd/bin/etcd"), lookup.CACHED, (3, 6, 8)
)


@pytest.mark.parametrize(
    ("changes", "status", "told", "mend"),
    [
        ({}, "ok", "3.6.8 /c/etcd/bin/etcd", None),
        ({"asked": False, "version": None}, "ok", "/c/etcd/bin/etcd (cache)", None),
        ({"path": None}, "failed", "missing: wanted ≥ 3.6 and < 3.7", "make up"),
        ({"path": None, "unfit": ("/usr/bin/etcd is 3.4.0",)}, "failed", "/usr/bin/etcd is 3.4.0", "make up"),
        ({"version": None}, "failed", "doesn't run", "remove /c/etcd and run"),
        ({"version": (3, 5, 0)}, "failed", "is 3.5.0, wanted", "remove /c/etcd and run"),
        ({"version": None, "source": lookup.HAND_BUILT}, "failed", "doesn't run", "SWITCHBOARD_TOOLS"),
        ({"version": None, "source": lookup.IN_VENV}, "failed", "doesn't run", "make venv"),
        ({"version": None, "source": lookup.ON_PATH}, "failed", "doesn't run", "off PATH"),
        ({"lacks": "discovery of Kubernetes"}, "failed", "lacks discovery", "remove /c/etcd"),
    ],
)
def test_a_tool(changes: dict[str, object], status: str, told: str, mend: str | None) -> None:
    found = programs.judge_tool(replace(ETCD, **changes))
    assert (found.check, found.status) == ("tools/etcd", status)
    assert told in found.what
    assert (found.mend is None) if mend is None else (found.mend and mend in found.mend)


def test_a_tool_that_does_not_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "etcd"
    program.write_text("#!/bin/sh\nexit 127\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("SWITCHBOARD_TOOLS", str(tmp_path))
    (facts,) = programs.look_at_tools(["etcd"])
    assert programs.judge_tool(facts).status is Verdict.FAILED
    program.write_text("#!/bin/sh\necho etcd Version: 3.6.1 of a test\n")
    (facts,) = programs.look_at_tools(["etcd"])
    assert programs.judge_tool(facts).status is Verdict.OK


@pytest.mark.parametrize(
    ("facts", "status", "told"),
    [
        (ToBuild((), ()), "ok", "nothing"),
        (ToBuild(("etcd",), ()), "ok", "etcd: this machine can make them"),
        (ToBuild(("etcd",), ("Go ≥ 1.26 is not on PATH",)), "failed", "Go ≥ 1.26"),
    ],
)
def test_what_is_to_be_built(facts: ToBuild, status: str, told: str) -> None:
    found = programs.judge_build(facts)
    assert found.status == status
    assert told in found.what


def test_nothing_is_asked_of_go_where_nothing_is_missing() -> None:
    assert programs.look_at_build([ETCD]) == ToBuild((), ())
    assert programs.look_at_build([replace(ETCD, path=None)]).missing == ("etcd",)


LOCKED = {
    "aiohttp": frozenset({"3.11.0"}),
    "numpy": frozenset({"2.3.0", "2.4.0"}),
    "pywin32": frozenset({"1"}),
}
GOOD = Packages(
    LOCKED,
    frozenset({"numpy", "pywin32"}),
    {"aiohttp": "3.11.0", "numpy": "2.4.0", "switchboard": "0.1.0"},
    True,
)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({}, "ok", "3 packages"),
        ({"installed": {"numpy": "2.4.0"}}, "failed", "aiohttp is missing"),
        ({"installed": {"aiohttp": "3.12.0"}}, "failed", "aiohttp 3.12.0 (locked: 3.11.0)"),
        (
            {"installed": {"aiohttp": "3.11.0", "numpy": "1.0"}},
            "failed",
            "numpy 1.0 (locked: 2.3.0 or 2.4.0)",
        ),
        ({"installed": {"aiohttp": "3.11.0", "ipython": "9"}}, "warning", "not in the lock file: ipython"),
        ({"stamped": False}, "warning", "another lock or project file"),
        ({"own": "/usr/bin/python3"}, "skipped", "/usr/bin/python3"),
    ],
)
def test_packages(changes: dict[str, object], status: str, told: str) -> None:
    (found,) = programs.judge_packages(replace(GOOD, **changes))
    assert found.status == status
    assert told in found.what
    assert (found.mend is not None) == (status in ("failed", "warning"))


def test_a_lock_file_is_read_as_it_is_written() -> None:
    text = (
        "# by uv\nAio_Http==3.11.0 \\\n    --hash=sha256:00\n    # via\n    #   bentoml==1\n"
        "numpy==2.3.0 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "numpy==2.4.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:00\n"
    )
    assert programs.parse_lock(text) == (
        {"aio-http": frozenset({"3.11.0"}), "numpy": frozenset({"2.3.0", "2.4.0"})},
        frozenset({"numpy"}),
    )


def test_the_real_environment_is_looked_at() -> None:
    found = programs.look_at_packages()
    assert {"aiohttp", "typing-extensions", "pytest"} <= set(found.installed), (
        "names are as PyPA compares them"
    )
    assert len(found.locked) > 100
    assert found.locked["aiohttp"] == {found.installed["aiohttp"]}


@pytest.mark.parametrize(
    ("facts", "status", "told"),
    [
        (Plugin("4.3.0", Path("/p/x"), None), "ok", "official 4.3.0"),
        (Plugin("4.3.0", None, Path("/s/x")), "ok", "stand-in"),
        (Plugin("4.3.0", None, Path("/s/x"), False), "warning", "another Python or checkout"),
        (Plugin("4.3.0", None, None), "skipped", "isn't installed yet"),
    ],
)
def test_the_plugin(facts: Plugin, status: str, told: str) -> None:
    found = programs.judge_plugin(facts)
    assert found.status == status
    assert told in found.what


def test_the_plugin_is_looked_for_where_pulumi_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "pulumi"))
    assert programs.judge_plugin(programs.look_at_plugin("x")).status is Verdict.SKIPPED
    wanted = programs.look_at_plugin("x").wanted
    install_in_home(pulumi_cli.pulumi_home("x"), wanted, Path(sys.executable))
    assert programs.judge_plugin(programs.look_at_plugin("x")).status is Verdict.OK
    install_in_home(pulumi_cli.pulumi_home("x"), wanted, Path("/another/python"))
    assert programs.judge_plugin(programs.look_at_plugin("x")).status is Verdict.WARNING
    official = tmp_path / "pulumi" / "plugins" / f"resource-kubernetes-v{wanted}" / NAME
    official.parent.mkdir(parents=True)
    official.write_bytes(b"\x7fELF")
    found = programs.judge_plugin(programs.look_at_plugin("x"))
    assert (found.status, found.what) == (Verdict.OK, f"official {wanted} {official}")
    assert paths.state_dir("x").exists()
