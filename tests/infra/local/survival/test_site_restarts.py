"""A whole site: down and up again, the machine going down in the middle of an `up`, its processes dying one by one.

One small site (a node, a Service proxy) with a StatefulSet, its volume and its Service; each test leaves it up.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local import cloud, health, leftovers, processes, supervisor, trials
from infra.local.layout import SiteLayout
from infra.local.processes import Record
from switchboard import paths
from switchboard.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Credentials,
    Kube,
    Object,
)
from switchboard.progress import Progress
from tests.conftest import free_networks, run_apart, shared_networks, stack_document

STACK = f"restarts{os.getpid()}"
SITE = "private"
NODE = "private-1"
PATIENCE_S = 240.0

SERVER = """
import http.server, os, signal
with open("/data/log", "a") as log:
    log.write(os.environ["HOSTNAME"] + "\\n")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.chdir("/data")
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8181), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def objects() -> list[tuple[Any, Object]]:
    labels = {"app": "db"}
    container = {
        "name": "main",
        "image": "switchboard.dev/switchboard:0.1.0",
        "command": ["python", "-S", "-c", SERVER],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"path": "/log", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    service = {"selector": labels, "ports": [{"port": 8181}]}
    stateful = {
        "serviceName": "db",
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]},
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    return [
        (SERVICES, {"metadata": {"name": "db", "namespace": "default"}, "spec": service}),
        (STATEFUL_SETS, {"metadata": {"name": "db", "namespace": "default"}, "spec": stateful}),
    ]


def until(condition: Callable[[], bool], what: str, every_s: float = 0.3) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(every_s)


def quiet() -> Progress:
    return Progress(io.StringIO())


class Running:
    """The site as its user sees it: what the API server says and what the Service answers."""

    def __init__(self) -> None:
        self.layout = cloud.layouts(STACK)[0]

    def ask(self, *what: tuple[Any, str]) -> list[Object]:
        async def work() -> list[Object]:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                return [
                    await kube.get(kind, name, "default" if kind.namespaced else None) for kind, name in what
                ]

        return list(run_apart(work()))

    def answer(self) -> list[str]:
        """The lines of the file on the volume, by the Service; empty while there is no answer."""
        (service,) = self.ask((SERVICES, "db"))
        url = f"http://{service['spec']['clusterIP']}:8181/log"
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return str(response.read().decode()).splitlines()
        except OSError:
            return []

    def identity(self) -> tuple[str, str, str, str]:
        """Uids of pod and claim, the volume's name, the pod's address."""
        pod, claim = self.ask((PODS, "db-0"), (PERSISTENT_VOLUME_CLAIMS, "data-db-0"))
        return (
            pod["metadata"]["uid"],
            claim["metadata"]["uid"],
            claim["spec"]["volumeName"],
            pod["status"]["podIP"],
        )

    def container(self) -> str:
        """Which run of the pod's container it is."""
        return str(self.ask((PODS, "db-0"))[0]["status"]["containerStatuses"][0]["containerID"])

    def healthy(self) -> bool:
        return cloud.status(STACK)[0].healthy

    def record(self, name: str) -> Record:
        found = processes.read(self.layout.run / f"{name}.json")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A stack of one small private site beside whatever else runs."""
    root = tmp_path_factory.mktemp("restarts")
    file = root / f"Pulumi.{STACK}.yaml"
    file.write_text(yaml.safe_dump(stack_document([*free_networks(2), *shared_networks()[2:]])))
    env = {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env
        cloud.clean(STACK, quiet())


@pytest.fixture(scope="module")
def running(environment: dict[str, str]) -> Running:
    cloud.up(STACK, quiet(), sites=[SITE])
    found = Running()

    async def create() -> None:
        async with Kube(Credentials.from_kubeconfig(found.layout.kubeconfig)) as kube:
            for kind, body in objects():
                await kube.create(kind, body)

    run_apart(create())
    until(lambda: found.answer() == ["db-0"], "the Service answers")
    return found


def half_written(layout: SiteLayout) -> None:
    """What a power cut may leave of files that were being written."""
    for path in (layout.run / "etcd.json", layout.directory / "ranges.json", layout.pki / "scheduler.crt"):
        path.write_text("")
    (layout.pki / f".apiserver.key.{os.getpid()}").write_text("half")


def reused_pid(layout: SiteLayout) -> None:
    """The next boot gave the API server's pid to somebody else."""
    path = layout.run / "kube-apiserver.json"
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps(record | {"pid": os.getpid(), "started_ticks": processes.started_ticks(os.getpid())})
    )


