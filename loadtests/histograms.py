"""A run's latencies as an HdrHistogram log (`latency.hlog`), which that format's own tools read: to draw it, or to put
the histograms of several runs, or of those of another tool, together.

Each line is of ten seconds' requests, in microseconds from when they were due, to three digits. What the verdict and
the report say is exact, of the requests themselves; this is for others to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final, TextIO

from switchboard.requests import Request

INTERVAL_S: Final = 10
LONGEST_US: Final = 3600 * 10**6
DIGITS: Final = 3
_MS: Final = 1000.0
"""In microseconds: what the log says of an interval's longest is for people."""


def write(requests: Iterable[Request], file: TextIO, begun_s: float) -> None:
    """Of a run that began at `begun_s` (since the epoch); those that failed are among them, as long as they took."""
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogWriter

    begun_s = round(begun_s, 3)  # as its lines say it: a reader leaves out what is before the start
    log = HistogramLogWriter(file)
    log.output_comment("[Switchboard load test; values in microseconds, from when a request was due]")
    log.output_log_format_version()
    log.output_comment(f"[StartTime: {begun_s:.3f} (seconds since epoch), the run's]")
    log.output_base_time(begun_s * 1000)
    log.output_legend()

    def interval(one: Request) -> int:
        return max(0, int((one.started_s - begun_s) // INTERVAL_S))

    for number, those in groupby(sorted(requests, key=interval), key=interval):
        histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        for one in those:
            histogram.record_value(min(LONGEST_US, max(1, round(one.seconds * 1e6))))
        begin_s = number * INTERVAL_S
        log.output_interval_histogram(histogram, begin_s, begin_s + INTERVAL_S, _MS)
