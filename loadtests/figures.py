"""What a run measured, and whether that is good enough: pure functions of the requests' times and outcomes.

Percentiles are exact (nearest rank over every request), not read off a histogram.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from pydantic import BaseModel

from switchboard.requests import Request, percentile

GOOD_WITHIN_S: Final = 0.3
"""The service level: an answer counts when it is right and as fast as this."""
VOICE: Final = "voice"
"""Who asks by voice, in a request's `who`."""
SPOKEN_WITHIN_S: Final = 3.0
"""The same for what was spoken: it is listened to first."""

GOOD_SHARE: Final = 0.99
"""A second is within the service level when this share of the requests due in it were good."""

_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def within_level(request: Request) -> bool:
    """Answered right, and in time."""
    return request.failure is None and request.seconds <= _level_s(request)


def first_failure(request: Request) -> str | None:
    """Why its first try failed, whether or not there was a second."""
    return request.first if request.first is not None else request.failure


def levels_ms(requests: Iterable[Request]) -> list[float]:
    """What that means for those who asked, in milliseconds."""
    return sorted({_level_s(one) * 1000 for one in requests}) or [GOOD_WITHIN_S * 1000]


def _level_s(request: Request) -> float:
    return SPOKEN_WITHIN_S if request.who.startswith(VOICE) else GOOD_WITHIN_S


class Sent(NamedTuple):
    """What became of the schedule: so many requests were due, so many of them couldn't be sent."""

    offered: int = 0
    dropped: int = 0

    @staticmethod
    def of_all(several: Iterable[Sent]) -> Sent:
        found = list(several)
        return Sent(sum(one.offered for one in found), sum(one.dropped for one in found))


class SoFar(NamedTuple):
    """Of a run that goes on: requests that are through, how many failed, the 99th percentile of the last ones (ms)."""

    total: int
    failed: int
    p99_ms: float | None = None


class Figures(BaseModel):
    """Times in milliseconds, from when a request was due; `None` where there was no request."""

    offered: int
    """Requests that were due by the schedule."""
    dropped: int
    """Of these, requests that couldn't be sent."""
    total: int
    """Requests that are through: answered, or given up."""
    failed: int
    first_failed: int = 0
    """Requests whose first try failed."""
    retried: int = 0
    """Of these, requests that were put once more."""
    late_p50_ms: float | None = None
    """By how much requests were sent after they were due."""
    late_p99_ms: float | None = None
    late_max_ms: float | None = None
    duration_s: float
    rate_rps: float
    """Requests begun a second, over the run."""
    began_s: float | None = None
    """When the run began, in seconds since the epoch."""
    first_s: float | None = None
    """When the first request began, in seconds since the epoch."""
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    seconds: int
    """Seconds in which requests were due."""
    seconds_within_level: int
    failures: dict[str, int]
    """By reason."""

    @property
    def lost(self) -> int:
        """Requests that were due, and of which nothing is known: not sent, or not waited for."""
        return max(0, self.offered - self.total)


def figures(
    requests: Sequence[Request], duration_s: float, sent: Sent | None = None, began_s: float | None = None
) -> Figures:
    """The figures of a run. Failed requests count in the percentiles too: a fast error is no fast answer, and a slow
    one is the customer's time."""
    times, late = sorted(one.seconds for one in requests), sorted(one.late_s for one in requests)
    offered, dropped = sent or Sent(len(requests))
    rows = by_second(requests)
    failures = Counter(request.failure for request in requests if request.failure is not None)
    return Figures(
        offered=offered,
        dropped=dropped,
        total=len(times),
        failed=failures.total(),
        first_failed=sum(first_failure(one) is not None for one in requests),
        retried=sum(one.first is not None for one in requests),
        late_p50_ms=_ms(percentile(late, 50)) if late else None,
        late_p99_ms=_ms(percentile(late, 99)) if late else None,
        late_max_ms=_ms(late[-1]) if late else None,
        duration_s=round(duration_s, 3),
        rate_rps=round(len(times) / duration_s, 2) if duration_s > 0 else 0.0,
        began_s=began_s,
        first_s=min((request.started_s for request in requests), default=None),
        mean_ms=_ms(sum(times) / len(times)) if times else None,
        p50_ms=_ms(percentile(times, 50)) if times else None,
        p90_ms=_ms(percentile(times, 90)) if times else None,
        p99_ms=_ms(percentile(times, 99)) if times else None,
        max_ms=_ms(times[-1]) if times else None,
        seconds=len(rows),
        seconds_within_level=len(rows) - len(bad_seconds(rows)),
        failures=dict(failures.most_common()),
    )


