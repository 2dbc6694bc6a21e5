"""The machine's checks: each with facts that it passes, facts that it finds, and the real machine looked at once."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from infra.doctor import machine
from infra.doctor.machine import GIB, MIB, Facts, Hierarchy, Room
from infra.doctor.report import Verdict
from infra.local import ports
from infra.local.layout import API_PORT, SiteLayout
from infra.local.ports import Taken
from tests.infra.local.test_pki import layout_at

WELL = Facts(
    system="Linux",
    release="6.1",
    python=(3, 12),
    no_namespaces="",
    hierarchies=(Hierarchy(2, ("memory", "cpu", "pids"), True),),
    cores=4,
    memory_bytes=16 * GIB,
    available_bytes=8 * GIB,
    rooms=(Room("state", Path("/s"), 50 * GIB, 1_000_000, True),),
    open_files=(1024, 1_048_576),
    inotify_instances=128,
    no_loopback="",
    taken=(),
    now_s=2_000_000_000,
    newest_s=1_999_999_000,
    newest="requirements.lock",
    random=True,
)


def test_a_good_machine() -> None:
    found = machine.judge(WELL)
    assert {each.status for each in found} == {Verdict.OK}
    assert len({each.check for each in found}) == len(found)
    assert not any(each.mend for each in found)


def _room(**changes: object) -> tuple[Room, ...]:
    return (replace(WELL.rooms[0], **changes),)


@pytest.mark.parametrize(
    ("check", "changes", "status", "told"),
    [
        ("system", {"system": "Darwin"}, "failed", "Linux only"),
        ("cores", {"cores": 1}, "warning", "1 core:"),
        ("cores", {"cores": 1.5}, "warning", "1.5 cores"),
        ("memory", {"available_bytes": 2 * GIB}, "warning", "2.0 GiB of 16.0 GiB"),
        ("memory", {"available_bytes": 100 * MIB}, "failed", "100 MiB of"),
        ("memory", {"available_bytes": 100 * MIB, "running": True}, "failed", "the kernel will soon kill"),
        ("disk/state", {"rooms": _room(free_bytes=900 * MIB)}, "failed", "900 MiB"),
        ("disk/state", {"rooms": _room(free_bytes=4 * GIB)}, "warning", "4.0 GiB"),
        ("disk/state", {"rooms": _room(free_inodes=9_000)}, "failed", "9,000 inodes"),
        ("disk/state", {"rooms": _room(free_inodes=99_000)}, "warning", "99,000 inodes"),
        ("disk/state", {"rooms": _room(writable=False)}, "failed", "can't be written"),
        ("open files", {"open_files": (256, 1024)}, "warning", "at most 1024"),
        ("clock", {"now_s": 1_000_000_000}, "failed", "the clock is behind"),
        ("random numbers", {"random": False}, "failed", "isn't seeded"),
        ("namespaces", {"no_namespaces": "Operation not permitted"}, "failed", "Operation not permitted"),
        ("control groups", {"hierarchies": ()}, "warning", "none mounted: no limits of memory and cpu"),
        (
            "control groups",
            {"hierarchies": (Hierarchy(1, ("memory",), True), Hierarchy(1, ("cpu",), False))},
            "warning",
            "v1: no limits of cpu can",
        ),
        ("inotify", {"inotify_instances": 8}, "warning", "8 instances"),
        ("loopback", {"no_loopback": "127.21.255.253 can't be used: x"}, "failed", "127.21.255.253"),
        ("ports", {"taken": (Taken("port 8080 is in use by pid 7 (nginx)", 7),)}, "failed", "nginx"),
    ],
)
def test_what_is_found(check: str, changes: dict[str, object], status: str, told: str) -> None:
    found = {each.check: each for each in machine.judge(replace(WELL, **changes))}[f"machine/{check}"]
    assert found.status == status
    assert told in found.what
    assert found.mend


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("memory", {"available_bytes": 2 * GIB, "running": True}),  # the cloud itself has the rest
        ("memory", {"available_bytes": 2 * GIB, "embedded": False}),
        ("cores", {"cores": 1, "embedded": False}),
        ("system", {"system": "Darwin", "embedded": False}),
        ("disk/state", {"rooms": _room(free_inodes=None)}),  # btrfs makes them as needed
        ("inotify", {"inotify_instances": None}),
        ("clock", {"now_s": 1_999_990_000}),  # another machine's clock wrote the file
        (
            "control groups",
            {"hierarchies": (Hierarchy(1, ("memory",), True), Hierarchy(1, ("cpu",), True))},
        ),
    ],
)
def test_what_is_no_fault(check: str, changes: dict[str, object]) -> None:
    found = {each.check: each for each in machine.judge(replace(WELL, **changes))}[f"machine/{check}"]
    assert found.status is Verdict.OK


def test_a_stack_of_clusters_needs_no_loopback_nor_namespaces() -> None:
    sick = replace(WELL, embedded=False, no_namespaces="x", no_loopback="x", hierarchies=(), taken=None)
    assert {each.status for each in machine.judge(sick)} == {Verdict.OK}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteLayout:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path))
    return layout_at(tmp_path / "x")


def test_this_machine_is_looked_at(layout: SiteLayout) -> None:
    found = machine.look("x", [layout], embedded=True)
    assert found.memory_bytes >= found.available_bytes > 0
    assert found.cores > 0
    assert found.now_s > found.newest_s > 0
    assert found.random
    assert [room.what for room in found.rooms] == ["state", "tools", "temporary"]
    assert not found.running
    assert found.no_loopback == ""
    assert found.no_namespaces == "", "the tests of the runtime need them"


def test_somebody_on_the_control_planes_address_is_found(layout: SiteLayout) -> None:
    with socket.socket() as other:
        other.bind((str(layout.control_plane_ip), API_PORT))
        other.listen()
        (found,) = ports.own(layout)
        assert f"{layout.control_plane_ip}:{API_PORT}, where kube-apiserver is to listen" in found.words
        finding = {each.check: each for each in machine.judge(replace(WELL, taken=(found,)))}["machine/ports"]
        assert finding.mend and f"kill {found.pid}" in finding.mend
    assert ports.own(layout) == []
