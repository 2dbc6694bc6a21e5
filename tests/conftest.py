"""What all tests share: a real control plane, started once a session and only where a test asks for it.

    async def test_it(control_plane: ControlPlane) -> None:
        async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube: ...

It is a site of its own stack with its own loopback ranges and state folder, without node agents and Service proxy.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from infra import config
from infra.local.layout import API_PORT, SiteLayout
from switchboard import paths
from switchboard.paths import ROOT
from switchboard.progress import Progress
from tests.fixtures_mlflow import guarded, mlflow_process, mlflow_server
from tests.lifeline import DONE

__all__ = ["guarded", "mlflow_process", "mlflow_server"]

# A job in the background of a script is born deaf to Ctrl-C, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example's 200 ms are a wall clock tighter than a busy machine's; a test that hangs has pytest's timeout.
hypothesis.settings.register_profile("switchboard", deadline=None)
hypothesis.settings.load_profile("switchboard")

FIRST, LAST = 150, 249
"""127.150-127.249 are the tests' own; each session takes one for its network and Services each."""


FIRST_MODULES = ("test_cloud.py", "operators/live/test_faults.py", "models/test_gate.py", "operators/live/")
"""What takes minutes, or waits for most of its time: begun late, one worker would be at it when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first, in that order; the rest in whatever order there is."""
    here = str(Path(__file__).parent)

    def rank(item: pytest.Item) -> int:
        name = str(item.path).removeprefix(f"{here}/")
        return next((at for at, one in enumerate(FIRST_MODULES) if name.startswith(one)), len(FIRST_MODULES))

    items.sort(key=rank)


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane of a test stack with one public site (and a private one that isn't started)."""

    stack: str
    layout: SiteLayout
    env: Mapping[str, str] = field(default_factory=dict)
    """For child processes that load the stack themselves (`--stack`, `infra.config.load`)."""

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig


_reserved: list[socket.socket] = []


def free_networks(count: int) -> list[str]:
    """Loopback /16 networks that nobody uses, reserved for this process until it ends.

    A bound socket is the reservation: the kernel lets it go with the process, however that ends.
    """
    span = LAST - FIRST + 1
    found: list[str] = []
    for offset in range(span):
        network = f"127.{FIRST + (os.getpid() * 4 + offset) % span}"
        if not reserve(f"{network}.255.254"):
            continue
        with socket.socket() as probe:  # a control plane that was left when a test run was killed
            if probe.connect_ex((f"{network}.0.1", API_PORT)) != 0:
                found.append(f"{network}.0.0/16")
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free networks in 127.{FIRST}-127.{LAST}")


def free_subnets(network: str) -> Iterator[str]:
    """The first three numbers of /24 networks in the /16 `network` (its first two), reserved in the same way."""
    for third in range(256):
        if reserve(f"{network}.{third}.254"):
            yield f"{network}.{third}"
    raise RuntimeError(f"no free /24 in {network}.0.0/16")


def reserve(address: str) -> bool:
    """Whether the address was nobody's and is this process's now, until it ends."""
    guard = socket.socket()
    try:
        guard.bind((address, API_PORT))
    except OSError:
        guard.close()
        return False
    _reserved.append(guard)
    return True


@functools.cache
def shared_networks() -> list[str]:
    """Four for all tests that leave nothing running at their addresses: there are not so many to have."""
    return free_networks(4)


@pytest.fixture(scope="session", autouse=True)
def lifeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever ends this process: no cloud that a test brought up outlives it."""
    command = [sys.executable, "-m", "tests.lifeline", str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        yield
        watcher.communicate(DONE)


def write_stack(root: Path, stack: str, networks: list[str] | None = None) -> dict[str, str]:
    """A stack of its own below `root`: the environment in which it is found and keeps its state there.

    `networks` are four that its caller has reserved already.
    """
    file = root / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(stack_document(networks or free_networks(4))))
    return {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}


def stack_document(networks: list[str]) -> dict[str, Any]:
    """A stack file's document: two small embedded sites on four networks."""
    return {
        "config": {
            "switchboard:sites": [
                {
                    "name": "private",
                    "role": "private",
                    "region": "cn-shanghai",
                    "embedded": {
                        "network": networks[0],
                        "services": networks[1],
                        "nodes": [{"name": "private-1", "zone": "cn-shanghai-a"}],
                    },
                },
                {
                    "name": "public",
                    "role": "public",
                    "region": "cn-shenzhen",
                    "embedded": {
                        "network": networks[2],
                        "services": networks[3],
                        "nodes": [
                            {"name": "public-1", "zone": "cn-shenzhen-a"},
                            {"name": "public-2", "zone": "cn-shenzhen-b"},
                            {"name": "edge-1", "tier": "edge", "region": "cn-beijing"},
                        ],
                    },
                    "edges": [{"region": "cn-beijing"}],
                },
            ],
            "switchboard:images": {
                "switchboard": "switchboard.dev/switchboard:0.1.0",
                "envoy": "envoyproxy/envoy:v1.40.0",
                "prometheus": "prom/prometheus:v3.13.0",
                "alertmanager": "prom/alertmanager:v0.25.0",
            },
            "switchboard:modelServers": [
                {"name": "chat", "model": "chat-intent", "dataRegions": ["cn-shenzhen", "cn-beijing"]}
            ],
        }
    }


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop and a thread of its own, so that it works in and out of the tests' loop."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane (etcd, API server, controllers, scheduler), stopped at the session's end."""
    from infra.local import cloud, site, teardown

    root = tmp_path_factory.mktemp("control-plane")
    stack = f"test{os.getpid()}"
    env = write_stack(root, stack)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        layout = SiteLayout(config.load(stack).site("public"), paths.state_dir(stack))
        embedded = site.EmbeddedSite(stack, layout)
        work = site.up(embedded, cloud.tools(), Progress(io.StringIO()), nodes=False, proxy=False)
        try:
            run_apart(work)
            patch.undo()
            yield ControlPlane(stack, layout, env)
        finally:
            with Progress(io.StringIO()).step("stop") as step:
                teardown.down(layout.directory, stack, step)