def by_second(requests: Sequence[Request]) -> list[tuple[int, int, int, int]]:
    """Of each second in which requests were due (seconds since the epoch, in order): how many were due, answered well
    and in time, and failed."""
    found: dict[int, list[int]] = {}
    for request in requests:
        row = found.setdefault(math.floor(request.started_s), [0, 0, 0])
        row[0] += 1
        row[1] += within_level(request)
        row[2] += request.failure is not None
    return [(second, *found[second]) for second in sorted(found)]  # type: ignore[misc]


def bad_seconds(rows: Iterable[tuple[int, int, int, int]]) -> list[int]:
    """Of those of `by_second`, the seconds in which fewer than GOOD_SHARE were answered well and in time."""
    return [second for second, due, good, _ in rows if good < GOOD_SHARE * due]


def failed_of(requests: Iterable[Request]) -> tuple[int, int]:
    """How many failed, and how many did at the first try."""
    found = [(one.failure is not None, first_failure(one) is not None) for one in requests]
    return sum(failed for failed, _ in found), sum(first for _, first in found)


def breaches(found: Figures, *, max_failed: int, p99_s: float | None) -> list[str]:
    """Why the run isn't good enough, in words; empty when it is. A run without requests proves nothing."""
    broken = []
    if found.total == 0:
        broken.append("no request was made")
    if found.failed > max_failed:
        broken.append(f"{found.failed} of {found.total} requests failed (at most {max_failed} may)")
    if p99_s is not None and found.p99_ms is not None and found.p99_ms > p99_s * 1000:
        broken.append(f"the 99th percentile is {found.p99_ms:g} ms (at most {p99_s * 1000:g} ms)")
    return broken


def seconds_of(text: str) -> float:
    """`300ms`, `60s`, `1.5m`, `2h` or plain seconds, as seconds.

    Raises:
        ValueError: anything else, or nothing above zero.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?", text.strip())
    value = float(match[1]) * _UNITS_S[match[2] or "s"] if match else 0.0
    if value <= 0 or not math.isfinite(value):
        raise ValueError(f"{text!r} is no time; write 300ms, 60s or 5m")
    return value


def table(found: Figures) -> Iterable[tuple[str, str]]:
    """Rows for people."""
    yield "requests", f"{found.total:,} in {found.duration_s:.0f} s ({found.rate_rps:g}/s)"
    sent = found.offered - found.dropped
    yield (
        "due / sent / through",
        f"{found.offered:,} / {sent:,} / {found.total:,} ({found.dropped:,} dropped)",
    )
    yield "failed", f"{found.failed:,}"
    if found.first_failed:
        yield "failed at the first try", f"{found.first_failed:,}"
    if found.total:
        yield (
            "sent late, p50 / p99 / max",
            f"{found.late_p50_ms:g} / {found.late_p99_ms:g} / {found.late_max_ms:g} ms",
        )
        yield (
            "p50 / p90 / p99 / max",
            (f"{found.p50_ms:g} / {found.p90_ms:g} / {found.p99_ms:g} / {found.max_ms:g} ms"),
        )
        yield "seconds within the level", f"{found.seconds_within_level} of {found.seconds}"
    for reason, count in list(found.failures.items())[:5]:
        yield "failure", f"{count:,} × {reason}"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
