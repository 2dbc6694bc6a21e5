"""The embedded cloud as a whole, with real control planes: up, again, cut off, repaired, down, clean.

Node agents and Service proxies have tests of their own; here they only come up and go down, in one test.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local import cloud, controlplane, health, leftovers, processes, site, teardown
from infra.local.layout import API_PORT, SiteLayout
from infra.local.node import provisioner
from infra.local.processes import Program
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.kube import CONFIG_MAPS, NODES, PERSISTENT_VOLUMES, Credentials, Kube, Object
from switchboard.progress import Progress
from tests.conftest import free_networks, run_apart, write_stack
from tests.infra.local.test_pki import layout_at
from tests.infra.local.test_processes import SLEEP, wait_for

STACK = f"cloud{os.getpid()}"


@pytest.fixture(scope="module")
def cloud_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A stack for this module; each test brings it up (which is quick where it is up already)."""
    env = write_stack(tmp_path_factory.mktemp("cloud"), STACK)
    yield env
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        cloud.clean(STACK, quiet())


@pytest.fixture
def stack(cloud_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in cloud_env.items():
        monkeypatch.setenv(name, value)
    return STACK


@pytest.fixture(scope="module")
def spare_networks() -> list[str]:
    return free_networks(4)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare_networks: list[str]) -> str:
    """A stack that was never up."""
    name = f"other{os.getpid()}"
    for key, value in write_stack(tmp_path, name, spare_networks).items():
        monkeypatch.setenv(key, value)
    return name


def quiet() -> Progress:
    return Progress(io.StringIO())


def up(stack: str) -> dict[str, int]:
    cloud.up(stack, quiet(), nodes=False, proxy=False)
    return pids(stack)


def pids(stack: str) -> dict[str, int]:
    """`site/name` → pid of what runs."""
    found = {}
    for path in (paths.state_dir(stack) / "sites").glob("*/run/*.json"):
        record = processes.read(path)
        if record is not None and processes.alive(record):
            found[f"{path.parts[-3]}/{record.name}"] = record.pid
    return found


def all_parts() -> set[str]:
    return {f"{where}/{name}" for where in ("private", "public") for name in controlplane.NAMES}


def note(layout: SiteLayout, value: str | None = None) -> str:
    """Write a value into the site, or read the one that is there."""

    async def work() -> Object:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            if value is None:
                return await kube.get(CONFIG_MAPS, "note", "default")
            body = {"metadata": {"name": "note", "namespace": "default"}, "data": {"value": value}}
            return await kube.apply(CONFIG_MAPS, body, field_manager="test")

    return str(run_apart(work())["data"]["value"])


def test_up_again_changes_nothing(stack: str) -> None:
    first = up(stack)
    assert set(first) == all_parts()
    assert up(stack) == first
    assert {found.name: found.running for found in cloud.status(stack)} == {"private": True, "public": True}


KILLED = [
    (["kube-apiserver"], {"kube-apiserver"}),
    (["kube-scheduler", "kube-controller-manager"], {"kube-scheduler", "kube-controller-manager"}),
    # An API server that missed etcd for long would take its time to try again, so it is started anew.
    (["etcd", "kube-scheduler"], {"etcd", "kube-apiserver", "kube-scheduler"}),
]


@pytest.mark.parametrize(("names", "expected"), KILLED)
def test_what_was_killed_is_started_again_and_nothing_else(
    stack: str, names: list[str], expected: set[str]
) -> None:
    before = up(stack)
    (private, _public) = cloud.layouts(stack)
    note(private, "kept")
    for name in names:
        record = processes.read(private.run / f"{name}.json")
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        wait_for(functools.partial(lambda killed: not processes.alive(killed), record))
    found = {part.name: part for part in cloud.status(stack)[0].components}
    assert not any(found[name].healthy for name in names)
    after = up(stack)
    changed = {name for name in before if before[name] != after[name]}
    # A controller manager or scheduler that is just starting ends of itself when its API server goes.
    may = {"kube-controller-manager", "kube-scheduler"} if "kube-apiserver" in expected else set()
    assert {f"private/{name}" for name in expected} <= changed
    assert changed <= {f"private/{name}" for name in expected | may}
    assert note(private) == "kept"


