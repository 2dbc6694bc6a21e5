"""What deciding costs: `python -m operators.scaling.bench [--servers 2000] [--ticks 220]`.

All servers have a full history and bursty traffic, and are asked every 2 s, as the operator asks them. Figures are
processor time of this process, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import resource
import time
from array import array
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from operators.scaling import Capacity, Observation, State, begin, decide
from operators.scaling.history import BUCKET_S, History
from switchboard.api.scaling import Scaling

TICK_S = 2.0
START = 1_800_000_000.0


@dataclass
class Figures:
    """Seconds of processor time, each tick's sum and each decision's; bytes of all servers."""

    ticks_s: array[float]
    ordinary_s: array[float]
    full_s: array[float]
    histories_s: float
    memory: int


def run(servers: int, ticks: int) -> Figures:
    """Every server's decisions for so many ticks."""
    random = np.random.default_rng(1)
    scaling = Scaling(max_replicas=60)
    keep_s, level_s = scaling.headroom.history_seconds, scaling.headroom.level_seconds
    capacity = Capacity(rps=40, concurrency=4, start_s=420)
    past = 200 * random.gamma(15, 1 / 15, size=(servers, keep_s // BUCKET_S))
    rates = 200 * random.gamma(15, 1 / 15, size=(servers, ticks))
    falling = np.linspace(2, 1, ticks)  # the most to be remembered: each need is the highest since
    before, started = _resident(), time.process_time()
    states: list[State] = [
        begin(START, History.of(past[number], level_s=level_s, keep_s=keep_s), key=f"server-{number}")
        for number in range(servers)
    ]
    figures = Figures(array("d"), array("d"), array("d"), time.process_time() - started, 0)
    seen = Observation(current=12, ready=12, rate=0.0)
    for tick in range(ticks):
        now = START + TICK_S * (tick + 1)
        at_start = time.process_time()
        for number, state in enumerate(states):
            rate = float(rates[number, tick] if number % 2 else 1000 * falling[tick])
            looks = replace(seen, rate=rate, in_service=rate / 10, queued=0.0, latest_rate=rate)
            begun = time.process_time()
            _, states[number] = decide(scaling, capacity, looks, state, now)
            full = states[number].history is not state.history
            (figures.full_s if full else figures.ordinary_s).append(time.process_time() - begun)
        figures.ticks_s.append(time.process_time() - at_start)
    figures.memory = _resident() - before
    return figures


def _resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--servers", type=int, default=2000)
    parser.add_argument("--ticks", type=int, default=220, help="of 2 s")
    asked = parser.parse_args()
    found = run(asked.servers, asked.ticks)
    ordinary, full = (np.asarray(one) * 1e6 for one in (found.ordinary_s, found.full_s))
    ticks = np.asarray(found.ticks_s)
    print(f"{asked.servers} servers, {asked.ticks} ticks; processor time")
    print(f"a decision:              {np.median(ordinary):6.0f} us (p99 {np.quantile(ordinary, 0.99):.0f})")
    print(f"with a full bucket:      {np.median(full):6.0f} us (p99 {np.quantile(full, 0.99):.0f})")
    print(f"a tick of all servers:   {np.median(ticks) * 1e3:6.0f} ms (worst {ticks.max() * 1e3:.0f})")
    print(f"a history from outside:  {found.histories_s / asked.servers * 1e6:6.0f} us")
    print(f"memory:                  {found.memory / asked.servers / 1e3:6.1f} kB a server")


if __name__ == "__main__":
    main()
