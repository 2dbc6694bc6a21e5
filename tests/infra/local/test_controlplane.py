"""The command lines of a control plane: pure, so what they promise is read off them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.local import controlplane, pki
from infra.local.processes import Program
from tests.infra.local.test_pki import layout_at

TOOLS = {name: Path("/tools") / name for name in controlplane.NAMES}


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Program]:
    layout = layout_at(tmp_path)
    return controlplane.programs(layout, pki.ensure(layout), TOOLS)


@pytest.mark.parametrize("name", controlplane.NAMES)
def test_everything_listens_on_the_sites_own_address_only(programs: dict[str, Program], name: str) -> None:
    program = programs[name]
    assert {host for host, _ in program.listens} == {"127.31.0.1"}
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", " ".join(program.argv))) <= {"127.31.0.1", "127.131.0.0"}
    assert not any("http://" in flag for flag in program.argv)


def test_endpoints_are_left_alone(programs: dict[str, Program]) -> None:
    """EndpointSlices refuse loopback addresses, so nobody may try to write them."""
    assert "--endpoint-reconciler-type=none" in programs["kube-apiserver"].argv
    controllers = next(f for f in programs["kube-controller-manager"].argv if f.startswith("--controllers="))
    assert {"endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller"} <= {
        name.removeprefix("-")
        for name in controllers.removeprefix("--controllers=").split(",")
        if name[0] == "-"
    }


READERS = {
    "etcd.crt": {"etcd"},
    "apiserver.crt": {"kube-apiserver"},
    "etcd-client.crt": {"kube-apiserver"},
    "scheduler.kubeconfig": {"kube-scheduler"},
    "controller-manager.crt": {"kube-controller-manager"},
    "service-account.pub": {"kube-apiserver", "kube-controller-manager"},
    "ca.crt": {"kube-apiserver", "kube-controller-manager", "kube-scheduler"},
}


@pytest.mark.parametrize(("file", "readers"), READERS.items(), ids=READERS)
def test_a_renewed_file_restarts_its_readers(tmp_path: Path, file: str, readers: set[str]) -> None:
    layout = layout_at(tmp_path)
    made = pki.ensure(layout)
    before = controlplane.programs(layout, made, TOOLS)
    with (layout.pki / file).open("a") as out:
        out.write("\n")
    after = controlplane.programs(layout, made, TOOLS)
    assert {name for name in before if before[name].digest != after[name].digest} == readers


def test_every_file_named_is_there(programs: dict[str, Program]) -> None:
    for program in programs.values():
        for flag in program.argv[1:]:
            path = flag.partition("=")[2]
            if "/pki/" in path:
                assert Path(path).is_file(), flag
