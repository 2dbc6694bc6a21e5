"""`python -m infra.local.trials NAME`: what the embedded cloud survives, tried at full length on a stack of its own.

    api-server   its API server is gone for 5 min: pods go on, crash, restart, and nothing is ended when it is back
    agent        every node's agent is killed, three times over: the pods keep their processes
    etcd         etcd is killed and started again, three times over: no object is lost
    site         the site goes down and comes up: same volume, same data, same identity, same address
    restart      the machine goes down at many moments of `up`: the next `up` succeeds, with the same data
    all          one after the other

Each prints what it sees and a verdict at the end (exit code 1 where something didn't hold). The stack (`trials_stack`)
is a site with two nodes, in a temporary folder that goes with the trial; nothing else is touched.
`tests/infra/local/survival` holds the same promises with shorter times.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.local import cloud, controlplane, leftovers, processes, supervisor
from infra.local.runtime.record import Folder
from infra.local.trials_stack import NODES_NAMED, SITE, STACK, Trial, is_ready, running, sleeping_pod
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.kube import NODES, PODS, Object
from switchboard.progress import Progress

GONE_S = 300.0


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
        trial.create(PODS, sleeping_pod(name))
        trial.until(lambda name=name: is_ready(trial.pods().get(name, {})), "a new pod runs")  # type: ignore[misc]
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
