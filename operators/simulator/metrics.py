"""What an autoscaler can know in the simulation: one sample a second, late by `delay_s`, and nothing in a gap.

Means over any window cost the same, by running sums. A window's mean is over the samples that arrived in it.
"""

from __future__ import annotations

from operators.simulator.plant import Second


class Metrics:
    """The samples that have arrived. Seconds are counted from 0; sample `s` covers the second that ends at `s`."""

    def __init__(self, delay_s: int) -> None:
        self.delay_s = delay_s
        self._arrived = [0.0]
        self._in_flight = [0.0]
        self._in_service = [0.0]
        self._queued = [0.0]
        self._samples = [0]

    def add(self, second: Second | None) -> None:
        """The next second's sample, or None where it was lost."""
        count = 0 if second is None else 1
        self._arrived.append(self._arrived[-1] + (second.arrived if second else 0.0))
        self._in_flight.append(self._in_flight[-1] + (second.in_flight if second else 0.0))
        self._in_service.append(self._in_service[-1] + (second.in_service if second else 0.0))
        self._queued.append(self._queued[-1] + (second.queued if second else 0.0))
        self._samples.append(self._samples[-1] + count)

    def _ends(self, now: int, window_s: int) -> tuple[int, int]:
        end = min(max(0, now - self.delay_s), len(self._samples) - 1)
        return max(0, end - window_s), end

    def samples(self, now: int, window_s: int) -> int:
        """How many seconds of the window are known."""
        start, end = self._ends(now, window_s)
        return self._samples[end] - self._samples[start]

    def _mean(self, sums: list[float], now: int, window_s: int) -> float | None:
        start, end = self._ends(now, window_s)
        count = self._samples[end] - self._samples[start]
        return (sums[end] - sums[start]) / count if count else None

    def rate(self, now: int, window_s: int) -> float | None:
        """Requests/s that arrived; None where nothing is known."""
        return self._mean(self._arrived, now, window_s)

    def in_flight(self, now: int, window_s: int) -> float | None:
        """Requests being served or waiting, on average."""
        return self._mean(self._in_flight, now, window_s)

    def in_service(self, now: int, window_s: int) -> float | None:
        """Requests being served, on average."""
        return self._mean(self._in_service, now, window_s)

    def queued(self, now: int, window_s: int) -> float | None:
        """Requests waiting, on average."""
        return self._mean(self._queued, now, window_s)
