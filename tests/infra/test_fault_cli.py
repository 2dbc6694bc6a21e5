"""`switchboard infra fault`: what names nothing is said first (`local/runtime/test_faults.py` breaks something)."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.fault_cli import app
from switchboard.errors import SwitchboardError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kill", "chat"], "'chat' names nothing"),
        (["kill", "pod/"], "names nothing"),
        (["kill", "cluster/public"], "names nothing"),
        (["kill", "process/kube-apiserver"], "no process kube-apiserver runs in the site public"),
        (["freeze", "process/etcd", "--site", "private"], "no process etcd runs in the site private"),
        (["freeze", "node/nowhere"], "the site public has no node nowhere"),
        (["freeze", "node/public-1", "--site", "moon"], "no embedded site moon"),
        (["slow", "process/etcd"], "this is for pods and nodes"),
        (["slow", "node/nowhere", "--cpu", "20"], "has no node nowhere"),
        (["fill", "process/etcd"], "this is for pods and nodes"),
        (["cut", "pod/chat"], "a node can be cut off, and nothing else"),
        (["cut", "node/nowhere"], "has no node nowhere"),
        (["kill", "node/public-1", "--stack", "production"], "isn't embedded on this machine"),
    ],
)
def test_what_cannot_be_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path))
    with pytest.raises(SwitchboardError, match=says):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
