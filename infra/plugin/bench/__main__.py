"""`python -m infra.plugin.bench`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.plugin.await_.waiting import wait_gone
from infra.plugin.bench import objects
from infra.plugin.bench.cluster import control_plane
from infra.plugin.bench.project import Project
from switchboard.errors import SwitchboardError
from switchboard.kube import NAMESPACES, Credentials, Kube, Object
from switchboard.progress import Progress

PHASES = ("create", "no-op", "update")
SIDES = ("raw", "engine", "plugin", "engine-", "plugin-")
Times = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Load:
    """How many objects, how many at once, how often, and whom to compare."""

    count: int
    at_once: int
    rounds: int
    sides: tuple[str, ...]


def at_once_by_default() -> int:
    """How many resources Pulumi does at once unless told otherwise."""
    return (os.cpu_count() or 1) * 4


def measure(kubeconfig: Path, load: Load, progress: Progress) -> Times:
    """The wall times of all rounds; within a round each phase is measured on every side before the next one."""
    times: Times = {}
    for round_ in range(1, load.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as folder:
            run = {side: _runner(side, kubeconfig, load, Path(folder), round_) for side in load.sides}
            for phase in PHASES:
                # Who goes first changes, so that what one leaves in the server's caches is no one's advantage.
                for side in load.sides if round_ % 2 else reversed(load.sides):
                    with progress.step(f"round {round_}: {phase}, {side}"):
                        times.setdefault((phase, side), []).append(run[side](phase))
            for side in load.sides:
                with progress.step(f"round {round_}: remove, {side}"):
                    run[side]("remove")
    return times


def _runner(side: str, kubeconfig: Path, load: Load, folder: Path, round_: int) -> Callable[[str], float]:
    """What does a phase of one side, and says how long it took (seconds)."""
    namespace = f"{side.replace('-', '-fast')}-{os.getpid()}-{round_}"
    project = None
    if side != "raw":
        project = Project(folder / side, echo=side.startswith("engine"), checkpoints=not side.endswith("-"))

    def run(phase: str) -> float:
        if phase == "remove":
            asyncio.run(_remove(kubeconfig, namespace))
            return 0.0
        if phase == "create":
            asyncio.run(_make_namespace(kubeconfig, namespace))
        made = objects.make_all(load.count, namespace, 2 if phase == "update" else 1)
        if project is None:
            return asyncio.run(_raw(kubeconfig, made, load.at_once))
        project.want(kubeconfig, made)
        return project.up("--parallel", str(load.at_once))

    return run


async def _raw(kubeconfig: Path, made: list[Object], at_once: int) -> float:
    async with Kube(Credentials.from_kubeconfig(kubeconfig), timeout_s=60) as kube:
        return await objects.apply_all(kube, made, at_once)


async def _make_namespace(kubeconfig: Path, namespace: str) -> None:
    async with Kube(Credentials.from_kubeconfig(kubeconfig)) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})


async def _remove(kubeconfig: Path, namespace: str) -> None:
    async with Kube(Credentials.from_kubeconfig(kubeconfig)) as kube:
        await kube.delete(NAMESPACES, namespace)
        live = await kube.get_or_none(NAMESPACES, namespace)
        if live is not None:
            await wait_gone(kube, NAMESPACES, live, timeout_s=600, cancelled=asyncio.Event(), report=_silent)


async def _silent(_: str) -> None:
    """Nobody sits in front of it."""


def report(times: Times, load: Load) -> str:
    """A table of medians in seconds, and what they come to in comparison with plain applies."""
    lines = [
        f"{load.count} objects, {load.at_once} at once, median of {load.rounds} round(s), seconds "
        "(-: with one write of the state file, at the end):",
        "         " + "".join(f"{side:>9}" for side in load.sides),
    ]
    for phase in PHASES:
        found = {side: statistics.median(times[phase, side]) for side in load.sides}
        line = f"{phase:<9}" + "".join(f"{found[side]:9.1f}" for side in load.sides)
        if {"raw", "plugin"} <= set(found):
            line += f"   plugin = {found['plugin'] / found['raw']:.1f} x raw"
        if {"engine-", "plugin-"} <= set(found):
            own = found["plugin-"] - found["engine-"]
            line += f"; with its requests the plugin takes {own / load.count * 1000:.1f} ms an object"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.plugin.bench", description=__doc__)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=at_once_by_default(), help="Pulumi's default")
    parser.add_argument(
        "--sides",
        type=lambda text: tuple(text.split(",")),
        default=SIDES,
        help=f"of {','.join(SIDES)} (-: Pulumi with one write of its state file, at the end)",
    )
    parser.add_argument("--kubeconfig", type=Path, help="a cluster to use instead of one of its own")
    args = parser.parse_args()
    if unknown := set(args.sides) - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    load = Load(args.objects, args.parallel, args.rounds, args.sides)
    # Ended by TERM, too, it takes its control plane along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress()
    try:
        if args.kubeconfig:
            times = measure(args.kubeconfig, load, progress)
        else:
            with control_plane(progress) as kubeconfig:
                times = measure(kubeconfig, load, progress)
    except SwitchboardError as error:
        sys.exit(str(error))
    print(report(times, load))


if __name__ == "__main__":
    main()
