"""The benchmark's arithmetic, and its meter on a real process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from infra.local.node.bench.measure import Cost, Meter, Report, Start, program_cpu_s, starts, table
from infra.local.runtime import Limits, cgroups

COST = Cost(
    probe="exec",
    pods=100,
    window_s=60,
    probes_per_s=10,
    agent=1.5,
    rest=2.5,
    programs=0.8,
    agent_mib=80,
    ready_after_s=9,
    agent_ms_a_start=30,
)


def test_the_program_s_own_start_is_no_cost() -> None:
    found = starts("http", 0.5, [0.5 + n / 100 for n in range(1, 21)] + [0.4])
    assert (found.count, found.most_s) == (21, pytest.approx(0.2))
    assert (found.p50_s, found.p95_s) == (pytest.approx(0.1), pytest.approx(0.19))


def test_the_table_has_every_figure() -> None:
    report = Report(
        costs=[COST], starts=[Start(program="sleep", count=9, own_s=0, p50_s=0.1, p95_s=0.2, most_s=0.3)]
    )
    rows = [line.split() for line in table(report).splitlines()]
    assert ["exec", "100", "10.0", "1.50", "2.50", "0.80", "3.20", "80", "9.0", "s", "30.0"] in rows
    assert ["sleep", "9", "0.000", "0.100", "0.200", "0.300"] in rows
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_program_costs_something() -> None:
    assert 0 < program_cpu_s(["true"], times=20) < 1


def test_the_meter_sees_a_process_and_its_children_apart() -> None:
    here = cgroups.create(f"switchboard-test-{os.getpid()}", Limits())
    measured = cgroups.stats(here)
    cgroups.remove(here)
    if measured is None or os.geteuid() != 0:
        pytest.skip("needs root and control groups")
    burn = "import time\nwhile time.process_time() < 0.1: pass\n"
    script = (
        f"import subprocess, sys\ninput()\n{burn}subprocess.run([sys.executable, '-c', {burn!r}])\n"
        "print(flush=True)\ninput()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    meter = Meter(process.pid)
    try:
        before = meter.read()
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        after = meter.read()
        own_s, all_s = after[0] - before[0], after[1] - before[1]
        assert own_s >= 0.05
        assert all_s - own_s >= 0.1
    finally:
        process.communicate(b"\n")
        meter.close()
