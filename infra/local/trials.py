"""`python -m infra.local.trials NAME`: what the embedded cloud survives, tried at full length on a stack of its own.

    api-server   its API server is gone for 5 min: pods go on, crash, restart, and nothing is ended when it is back
    agent        every node's agent is killed, three times over: the pods keep their processes
    etcd         etcd is killed and started again, three times over: no object is lost
    site         the site goes down and comes up: same volume, same data, same identity, same address
    restart      the machine goes down at many moments of `up`: the next `up` succeeds, with the same data
    all          one after the other

Each prints what it sees and a verdict at the end (exit code 1 where something didn't hold). The stack is a site with
two nodes on loopback ranges of their own, in a temporary folder that goes with the trial; nothing else is touched.
`tests/infra/local/survival` holds the same promises with shorter times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.local import cloud, controlplane, leftovers, processes, supervisor
from infra.local.layout import SiteLayout
from infra.local.runtime.record import Folder
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.kube import (
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
    ApiError,
    Credentials,
    Kube,
    Object,
    Unreachable,
)
from switchboard.progress import Progress

STACK = "trials"
SITE = "private"
NODES_NAMED = ("node-1", "node-2")
GONE_S = 300.0
PATIENCE_S = 180.0
_NETWORKS = range(200, 240)
_NAMESPACE = "default"
_COUNTING = "trap 'exit 0' TERM; echo $HOSTNAME >> /data/log; while :; do sleep 0.2; done"


@dataclass
class Trial:
    """A running stack, and what was found out about it."""

    layout: SiteLayout
    progress: Progress
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        """Note whether a promise holds."""
        self.progress.note(f"  {'✓' if holds else '✗'} {what}")
        if not holds:
            self.failures.append(what)

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > patience_s:
                self.check(False, f"{what} (not within {patience_s:.0f} s)")
                return
            time.sleep(0.5)
        self.check(True, f"{what} ({time.monotonic() - began:.1f} s)")

    def list(self, kind: Any, namespace: str | None = _NAMESPACE) -> list[Object]:
        """Objects of a kind; none while the API server doesn't answer."""

        async def work() -> list[Object]:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                return await kube.list(kind, namespace)

        try:
            return asyncio.run(work())
        except (ApiError, Unreachable):
            return []

    def create(self, kind: Any, body: Object) -> None:
        async def work() -> None:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                await kube.create(kind, body, _NAMESPACE)

        asyncio.run(work())

    def delete(self, pod: str) -> None:
        async def work() -> None:
            async with Kube(Credentials.from_kubeconfig(self.layout.kubeconfig)) as kube:
                await kube.delete(PODS, pod, _NAMESPACE)

        asyncio.run(work())
        self.until(lambda: pod not in self.pods(), f"pod {pod} is deleted")

    def pods(self) -> dict[str, Object]:
        return {pod["metadata"]["name"]: pod for pod in self.list(PODS)}

    def ready(self) -> bool:
        """All pods and nodes ready, and as many as there have to be?"""
        pods, nodes = self.list(PODS), self.list(NODES, None)
        return len(pods) == _PODS and len(nodes) == 2 and all(_is_ready(found) for found in (*pods, *nodes))

    def pids(self) -> dict[str, int]:
        """The first process of each running container, by pod uid."""
        found = {}
        for folder in _containers(self.layout):
            state = folder.state()
            if state.phase == "running" and state.pid is not None and folder.shim_lives():
                found[folder.id.split("_")[0]] = state.pid
        return found

    def kill(self, name: str) -> None:
        record = processes.read(self.layout.run / f"{name}.json")
        if record is not None:
            processes.end(record.pid, record.started_ticks, first=signal.SIGKILL)

    def runs(self, name: str) -> bool:
        record = processes.read(self.layout.run / f"{name}.json")
        return record is not None and processes.alive(record)

    def lines(self) -> int:
        """How often the StatefulSet's pod began, as it wrote to its volume."""
        logs = [log.read_text() for node in self.layout.nodes for log in node.volumes_dir.glob("*/log")]
        return sum(text.count("db-0\n") for text in logs)

    def identity(self) -> tuple[str, ...]:
        """Of the StatefulSet's pod and its claim: uids, volume, address."""
        pod = self.pods().get("db-0", {"metadata": {"uid": "none"}, "status": {}})
        (claim,) = self.list(PERSISTENT_VOLUME_CLAIMS)
        return (
            pod["metadata"]["uid"],
            claim["metadata"]["uid"],
            claim["spec"]["volumeName"],
            pod["status"].get("podIP", ""),
        )


def _is_ready(obj: Object) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _containers(layout: SiteLayout) -> list[Folder]:
    return [
        Folder(path)
        for runtime in leftovers.runtimes_of(layout.directory)
        for path in sorted(runtime.iterdir())
    ]


def _restarts(pods: dict[str, Object]) -> dict[str, int]:
    """By the pods' uids."""
    return {
        pod["metadata"]["uid"]: sum(c["restartCount"] for c in pod["status"]["containerStatuses"])
        for pod in pods.values()
    }