def test_down_leaves_the_data_and_nothing_else(stack: str) -> None:
    up(stack)
    (private, _public) = cloud.layouts(stack)
    note(private, "still here")
    cloud.down(stack, quiet())
    assert pids(stack) == {}
    assert leftovers.find(paths.state_dir(stack), stack) == []
    assert not any(found.running for found in cloud.status(stack))
    cloud.down(stack, quiet())  # once more is no mistake
    up(stack)
    assert note(private) == "still here"


def test_other_ranges_are_refused_once_there_is_data(
    stack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = up(stack)
    file = Path(os.environ["SWITCHBOARD_STACK_FILE"])
    document = yaml.safe_load(file.read_text())
    document["config"]["switchboard:sites"][1]["embedded"]["services"] = "127.149.0.0/16"
    (tmp_path / file.name).write_text(yaml.safe_dump(document))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(tmp_path / file.name))
    with pytest.raises(SwitchboardError, match=r"site public was made with .*127\.149\.0\.0"):
        up(stack)
    assert pids(stack) == before


def test_an_address_in_use_is_found_before_anything_starts(other: str) -> None:
    (_private, public) = cloud.layouts(other)
    with socket.socket() as taken:
        taken.bind((str(public.control_plane_ip), API_PORT))
        taken.listen()
        with pytest.raises(
            SwitchboardError, match=f"{public.control_plane_ip}:{API_PORT}, where kube-apiserver"
        ):
            up(other)
    assert pids(other) == {}


def without_edge(document: Object) -> Object:
    public = document["config"]["switchboard:sites"][1]
    public["edges"] = []
    public["embedded"]["nodes"] = [n for n in public["embedded"]["nodes"] if n["name"] != "edge-1"]
    return document


def node_names(layout: SiteLayout) -> set[str]:
    async def work() -> list[Object]:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            return await kube.list(NODES)

    return {node["metadata"]["name"] for node in run_apart(work())}


def volume_of(node: str, name: str, mode: str = "ReadWriteOnce") -> Object:
    """A volume as the node's agent makes it, of a claim `name` that nobody has any more."""
    claim = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
        "spec": {
            "accessModes": [mode],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "local",
        },
    }
    return provisioner.volume_for(claim, {}, node, "/nowhere")


def volumes(layout: SiteLayout) -> dict[str, str]:
    """Name → phase."""

    async def work() -> list[Object]:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            return await kube.list(PERSISTENT_VOLUMES)

    return {found["metadata"]["name"]: found["status"]["phase"] for found in run_apart(work())}


def add_volume(layout: SiteLayout, node: str, name: str, policy: str) -> Path:
    """A released volume of the node, with its folder."""
    body = volume_of(node, name)
    body["spec"]["persistentVolumeReclaimPolicy"] = policy

    async def work() -> None:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            await kube.create(PERSISTENT_VOLUMES, body)

    run_apart(work())
    wait_for(lambda: volumes(layout)[body["metadata"]["name"]] == "Released")
    folder = layout.node(node).volumes_dir / body["metadata"]["name"]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_volumes_of_a_node_that_was_dropped(tmp_path: Path) -> None:
    """`status` names what claims still hold; what is released, `up` deletes."""
    layout = layout_at(tmp_path)
    held = {**volume_of("gone", "data-db-0"), "status": {"phase": "Bound"}}
    released = {**volume_of("gone", "data-db-1"), "status": {"phase": "Released"}}
    here = {**volume_of(layout.nodes[0].name, "data-db-2"), "status": {"phase": "Bound"}}
    shared = {**volume_of("gone", "models", "ReadWriteMany"), "status": {"phase": "Bound"}}
    foreign = {"metadata": {"name": "nfs"}, "spec": {}, "status": {"phase": "Bound"}}
    (found,) = health.stranded(layout, [held, released, here, shared, foreign])
    assert (found.name, found.healthy) == ("gone", False)
    assert "claim default/data-db-0: put the node back" in found.note
    assert health.stranded(layout, [released, here, shared, foreign]) == []


def sick(stack: str) -> list[str]:
    """What isn't healthy, and why."""
    found = cloud.status(stack)
    parts = [f"{part.name}: {part.note}" for each in found for part in each.components if not part.healthy]
    return parts + [f"{node.name}: {node.note}" for each in found for node in each.nodes if not node.healthy]


