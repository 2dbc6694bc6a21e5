"""A run that is killed takes its clouds with it; one that ends by itself has done so already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import processes
from infra.local.controlplane import ETCD
from infra.local.processes import Program
from switchboard.paths import ROOT
from tests.lifeline import DONE

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


@pytest.mark.parametrize(("said", "stays"), [(b"", False), (DONE, True)])
def test_what_outlives_the_run(tmp_path: Path, said: bytes, stays: bool) -> None:
    site = tmp_path / "control-plane0" / "state" / "stack" / "sites" / "public"
    log = site / "etcd.log"
    program = Program(ETCD, SLEEP, {"PATH": os.environ["PATH"]}, ROOT, log, site / "run" / f"{ETCD}.json")
    record, _ = processes.ensure(program)
    try:
        command = [sys.executable, "-m", "tests.lifeline", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, input=said, capture_output=True, timeout=180)
        assert (done.returncode, done.stderr) == (0, b"")
        assert processes.alive(record) is stays
    finally:
        processes.stop(program.record)
