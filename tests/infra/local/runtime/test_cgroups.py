"""Limits: which files get which values in v1 and v2, where groups are made, and that they go again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.runtime import cgroups
from infra.local.runtime.cgroups import Hierarchy, Placement, parse_hierarchies, settings
from infra.local.runtime.spec import Limits

MI = 1 << 20
FULL = Limits(memory_bytes=64 * MI, cpu_cores=0.5, pids=50, cpu_request_cores=0.25)


@pytest.mark.parametrize(
    ("version", "controller", "limits", "written"),
    [
        (1, "memory", FULL, {"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864"}),
        (2, "memory", FULL, {"memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1"}),
        (1, "cpu", FULL, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000", "cpu.shares": "256"}),
        (2, "cpu", FULL, {"cpu.max": "50000 100000", "cpu.weight": "10"}),
        (1, "pids", FULL, {"pids.max": "50"}),
        (1, "cpuacct", FULL, {}),
        (1, "memory", Limits(), {}),
        (2, "cpu", Limits(), {}),
        (2, "cpu", Limits(cpu_cores=0.001), {"cpu.max": "1000 100000"}),  # the kernel takes no less
        (1, "cpu", Limits(cpu_request_cores=0), {"cpu.shares": "2"}),
    ],
)
def test_settings(version: int, controller: str, limits: Limits, written: dict[str, str]) -> None:
    assert {name: value for name, value, _ in settings(version, controller, limits)} == written


@given(st.floats(0, 1000))
def test_weights_stay_in_the_kernels_range(cores: float) -> None:
    limits = Limits(cpu_request_cores=cores)
    assert int(settings(1, "cpu", limits)[0][1]) >= 2
    assert 1 <= int(settings(2, "cpu", limits)[0][1]) <= 10_000


V1 = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_OWN = "4:memory:/user/7\n1:cpu:/\n0::/\n"


def test_v1_beside_an_empty_v2() -> None:
    found = parse_hierarchies(V1, V1_OWN)
    assert [(each.version, each.controllers, str(each.own)) for each in found] == [
        (1, ("cpu",), "/sys/fs/cgroup/cpu"),
        (1, ("memory",), "/sys/fs/cgroup/memory/user/7"),
        (2, (), "/sys/fs/cgroup/unified"),
    ]
    assert [str(base) for base in found[1].bases()] == [
        "/sys/fs/cgroup/memory/user/7",
        "/sys/fs/cgroup/memory/user",
        "/sys/fs/cgroup/memory",
    ]


@pytest.mark.parametrize(
    ("root", "own", "place"),
    [
        ("/", "/user.slice/a.scope", "/sys/fs/cgroup/user.slice/a.scope"),
        ("/docker/1", "/docker/1", "/sys/fs/cgroup"),  # in a container, its part is what is mounted
        ("/docker/1", "/docker/1/sub", "/sys/fs/cgroup/sub"),
        ("/docker/1", "/elsewhere", "/sys/fs/cgroup"),
        ("/", "/../../other", "/sys/fs/cgroup"),  # a cgroup namespace that we are not in
    ],
)
def test_v2_own_group(root: str, own: str, place: str) -> None:
    mounts = f"30 24 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert str(parse_hierarchies(mounts, f"0::{own}\n")[0].own) == place


def test_v2_passes_controllers_on_down_to_the_container(tmp_path: Path) -> None:
    """On plain files, which stand for a delegated hierarchy: what is written where."""
    own = tmp_path / "user" / "own"
    own.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "user", own):
        (folder / "cgroup.subtree_control").write_text("")
    made = cgroups.create("switchboard/s/c", FULL, [Hierarchy(2, ("memory", "cpu", "pids"), tmp_path, own)])
    leaf = own / "switchboard" / "s" / "c"
    assert leaf.is_dir()
    for folder in (own, leaf.parent.parent, leaf.parent):
        assert (folder / "cgroup.subtree_control").read_text() == "+pids"  # the last of three writes
    assert not (leaf / "cgroup.subtree_control").exists()
    # The kernel would have filled in cgroup.controllers; without it nothing is enforced, and that is said.
    assert {"memory.max", "cpu.max", "pids.max"} <= set(made.unenforced)


def test_no_permission_is_said_not_raised() -> None:
    nowhere = Hierarchy(1, ("memory",), Path("/proc/self"), Path("/proc/self"))
    made = cgroups.create("switchboard/s/c", FULL, [nowhere])
    assert made.directories == {}
    assert "memory.limit_in_bytes" in made.unenforced
    assert {"cpu", "pids"} <= set(made.unenforced)
    assert cgroups.stats(made) is None
    assert cgroups.remove(made) == []


def test_a_placement_survives_json() -> None:
    placement = Placement({"memory": "/a/b"}, {"memory": "/a"}, ("cpu",))
    assert Placement.from_json(placement.to_json()) == placement


@pytest.mark.skipif(os.geteuid() != 0, reason="making groups needs root or a delegation")
def test_real_groups_are_made_and_go_with_their_empty_parents() -> None:
    relative = f"switchboard/test-{os.getpid()}-cgroups/node"
    first = cgroups.create(f"{relative}/one", FULL)
    second = cgroups.create(f"{relative}/two", Limits())
    if not first.directories:
        pytest.skip(f"no cgroups here: {first.unenforced}")
    assert first.unenforced == ()
    assert first.processes() == set()
    assert cgroups.stats(first) is not None
    top = {
        Path(first.bases[name]) / "switchboard" / f"test-{os.getpid()}-cgroups" for name in first.directories
    }
    assert cgroups.remove(first) == []
    assert all(folder.exists() for folder in (*second.folders, *top))
    assert cgroups.remove(second) == []
    assert not any(folder.exists() for folder in (*first.folders, *second.folders, *top))
    assert cgroups.remove(second) == []
