"""CPU times from /proc, and what they come to over a window; figures as the reports carry them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from infra.local.runtime import Limits, cgroups
from switchboard.errors import SwitchboardError


class Cost(BaseModel):
    """CPU in percent of one core over a window, for one kind of probe.

    `rest` is everything beside the agent's own process: shims, what they start for probes, the containers themselves.
    `programs` is the part of it that the probes' own program takes when it is started by hand; `total` leaves it out.
    """

    probe: str
    pods: int
    window_s: float
    probes_per_s: float
    agent: float
    rest: float
    programs: float
    agent_mib: float
    ready_after_s: float
    """From the first pod's binding to the last one's readiness, all bound at once."""
    agent_ms_a_start: float
    """CPU of the agent's own process for one pod, from its binding to its readiness."""

    @property
    def total(self) -> float:
        return self.agent + self.rest - self.programs


class Start(BaseModel):
    """Seconds from binding to Ready, less the program's own start, of pods started one after the other."""

    program: str
    count: int
    own_s: float
    p50_s: float
    p95_s: float
    most_s: float


class Report(BaseModel):
    """One run."""

    costs: list[Cost]
    starts: list[Start]


class Meter:
    """The CPU of an agent and of all that it starts from now on, exact to the nanosecond: by a control group.

    (The ticks in /proc are too coarse: a shim uses less than one in a minute.)
    """

    def __init__(self, agent: int) -> None:
        """Raises SwitchboardError where no control group can be made."""
        self.agent = agent
        self._group = cgroups.create(f"switchboard-bench-{os.getpid()}", Limits())
        if cgroups.stats(self._group) is None:
            raise SwitchboardError("no control groups for CPU and memory can be made here", "run it as root")
        for folder in self._group.folders:
            (folder / "cgroup.procs").write_text(str(agent))

    def read(self) -> tuple[float, float]:
        """CPU seconds so far of the agent's own process, and of everything."""
        stats = cgroups.stats(self._group)
        assert stats is not None  # noqa: S101
        threads = Path(f"/proc/{self.agent}/task").glob("*/schedstat")
        own_ns = sum(int(thread.read_text().split()[0]) for thread in threads)
        return own_ns / 1e9, stats.cpu_seconds

    def close(self) -> None:
        """To be called when the agent has gone."""
        cgroups.remove(self._group)


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def program_cpu_s(argv: Sequence[str], times: int = 200) -> float:
    """CPU seconds of a program started by hand, the mean of many runs."""
    before = os.times()
    for _ in range(times):
        os.waitpid(os.posix_spawnp(argv[0], list(argv), os.environ), 0)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used / times


def starts(program: str, own_s: float, seconds: Sequence[float]) -> Start:
    """The report of starts that took so long, the program's own time included."""
    beyond = sorted(max(0.0, took - own_s) for took in seconds)
    cuts = statistics.quantiles(beyond, n=20, method="inclusive")
    return Start(
        program=program, count=len(beyond), own_s=own_s, p50_s=cuts[9], p95_s=cuts[18], most_s=beyond[-1]
    )


def table(report: Report) -> str:
    """For people."""
    lines = []
    if report.costs:
        lines += [
            "CPU in percent of one core (total: without the probes' own programs)",
            f"{'probe':<6}{'pods':>6}{'asks/s':>8}{'agent':>8}{'rest':>8}{'programs':>10}{'total':>8}"
            f"{'agent MiB':>11}{'all ready':>11}{'ms/start':>10}",
        ]
        lines += [
            f"{c.probe:<6}{c.pods:>6}{c.probes_per_s:>8.1f}{c.agent:>8.2f}{c.rest:>8.2f}"
            f"{c.programs:>10.2f}{c.total:>8.2f}{c.agent_mib:>11.0f}{c.ready_after_s:>9.1f} s"
            f"{c.agent_ms_a_start:>10.1f}"
            for c in report.costs
        ]
    if report.starts:
        lines += [
            "",
            "Seconds from binding to Ready beyond the program's own start",
            f"{'program':<8}{'count':>6}{'own':>8}{'p50':>8}{'p95':>8}{'most':>8}",
        ]
        lines += [
            f"{s.program:<8}{s.count:>6}{s.own_s:>8.3f}{s.p50_s:>8.3f}{s.p95_s:>8.3f}{s.most_s:>8.3f}"
            for s in report.starts
        ]
    return "\n".join(lines)


def now() -> float:
    return time.monotonic()
