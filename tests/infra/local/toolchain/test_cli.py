"""`switchboard infra toolchain`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from infra.local.toolchain.cli import app
from infra.local.toolchain.recipes import TOOLS
from tests.infra.local.toolchain.conftest import Program


def test_the_list_says_where_each_tool_is_from(on_path: Path, program: Program) -> None:
    path = program(on_path / "etcd", "etcd Version: 3.6.1")
    program(on_path / "kubectl", "Client Version: v1.32.4")
    answer = CliRunner().invoke(app, ["list", "--output", "json"])
    rows = {row["tool"]: row for row in json.loads(answer.stdout)}
    assert set(rows) == set(TOOLS)
    assert rows["etcd"] == {
        "tool": "etcd",
        "version": "3.6.1",
        "source": "PATH",
        "path": str(path),
        "note": "",
    }
    assert rows["kubectl"]["source"] == "missing"
    assert "1.32.4, which doesn't fit (≥ 1.36 and < 1.39)" in rows["kubectl"]["note"]
    table = CliRunner().invoke(app, ["list"]).stdout
    assert all(name in table for name in TOOLS)
    assert str(path) in table


def test_an_unknown_tool_or_output_is_refused(on_path: Path) -> None:
    for arguments, word in ((["build", "etdc"], "etdc"), (["list", "-o", "xml"], "xml")):
        answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == 2
        assert word in answer.output
