"""Taking an embedded site down so that nothing of it stays but its data: no process, no mount, no control group.

Pods stop first, gracefully, while what they talk to still runs; then the Service proxy with its Envoy, then the
control plane from the scheduler down to etcd. It works from the records and folders of the site, so that a site or
node that is no longer in the stack file goes down as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.local import controlplane, leftovers, processes, runtime, supervisor
from infra.local.processes import Record
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from switchboard.progress import Step

AGENT_GRACE_S = 10.0
STOP_PODS_TIMEOUT_S = 40.0
CONTROL_PLANE_GRACE_S = 20.0


def down(directory: Path, stack: str, step: Step, known_nodes: Iterable[str] = ()) -> None:
    """Stop the site whose state is in `directory`; `known_nodes` are those that the stack file has.

    Raises:
        SwitchboardError: something is left that would not go; names it.
    """
    site = directory.name
    known = set(known_nodes)
    nodes = sorted(recorded_nodes(directory))
    processes.stop(_record(directory, supervisor.NAME))  # first: it would start again what ends
    (directory / "supervised.json").unlink(missing_ok=True)
    step.detail("pods and node agents")
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda name: stop_node(directory, name, stop_pods=name in known), nodes))
    step.detail("Service proxy")
    stop_proxy(directory)
    step.detail("control plane")
    for name in reversed(controlplane.NAMES):
        processes.stop(_record(directory, name), grace_s=CONTROL_PLANE_GRACE_S)
    if left := leftovers.remove(directory, stack, site):
        raise SwitchboardError(
            f"site {site}: left behind: {'; '.join(left)}",
            "end it by hand (as the user who started it), then run this again",
        )


def recorded_nodes(directory: Path) -> set[str]:
    """Nodes whose agent was started and not taken down since."""
    return {path.stem.removeprefix("node-") for path in (directory / "run").glob("node-*.json")}


def stop_node(directory: Path, name: str, *, stop_pods: bool = False) -> None:
    """Stop a node's agent, then its pods: gracefully by the agent's own `--stop-pods`, else by ending them."""
    path = _record(directory, f"node-{name}")
    record = processes.read(path)
    if record is not None and processes.alive(record):
        processes.end(record.pid, record.started_ticks, grace_s=AGENT_GRACE_S)
    if record is not None and stop_pods and _may_have_pods(directory / "nodes" / name):
        _stop_pods(record, directory / "nodes" / name / "agent.log")
    for folder in leftovers.runtimes_of(directory / "nodes" / name):
        asyncio.run(runtime.cleanup(folder))  # those that didn't go gracefully
    for point in leftovers.mounts_below(directory / "nodes" / name):  # their volumes in memory
        leftovers.detach(point)
    path.unlink(missing_ok=True)  # last: whoever is cut off before finds the node again
    path.with_suffix(".ready").unlink(missing_ok=True)


def _may_have_pods(node: Path) -> bool:
    return any(path.is_dir() and any(path.iterdir()) for path in (node / "runtime", node / "pods"))


def _stop_pods(agent: Record, log: Path) -> None:
    """The agent's command with `--stop-pods`, in the environment that its stack needs."""
    environment = dict(os.environ)
    # ".../<stack>/sites/<site>/nodes/<node>/agent.log" → the folder of all stacks' state
    environment["SWITCHBOARD_STATE"] = str(log.parents[5])
    with log.open("ab") as output, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*agent.argv, "--stop-pods"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=environment,
            timeout=STOP_PODS_TIMEOUT_S,
            check=False,
        )


def stop_proxy(directory: Path) -> None:
    """The Service proxy; and its Envoy, which is a process with a record of its own and may have outlived it."""
    first = _record(directory, "proxy")
    processes.stop(first)  # before its Envoy, which it would start again
    first.with_suffix(".ready").unlink(missing_ok=True)
    for path in (directory / "run").glob("proxy-*.json"):
        processes.stop(path)


def _record(directory: Path, name: str) -> Path:
    return directory / "run" / f"{name}.json"