def nothing(_: SiteLayout) -> None:
    """What a crash leaves by itself."""


MOMENTS: list[tuple[str, Callable[[SiteLayout], None]]] = [
    ("run/etcd.json", half_written),
    ("run/kube-apiserver.json", reused_pid),
    (f"run/node-{NODE}.ready", nothing),
]
"""When the machine goes down: as soon as that file is there; and what else it leaves."""


def is_at(path: Path, up: subprocess.Popen[bytes]) -> bool:
    """Is a running `up` as far as that?"""
    ended = up.poll() is not None  # asked before: it may end as soon as the file is there
    assert path.exists() or not ended, f"it was to be cut off when {path.name} is there"
    return path.exists()


def test_down_then_a_machine_that_goes_down_in_mid_up_then_up(
    running: Running, environment: dict[str, str]
) -> None:
    before, lines = running.identity(), len(running.answer())
    command = [
        sys.executable,
        "-c",
        "import sys; from tests.infra.local.survival import test_site_restarts as t;",
    ]
    command[-1] += "t.cloud.up(sys.argv[1], t.quiet(), sites=[t.SITE])"
    cloud.down(STACK, quiet())
    assert leftovers.find(paths.state_dir(STACK), STACK) == []
    for name, more in MOMENTS:
        path = running.layout.directory / name
        path.unlink(missing_ok=True)
        with subprocess.Popen([*command, STACK], cwd=paths.ROOT, env={**os.environ, **environment}) as up:
            until(functools.partial(is_at, path, up), name, every_s=0.005)
            up.kill()
            up.wait()
            trials.go_down(running.layout.directory)
        more(running.layout)
    cloud.up(STACK, quiet(), sites=[SITE])
    until(lambda: len(running.answer()) > lines, "the Service answers again")
    assert running.identity() == before, "the same pod, claim, volume and address"
    assert running.healthy()


def test_what_dies_between_two_ups_is_started_again(running: Running) -> None:
    container = running.container()
    names = ("etcd", "kube-apiserver", "proxy", f"node-{NODE}")
    dead = {name: running.record(name) for name in names}
    for record in dead.values():
        os.kill(record.pid, signal.SIGKILL)
    until(lambda: not any(processes.alive(record) for record in dead.values()), "they are dead")
    until(lambda: all(processes.alive(running.record(name)) for name in names), "they live again")
    until(running.healthy, "the site is healthy again")
    assert running.container() == container, "the pod didn't notice"
    until(lambda: running.answer() != [], "the Service answers")

    again = {name: running.record(name) for name in names}
    own, scheduler = running.record(supervisor.NAME), running.record("kube-scheduler")
    os.kill(own.pid, signal.SIGKILL)
    os.kill(scheduler.pid, signal.SIGSTOP)
    until(lambda: not processes.alive(own), "the supervisor is dead")
    until(lambda: processes.is_stopped(scheduler), "the scheduler is stopped")
    found = {part.name: part for part in asyncio.run(health.look(running.layout)).components}
    assert (found[supervisor.NAME].healthy, found[supervisor.NAME].note) == (False, "not running")
    assert "stopped by a signal" in found["kube-scheduler"].note and not found["kube-scheduler"].healthy
    cloud.up(STACK, quiet(), sites=[SITE])
    until(running.healthy, "`up` mends the rest")
    assert {name: running.record(name) for name in names} == again, (
        "what the supervisor started is as `up` would"
    )
    assert running.record("kube-scheduler") == scheduler