# The trials


def api_server(trial: Trial, gone_s: float = GONE_S) -> None:
    before, pids = trial.pods(), trial.pids()
    trial.kill(supervisor.NAME)  # it would start it again in a second
    trial.kill(controlplane.API_SERVER)
    trial.progress.note(f"  the API server is gone for {gone_s:.0f} s")
    back_at = time.monotonic() + gone_s
    crashing = before["db-0"]["metadata"]["uid"]
    os.kill(pids[crashing], signal.SIGKILL)
    trial.until(
        lambda: trial.pids().get(crashing) not in (None, pids[crashing]), "a pod that crashes restarts"
    )
    while time.monotonic() < back_at:
        time.sleep(min(30.0, max(0.0, back_at - time.monotonic())))
        alive = sum(trial.pids().get(uid) == pid for uid, pid in pids.items() if uid != crashing)
        left_s = max(0.0, back_at - time.monotonic())
        trial.progress.note(f"  … {alive} of {len(pids) - 1} pods with their processes, {left_s:.0f} s left")
    for name in NODES_NAMED:
        trial.check(trial.runs(f"node-{name}"), f"the agent of {name} is the same")
    cloud.up(STACK, trial.progress, sites=[SITE])
    trial.until(trial.ready, "pods and nodes are ready again")
    time.sleep(60)  # the controllers' back-offs and time-outs: whatever they order, they have ordered by then
    after = trial.pods()
    uids = {pod["metadata"]["uid"] for pod in after.values()}
    trial.check(uids == {pod["metadata"]["uid"] for pod in before.values()}, "no pod was ended or replaced")
    wanted = {uid: count + (uid == crashing) for uid, count in _restarts(before).items()}
    trial.check(_restarts(after) == wanted, "restarts are counted, that of the meantime too")
    same = {uid: pid for uid, pid in trial.pids().items() if uid != crashing}
    trial.check(same == {u: p for u, p in pids.items() if u != crashing}, "the others have their processes")
    taints = [taint for node in trial.list(NODES, None) for taint in node["spec"].get("taints") or []]
    trial.check(not taints, "no taint is left on a node")


def agent(trial: Trial) -> None:
    before, pids = trial.pods(), trial.pids()
    for _ in range(3):
        for name in NODES_NAMED:
            trial.kill(f"node-{name}")
        trial.until(lambda: all(trial.runs(f"node-{name}") for name in NODES_NAMED), "the agents are back")
        trial.until(trial.ready, "all is ready")
    trial.check(trial.pids() == pids, "the pods have the same processes")
    trial.check(_restarts(trial.pods()) == _restarts(before), "and as many restarts as before")


def etcd(trial: Trial) -> None:
    before = {pod["metadata"]["uid"] for pod in trial.pods().values()}
    server = processes.read(trial.layout.run / f"{controlplane.API_SERVER}.json")
    for number in range(3):
        trial.kill(controlplane.ETCD)
        trial.until(lambda: bool(trial.list(NODES, None)), "the API server answers again")
        name = f"after-{number}"
        trial.create(PODS, _pod(name))
        trial.until(lambda name=name: _is_ready(trial.pods().get(name, {})), "a new pod runs")  # type: ignore[misc]
        trial.delete(name)
    after = {pod["metadata"]["uid"] for pod in trial.pods().values()}
    trial.check(after == before, "no pod was lost")
    same = processes.read(trial.layout.run / f"{controlplane.API_SERVER}.json") == server
    trial.check(same, "the API server is the same process")


def site(trial: Trial) -> None:
    identity, lines = trial.identity(), trial.lines()
    cloud.down(STACK, trial.progress)
    left = leftovers.find(paths.state_dir(STACK), STACK)
    trial.check(not left, f"nothing is left{': ' + '; '.join(left) if left else ''}")
    cloud.up(STACK, trial.progress, sites=[SITE])
    trial.until(trial.ready, "all is ready again")
    trial.until(lambda: trial.lines() == lines + 1, "the same data, and one start more")
    trial.check(trial.identity() == identity, "the same pod, claim, volume and address")


def restart(trial: Trial, times: int = 12) -> None:
    identity, lines = trial.identity(), trial.lines()
    command = [sys.executable, "-m", "infra.local.trials", "--up-only"]
    dice = random.Random(times)  # noqa: S311 - the same moments each time
    cloud.down(STACK, trial.progress)
    for _ in range(times):
        after_s = dice.uniform(0.5, 14.0)
        with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.DEVNULL) as up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(after_s)
            trial.progress.note(f"  the machine goes down after {after_s:.1f} s of `up`")
            up.kill()
            up.wait()
            go_down(trial.layout.directory)
    cloud.up(STACK, trial.progress, sites=[SITE])
    trial.until(trial.ready, "all is ready again")
    trial.check(
        trial.lines() > lines and trial.identity() == identity, "the same pod, claim, volume and data"
    )


