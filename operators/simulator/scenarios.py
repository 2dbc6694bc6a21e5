"""The scenarios: traffic, faults, and the service under them. Everything follows from a scenario, a start time, a seed.

The service has replicas of 40 requests/s; traffic is between 100 and 500 requests/s unless a scenario says otherwise.
Start times are those of a small model on a warm node (5 s) to a large one on a node that must come first (420 s).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from operators.simulator import traffic
from operators.simulator.plant import Replica
from operators.simulator.rivals.base import Bounds
from operators.simulator.run import Faults, Run
from operators.simulator.traffic import GAMMA_SHAPE, Rates
from switchboard.api.scaling import MOST_REPLICAS
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

STARTS_S = (5, 60, 180, 420)
BASE, PEAK = 100.0, 500.0
STEP = "step"
UTILIZATION = 0.7
"""The share of a replica's capacity that the others aim at: Knative's default."""

TRACES = ROOT.parent / "shared" / "traces"
TRACE_MEAN = 200.0
DAY_S = 86_400
LONGEST_S = 14 * DAY_S
MOST_RPS = 1e6
"""A rate beyond it is taken for a mistake."""
FINE_S = 10.0
"""A trace with a rate at least so often is taken as it is, step by step; a coarser one by straight lines."""


@dataclass(frozen=True)
class TraceLike:
    """Parameters of `traffic.trace_like`, fitted to two weeks of a workload of `alibaba/ServeGen` (Apache-2.0)."""

    day_swing: float
    sigma: float
    memory: float


FITTED = {
    "trace-large": TraceLike(day_swing=0.121, sigma=0.395, memory=0.911),
    "trace-mid": TraceLike(day_swing=0.023, sigma=0.341, memory=0.916),
    "trace-small": TraceLike(day_swing=0.190, sigma=0.273, memory=0.920),
}


@dataclass(frozen=True)
class Scenario:
    """Rates by seed, how much burstier than Poisson they are (None: not at all), and what goes wrong."""

    name: str
    what: str
    rates: Callable[[int], Rates]
    gamma_shape: float | None = GAMMA_SHAPE
    faults: Faults = field(default_factory=Faults)
    replica: Replica = field(default_factory=Replica)

    def run(self, start_s: float, seed: int) -> Run:
        """The run of this scenario with that start time and seed.

        Raises:
            SwitchboardError: its traffic is more than all replicas that there may be can take.
        """
        rates = self.rates(seed)
        bounds = self.bounds(rates)
        initial = math.ceil(float(rates[0]) / self.replica.capacity_rps / UTILIZATION)
        return Run(
            arrivals=traffic.draw(rates, seed, gamma_shape=self.gamma_shape),
            replica=self.replica,
            start_s=start_s,
            bounds=bounds,
            initial=bounds.clip(initial),
            seed=seed,
            faults=self.faults,
        )

    def bounds(self, rates: Rates) -> Bounds:
        """Those of every policy: three times what the highest rate takes, as far as a ModelServer may have so many.

        Raises:
            SwitchboardError: so many can't take the highest rate, and nobody could do well.
        """
        highest, capacity = float(rates.max()), self.replica.capacity_rps
        if highest > MOST_REPLICAS * capacity:
            raise SwitchboardError(
                f"{self.name}: {highest:,.0f} requests/s are more than the {MOST_REPLICAS * capacity:,.0f} that "
                f"{MOST_REPLICAS:,} replicas of {capacity:g} can take, the most that a ModelServer may have"
            )
        return Bounds(1, min(MOST_REPLICAS, max(60, math.ceil(3 * highest / capacity))))


def _step(_: int) -> Rates:
    return traffic.steps((BASE, 900), (PEAK, 2700), (BASE, 2400))


def _flash(_: int) -> Rates:
    return traffic.flash_crowd(BASE, PEAK, before_s=900, ramp_s=30, decay_s=900, seconds=7200)


def _ramp(_: int) -> Rates:
    up, down = traffic.ramp(BASE, PEAK, 3600), traffic.ramp(PEAK, BASE, 3600)
    return np.concatenate([traffic.steps((BASE, 600)), up, down])


def _outage(_: int) -> Rates:
    return traffic.steps((BASE, 900), (3 * BASE, 2700), (BASE, 1800))


def standard(traces: Path = TRACES) -> tuple[Scenario, ...]:
    """All scenarios. Traces are read from `traces` where they are there, else made by the fitted generators."""
    return (
        Scenario(STEP, "5x up at once, and down again after 45 min", _step, gamma_shape=None),
        Scenario("flash-crowd", "5x within 30 s, falling by 1/e every 15 min", _flash),
        Scenario("slow-ramp", "5x within an hour, and back", _ramp),
        Scenario("diurnal", "a day between 1x and 5x", lambda _: traffic.diurnal(BASE, PEAK, DAY_S)),
        Scenario(
            "bursty",
            "bursts of 4x, 60 s long, every 5 min",
            lambda seed: traffic.bursty(BASE, 4 * BASE, 14_400, seed),
        ),
        *(Scenario(name, f"a day of {name}", _trace(name, traces)) for name in FITTED),
        Scenario(
            "metric-outage",
            "3x at once; nothing is seen for 60 s before, while it happens, and for 5 min at the peak",
            _outage,
            faults=Faults(gaps=((600, 660), (930, 990), (2400, 2700))),
        ),
        Scenario(
            "operator-restart",
            "5x at once; the operator starts anew before it, a minute after, at the peak and after its end",
            lambda _: traffic.steps((BASE, 900), (PEAK, 2700), (BASE, 1800)),
            faults=Faults(restarts=(600, 960, 2400, 3630)),
        ),
        Scenario(
            "capped-capacity",
            "a flash crowd, and 12 replicas at most in its first 10 min",
            _flash,
            faults=Faults(caps=((900, 1500, 12),)),
        ),
    )


def _trace(name: str, traces: Path) -> Callable[[int], Rates]:
    path = traces / f"servegen-m-{name.removeprefix('trace-')}.csv"

    def rates(seed: int) -> Rates:
        if not path.is_file():
            fitted = FITTED[name]
            return traffic.trace_like(
                TRACE_MEAN, DAY_S, seed, day_swing=fitted.day_swing, sigma=fitted.sigma, memory=fitted.memory
            )
        times, values = read_trace(path)
        whole = np.interp(np.arange(LONGEST_S, dtype=float), times, _without_gaps(values))
        day = whole[seed % 14 * DAY_S :][:DAY_S]
        return np.asarray(day * TRACE_MEAN / day.mean())

    return rates


def _without_gaps(values: Rates) -> Rates:
    """Windows near zero are gaps in the data, not in the traffic: a straight line over them."""
    known = values >= 0.05 * np.median(values)
    at = np.arange(len(values))
    return np.interp(at, at[known], values[known])


def from_trace(path: Path) -> Scenario:
    """A scenario of a user's trace (columns `time_s`, `requests_per_s`), named as its file, at its own rates.

    Raises:
        SwitchboardError: it can't be read, or isn't a trace.
    """
    times, values = read_trace(path)
    seconds = np.arange(math.ceil(times[-1]) + 1, dtype=float)
    spacing = float(np.median(np.diff(times)))
    if spacing <= FINE_S:
        rates = values[np.searchsorted(times, seconds, side="right") - 1]
    else:
        rates = np.interp(seconds, times, values)
    # A coarse trace has lost what happened within its steps.
    shape = None if spacing <= FINE_S else GAMMA_SHAPE
    return Scenario(path.stem, f"the trace {path.name}", lambda _: rates, gamma_shape=shape)


def read_trace(path: Path) -> tuple[Rates, Rates]:
    """Times (from 0, seconds) and rates (requests/s) of a CSV file.

    Raises:
        SwitchboardError: it can't be read, or isn't a trace; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(_rows(csv.DictReader(file), path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't text"
        raise SwitchboardError(f"trace {path}: {reason}") from None
    if len(rows) < 2:
        raise SwitchboardError(f"trace {path}: {len(rows)} rows; a trace has at least two")
    times, values = np.asarray(rows).T
    if times[-1] - times[0] > LONGEST_S:
        raise SwitchboardError(f"trace {path}: it is longer than 14 days", "cut it")
    return times - times[0], values


def _rows(reader: csv.DictReader[str], path: Path) -> Iterable[tuple[float, float]]:
    columns = ("time_s", "requests_per_s")
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise SwitchboardError(f"trace {path}: no column {missing[0]}; a trace has {' and '.join(columns)}")
    last = -math.inf
    for row in reader:
        where = f"trace {path}, line {reader.line_num}"
        try:
            at, rate = (float(row[name]) for name in columns)
        except (TypeError, ValueError):
            raise SwitchboardError(f"{where}: not two numbers") from None
        if not (math.isfinite(at) and at > last):
            raise SwitchboardError(f"{where}: time_s {row['time_s']} doesn't come after the line before")
        if not 0 <= rate <= MOST_RPS:
            raise SwitchboardError(
                f"{where}: requests_per_s {row['requests_per_s']} is none from 0 to {MOST_RPS:,.0f}"
            )
        last = at
        yield at, rate
