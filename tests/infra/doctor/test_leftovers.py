"""What clouds that are gone leave: judged from facts, and found as a real process whose state was deleted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.doctor import leftovers
from infra.doctor.leftovers import Facts, Group, Marked
from infra.doctor.report import Finding, Verdict
from infra.local import processes
from infra.local.leftovers import Mount

OWN = Path("/s/local")
RUNS = Marked(7, Path("/s/local/sites/public/run/node-a.json"), True)
OTHER = Marked(8, Path("/t/state/test/sites/public/run/node-a.json"), True)
DEAD = Marked(9, Path("/gone/state/test/sites/public/run/node-a.json"), False)
PULUMI = Marked(10, Path("/t/state/test/run/pulumi.json"), True)


def _facts(
    *marked: Marked,
    mounts: tuple[str, ...] = (),
    groups: tuple[Group, ...] = (),
    lines: tuple[str, ...] | None = None,
) -> Facts:
    return Facts(OWN, marked, tuple(map(Path, mounts)), groups, lines)


def _judged(facts: Facts) -> tuple[Finding, Finding]:
    own, others = leftovers.judge(facts)
    return own, others


def _group(stack: str, *pids: int) -> Group:
    return Group(Path("/cg/switchboard") / stack, stack, pids)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (_facts(), "none"),
        (_facts(RUNS), "none"),
        (_facts(RUNS, OTHER), "running: /t/state/test"),
        (_facts(PULUMI), "running: /t/state/test"),
        (_facts(OTHER, groups=(_group("test", 12),)), "running: /t/state/test"),
        (_facts(groups=(_group("local"),)), "none"),  # of the stack in question: told by `lines`
        (_facts(OTHER, mounts=("/t/state/test/sites/public/nodes/a/pods/x",)), "running"),
        (_facts(mounts=("/s/local/sites/public/nodes/a/pods/x",)), "none"),
    ],
)
def test_what_is_no_leftover(facts: Facts, told: str) -> None:
    own, others = _judged(facts)
    assert own.status is Verdict.OK
    assert others.status is Verdict.OK
    assert told in others.what


@pytest.mark.parametrize(
    ("facts", "told", "mend"),
    [
        (_facts(DEAD), "process 9", "`kill 9`"),
        (_facts(groups=(_group("gone"),)), "control group /cg/switchboard/gone", "rmdir"),
        (_facts(groups=(_group("gone", 12, 13),)), "process 12, process 13", "`kill 12 13`; `find"),
        (
            _facts(mounts=("/g/sites/public/nodes/a/v",)),
            "mount /g/sites/public/nodes/a/v",
            "`umount /g/sites",
        ),
    ],
)
def test_what_is_left_of_others(facts: Facts, told: str, mend: str) -> None:
    _, found = _judged(facts)
    assert found.status is Verdict.WARNING
    assert told in found.what
    assert found.mend and mend in found.mend


def test_what_is_left_of_this_stack() -> None:
    found, _ = _judged(_facts(lines=("process 1", "process 2", "mount 3", "mount 4", "mount 5")))
    assert found.status is Verdict.WARNING
    assert found.what.endswith("process 1, process 2, mount 3, mount 4 and 1 more")
    assert found.mend and "switchboard down --stack local" in found.mend


def test_only_pods_mounts_count() -> None:
    mounts = [Mount(Path(each), "tmpfs") for each in ("/", "/s/x/sites/p/nodes/n/pods/u/v", "/proc")]
    assert leftovers.pods_mounts(mounts) == [Path("/s/x/sites/p/nodes/n/pods/u/v")]


def test_a_process_whose_state_was_deleted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path))
    record = tmp_path / "gone" / "sites" / "public" / "run" / "proxy.json"
    record.parent.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
        env={**os.environ, processes.MARK: str(record)},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # its environment is its own from here on
        running = leftovers.look("x", running=False)
        assert Marked(process.pid, record, True) in running.marked
        record.parent.rmdir()
        _, found = _judged(leftovers.look("x", running=False))
        assert found.status is Verdict.WARNING
        assert found.mend and str(process.pid) in found.mend
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None