def go_down(directory: Path) -> None:
    """As a machine does: everything of a site ends at once, and what the files tell is of a boot that is over."""
    while True:
        folders = [Folder(p) for runtime in leftovers.runtimes_of(directory) for p in runtime.iterdir()]
        living = [folder.read_raw().get("shim") for folder in folders if folder.shim_lives()]
        pids = [*processes.marked(directory), *living]
        if not pids:
            break
        for pid in pids:
            if pid:  # a shim that has only begun tells its own soon
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for path in [*directory.glob("run/*.json"), *directory.glob("nodes/*/pods/*/record.json")]:
        path.write_text(path.read_text().replace(processes.boot_id(), "of-another-boot"))


TRIALS: dict[str, Callable[[Trial], None]] = {
    "agent": agent,
    "etcd": etcd,
    "site": site,
    "restart": restart,
    "api-server": api_server,
}


# Their stack

_PODS = 4
"""Of the Deployment 3, of the StatefulSet 1."""


def _pod(name: str) -> Object:
    container = {"name": "main", "image": "debian:bookworm", "command": ["sleep", "inf"]}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def _objects() -> list[tuple[Any, Object]]:
    idle = {"metadata": {"labels": {"app": "idle"}}, "spec": _pod("idle")["spec"]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    counting = {
        "name": "main",
        "image": "debian:bookworm",
        "command": ["sh", "-c", _COUNTING],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    db = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [counting], "terminationGracePeriodSeconds": 2},
    }
    return [
        (
            DEPLOYMENTS,
            {
                "metadata": {"name": "idle"},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "idle"}}, "template": idle},
            },
        ),
        (
            STATEFUL_SETS,
            {
                "metadata": {"name": "db"},
                "spec": {
                    "serviceName": "db",
                    "selector": {"matchLabels": {"app": "db"}},
                    "template": db,
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
                },
            },
        ),
    ]


def _free_networks(count: int) -> list[str]:
    """Loopback /16 networks in which nobody listens at the control plane's or a Service's place."""
    found = []
    for number in _NETWORKS:
        with socket.socket() as probe:
            if probe.connect_ex((f"127.{number}.0.1", 6443)) != 0:
                found.append(f"127.{number}.0.0/16")
        if len(found) == count:
            return found
    raise SwitchboardError(f"no {count} free loopback networks", "stop clouds that you don't need")


def _stack_document() -> Object:
    networks = _free_networks(4)
    sites = [
        {
            "name": name,
            "role": role,
            "region": "cn-shanghai",
            "embedded": {
                "network": network,
                "services": services,
                "nodes": [{"name": node, "zone": f"zone-{node}"} for node in NODES_NAMED],
            },
        }
        # A stack has a public site too; this one is never started.
        for (name, role), (network, services) in zip(
            ((SITE, "private"), ("public", "public")),
            zip(networks[::2], networks[1::2], strict=True),
            strict=True,
        )
    ]
    images = {
        "switchboard": "switchboard.dev/switchboard:0.1.0",
        "envoy": "envoyproxy/envoy:v1.40.0",
        "prometheus": "prom/prometheus:v3.13.0",
        "alertmanager": "prom/alertmanager:v0.25.0",
    }
    return {
        "config": {
            "switchboard:sites": sites,
            "switchboard:images": images,
            "switchboard:modelServers": [
                {"name": "chat", "model": "chat-intent", "dataRegions": ["cn-shanghai"]}
            ],
        }
    }


@contextlib.contextmanager
def running(progress: Progress) -> Iterator[Trial]:
    """The trials' stack, up and with pods; everything of it goes afterwards."""
    root = Path(tempfile.mkdtemp(prefix="switchboard-trials-"))
    file = root / f"Pulumi.{STACK}.yaml"
    file.write_text(yaml.safe_dump(_stack_document()))
    os.environ |= {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}
    try:
        cloud.up(STACK, progress, sites=[SITE])
        trial = Trial(cloud.layouts(STACK)[0], progress)
        for kind, body in _objects():
            trial.create(kind, body)
        trial.until(trial.ready, "pods and nodes are ready")
        yield trial
    finally:
        cloud.clean(STACK, progress)
        shutil.rmtree(root)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.trials", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("name", nargs="?", default="all", choices=[*TRIALS, "all"])
    parser.add_argument(
        "--up-only", action="store_true", help=argparse.SUPPRESS
    )  # for `restart`, to be killed
    given = parser.parse_args()
    progress = Progress(sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as at Ctrl-C: the stack is taken down first
    if given.up_only:
        cloud.up(STACK, progress, sites=[SITE])
        return 0
    try:
        with running(progress) as trial:
            for name in TRIALS if given.name == "all" else (given.name,):
                progress.note(f"\n{name}")
                TRIALS[name](trial)
    except SwitchboardError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{'did not hold: ' + '; '.join(trial.failures) if trial.failures else 'all of it held'}")
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main())
