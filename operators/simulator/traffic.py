"""Traffic for the simulator: how many requests are due in each tenth of a second, from a seed.

A `Shape` is the expected rate of each second. Real arrivals are burstier than Poisson: within a shape, counts are
Poisson(rate x G), and G, of mean 1, is drawn anew from a gamma distribution every minute. Shape 15 fits a public
conversation trace (counts in windows of 1 s and 60 s); the same source is that of the `trace_like` parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS_PER_S = 10
"""Counts are per tenth of a second: fine enough for a wait of 200 ms to be seen."""
HOLD_S = 60
GAMMA_SHAPE = 15.0

Rates = NDArray[np.float64]


@dataclass(frozen=True)
class Arrivals:
    """Requests due: `counts[i]` in the i-th tenth of a second; `rate[s]` is what was expected in second s."""

    rate: Rates
    counts: NDArray[np.int64]

    @property
    def seconds(self) -> int:
        return len(self.rate)

    def per_second(self) -> NDArray[np.int64]:
        """Requests due in each second."""
        return self.counts.reshape(-1, BINS_PER_S).sum(axis=1)


def draw(rate: Rates, seed: int, *, gamma_shape: float | None = GAMMA_SHAPE) -> Arrivals:
    """Arrivals of the expected `rate` (requests/s, one value a second); None for pure Poisson."""
    random = np.random.default_rng(seed)
    seconds = len(rate)
    factor = np.ones(seconds)
    if gamma_shape is not None:
        held = random.gamma(gamma_shape, 1 / gamma_shape, size=-(-seconds // HOLD_S))
        factor = np.repeat(held, HOLD_S)[:seconds]
    means = np.repeat(rate * factor / BINS_PER_S, BINS_PER_S)
    return Arrivals(rate * factor, random.poisson(means))


def steps(*parts: tuple[float, int]) -> Rates:
    """A rate for some seconds, then another: `steps((100, 600), (500, 1200))`."""
    return np.concatenate([np.full(seconds, float(rate)) for rate, seconds in parts])


def ramp(start: float, end: float, seconds: int) -> Rates:
    """Evenly from one rate to another."""
    return np.linspace(start, end, seconds)


def flash_crowd(
    base: float, peak: float, *, before_s: int, ramp_s: int, decay_s: float, seconds: int
) -> Rates:
    """From `base` to `peak` within `ramp_s`, then back towards `base`, by 1/e every `decay_s`."""
    t = np.arange(seconds, dtype=float) - before_s
    rising = base + (peak - base) * t / ramp_s
    falling = base + (peak - base) * np.exp(-np.maximum(t - ramp_s, 0) / decay_s)
    return np.where(t < 0, base, np.where(t < ramp_s, rising, falling))


def diurnal(low: float, high: float, seconds: int, *, day_s: int = 86_400) -> Rates:
    """Days between `low` (at their start) and `high`: a sine, sharpened, as working hours are."""
    phase = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(seconds) / day_s)
    return low + (high - low) * phase**1.5


def bursty(
    base: float, peak: float, seconds: int, seed: int, *, quiet_s: float = 240, burst_s: float = 60
) -> Rates:
    """Bursts of `peak` at random times: both gaps and bursts have exponential lengths of these means."""
    random = np.random.default_rng([seed, 1])
    rate = np.full(seconds, float(base))
    at = random.exponential(quiet_s)
    while at < seconds:
        end = at + max(5.0, random.exponential(burst_s))
        rate[int(at) : int(end)] = peak
        at = end + random.exponential(quiet_s)
    return rate


def trace_like(
    mean: float,
    seconds: int,
    seed: int,
    *,
    day_swing: float,
    sigma: float,
    memory: float,
    step_s: int = 600,
) -> Rates:
    """Rates as of large model-serving workloads: a day's swing times a log-normal walk that tends back (AR(1)).

    `day_swing` is the half-range of the day relative to the mean, `sigma` the standard deviation of the walk's
    logarithm, `memory` its correlation from one `step_s` to the next.
    """
    random = np.random.default_rng([seed, 2])
    count = -(-seconds // step_s) + 1
    walk = np.empty(count)
    walk[0] = random.normal(0, sigma)
    for index in range(1, count):
        walk[index] = memory * walk[index - 1] + random.normal(0, sigma * (1 - memory**2) ** 0.5)
    day = 1 + day_swing * np.sin(2 * np.pi * np.arange(count) * step_s / 86_400 - 1.9)
    return resample(mean * day * np.exp(walk - sigma**2 / 2), step_s, seconds)


def resample(values: Rates, step_s: float, seconds: int) -> Rates:
    """One value a second from one every `step_s`, by straight lines between."""
    times = np.arange(len(values)) * step_s
    return np.interp(np.arange(seconds, dtype=float), times, values)
