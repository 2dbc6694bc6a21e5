"""Who starts again what died: when, what, and what not."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import processes, supervisor
from infra.local.processes import Program, Record
from infra.local.supervisor import Care, Supervisor
from switchboard.paths import ROOT
from tests.infra.local.test_processes import SLEEP, wait_for

DELAYS = [
    ("the first death", 0.0, 3600.0, 1.0),
    ("at once again", 1.0, 0.2, 2.0),
    ("and again", 16.0, 0.2, 30.0),
    ("no longer than that", 30.0, 0.2, 30.0),
    ("it lived for a while", 30.0, 60.0, 1.0),
]


@pytest.mark.parametrize(("why", "before_s", "lived_s", "delay_s"), DELAYS)
def test_back_off(why: str, before_s: float, lived_s: float, delay_s: float) -> None:
    assert supervisor.next_delay(before_s, lived_s) == delay_s, why


def test_one_that_dies_again_and_again_is_left_alone_longer_and_longer() -> None:
    care, now, starts = Care(), 100.0, []
    while now < 200:
        if care.is_due(now):
            starts.append(now)
            care.started(now)
        now += 0.5
    gaps = [round(b - a) for a, b in itertools.pairwise(starts)]
    assert starts[0] == 101.0
    assert gaps == sorted(gaps) and gaps[-1] >= 30


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A site's folder; what runs of it is ended."""
    (tmp_path / "run").mkdir()
    yield tmp_path
    for pid in list(processes.marked(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def program(site: Path, name: str, argv: tuple[str, ...] = SLEEP) -> Program:
    return Program(
        name,
        argv,
        {"A": "ä"},
        site,
        site / f"{name}.log",
        site / "run" / f"{name}.json",
        (("127.0.0.1", 80),),
        "print",
        signal.SIGKILL,
    )


def test_what_up_leaves_is_what_is_started(site: Path) -> None:
    programs = [program(site, "a"), program(site, "b")]
    supervisor.write(site, programs)
    assert supervisor.read(site) == programs
    assert [found.digest for found in supervisor.read(site)] == [each.digest for each in programs]
    assert (site / "supervised.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("broken", [None, "", "[{", '[{"name": "a"}]', "{}"])
def test_half_a_list_is_none(site: Path, broken: str | None) -> None:
    if broken is not None:
        (site / "supervised.json").write_text(broken)
    assert supervisor.read(site) == []


def kill(record: Record) -> None:
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: not processes.alive(record))


def found(site: Path, name: str) -> Record:
    record = processes.read(site / "run" / f"{name}.json")
    assert record is not None
    return record


def test_what_died_is_started_again_after_a_moment_and_nothing_else(site: Path) -> None:
    programs = [program(site, "dies"), program(site, "lives")]
    supervisor.write(site, programs)
    first = [processes.start(each) for each in programs]
    own = Supervisor(site)
    assert [r.name for r in own.look(100.0)[0]] == ["dies", "lives"]
    kill(first[0])
    living, again = own.look(150.0)
    assert ([r.name for r in living], again) == (["lives"], 151.0)
    own.look(150.9)
    assert not processes.alive(found(site, "dies"))
    own.look(151.0)
    assert processes.alive(found(site, "dies"))
    assert found(site, "lives") == first[1]
    assert found(site, "dies").fits(programs[0]), "`up` has nothing to do about it"


def test_what_was_taken_down_stays_down(site: Path) -> None:
    one = program(site, "one")
    supervisor.write(site, [one])
    processes.start(one)
    own = Supervisor(site)
    own.look(100.0)
    processes.stop(one.record)
    for now in (200.0, 201.0, 300.0):
        assert own.look(now)[0] == []
    assert not one.record.exists()


def test_nothing_is_started_while_up_is_at_work(site: Path) -> None:
    one = program(site, "one")
    supervisor.write(site, [one])
    record = processes.start(one)
    own = Supervisor(site)
    own.look(100.0)
    kill(record)
    own.look(200.0)
    with supervisor.held(site):
        own.look(202.0)
        assert not processes.alive(found(site, "one"))
    own.look(202.2)
    assert processes.alive(found(site, "one"))


def test_a_program_that_cannot_be_started_is_tried_again(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tool = site / "tool"
    missing = program(site, "missing", (str(tool),))
    supervisor.write(site, [missing])
    gone = program(site, "missing")
    kill(processes.start(gone))
    own = Supervisor(site)
    own.look(100.0)
    own.look(101.0)
    assert "missing can't be started" in caplog.text
    tool.symlink_to(sys.executable)
    own.look(102.0)
    own.look(110.0)
    assert found(site, "missing").argv == (str(tool),)


def test_a_process_that_is_stopped_is_told_and_woken(site: Path) -> None:
    one = program(site, "one")
    record = processes.start(one)
    os.kill(record.pid, signal.SIGSTOP)
    wait_for(lambda: processes.is_stopped(record))
    assert processes.ensure(one) == (record, False)
    wait_for(lambda: not processes.is_stopped(record))


def test_the_command(site: Path) -> None:
    one = program(site, "one")
    supervisor.write(site, [one])
    record = processes.start(one)
    command = [sys.executable, "-m", "infra.local.supervisor", "--site", str(site)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        try:
            kill(record)
            wait_for(lambda: processes.alive(found(site, "one")))
        finally:
            running.kill()