def test_nodes_and_proxies_come_up_and_go_with_the_site(stack: str) -> None:
    cloud.up(stack, quiet())
    first = pids(stack)
    wait_for(lambda: sick(stack) == [], 240)  # a busy machine answers late
    (_private, public) = cloud.layouts(stack)
    assert node_names(public) == {"public-1", "public-2", "edge-1"}

    os.kill(first["public/node-public-2"], signal.SIGKILL)
    processes.stop(public.run / "node-edge-1.json")  # or it would delete its volume itself
    deleted = add_volume(public, "edge-1", "deleted", "Delete")
    kept = add_volume(public, "edge-1", "kept", "Retain")
    file = Path(os.environ["SWITCHBOARD_STACK_FILE"])
    before = file.read_text()
    file.write_text(yaml.safe_dump(without_edge(yaml.safe_load(before))))
    try:
        cloud.up(stack, quiet())
        assert node_names(public) == {"public-1", "public-2"}
        assert "public/node-edge-1" not in pids(stack)
        assert (set(volumes(public)), deleted.exists()) == ({kept.name}, False)
        assert kept.exists(), "somebody wants to keep it"
        wait_for(lambda: sick(stack) == [], 240)  # a busy machine answers late
    finally:
        file.write_text(before)
        cloud.down(stack, quiet())
    assert pids(stack) == {}
    assert leftovers.find(paths.state_dir(stack), stack) == []


def test_clean_removes_the_state(other: str) -> None:
    state = paths.state_dir(other)
    layout = cloud.layouts(other)[0]
    for folder in (layout.nodes[0].volumes_dir / "v", layout.volumes_dir / "v"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("data")
    cloud.clean(other, quiet())
    assert not state.exists()
    cloud.clean(other, quiet())


def test_a_broken_stack_file_does_not_keep_the_cloud_up(other: str) -> None:
    layout = cloud.layouts(other)[0]
    layout.directory.mkdir(parents=True)
    running = [processes.start(program(layout, name)) for name in ("node-private-1", "proxy", "etcd")]
    Path(os.environ["SWITCHBOARD_STACK_FILE"]).write_text("config: [not what it should be")
    cloud.down(other, quiet())
    assert not any(processes.alive(record) for record in running)
    cloud.clean(other, quiet())
    assert not paths.state_dir(other).exists()


def test_the_state_is_its_owners_alone(other: str) -> None:
    state = paths.state_dir(other)
    with cloud.exclusive(other, "switchboard up"):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert not state.exists(), "nothing came into it"
    state.mkdir(mode=0o755)
    (state / "file").touch()
    with cloud.exclusive(other, "switchboard up"):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert (state / "file").exists()


def test_two_at_once_the_second_says_who_is_at_work(other: str) -> None:
    code = "import sys\nfrom infra.local import cloud\nwith cloud.exclusive(sys.argv[1], 'switchboard up'):\n"
    code += "    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, other],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=paths.ROOT,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = rf"`switchboard up` \(pid {holder.pid}, .+ on .+, since .+\) is at work"
        with pytest.raises(SwitchboardError, match=said), cloud.exclusive(other, "switchboard down"):
            pass
        holder.kill()
        holder.wait()
        with cloud.exclusive(other, "switchboard down"):
            pass  # a lock doesn't outlive its holder


def program(layout: SiteLayout, name: str, argv: tuple[str, ...] = SLEEP) -> Program:
    return Program(name, argv, {}, layout.directory, layout.logs / f"{name}.log", layout.run / f"{name}.json")


async def test_one_that_ends_while_it_is_waited_for_is_named_with_its_log(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    layout.directory.mkdir(parents=True)
    failing = program(layout, "proxy", (sys.executable, "-S", "-c", "raise SystemExit('no such envoy')"))
    processes.start(failing)

    async def never() -> bool:
        return False

    with pytest.raises(SwitchboardError, match=r"(?s)site s: proxy ended; .*no such envoy"):
        async with asyncio.timeout(120):
            await site.wait_until(never, layout, [failing])


def test_what_the_stack_file_no_longer_has_goes_down_by_its_records(tmp_path: Path) -> None:
    layout = layout_at(tmp_path)
    names = ["node-gone", "proxy", "proxy-envoy", *controlplane.NAMES]
    layout.directory.mkdir(parents=True)
    records = [processes.start(program(layout, name)) for name in names]
    (layout.run / "proxy.ready").touch()
    assert teardown.recorded_nodes(layout.directory) == {"gone"}
    with quiet().step("stop") as step:
        teardown.down(layout.directory, "no-such-stack", step)
    assert not any(processes.alive(record) for record in records)
    assert list(layout.run.iterdir()) == []
