"""Recorded traffic: a rate over time from Prometheus, as a scenario.

What the gateways counted of a service is asked for as the operator asks for its history: each customer's request once,
when it arrived, whatever became of it. It comes in means of STEP_S, however long the range is, and each mean is held
for its STEP_S: a step stays a step. What Prometheus doesn't know of the time asked for is filled by a straight line,
and refused where that is more than a tenth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import numpy as np

from operators.signals import query as signals
from operators.signals.values import EDGE, Key
from operators.simulator.scenarios import LONGEST_S, MOST_RPS, Scenario
from operators.simulator.traffic import GAMMA_SHAPE, Rates
from switchboard.api.model_server import LABEL
from switchboard.errors import SwitchboardError

TIMEOUT_S = 30.0
STEP_S = 10
"""Two samples are in so much, also where a scrape is 5 s after the other; in less there may be no rate."""
MOST_POINTS = 10_000
"""In one question: Prometheus refuses more than 11,000 points of a series."""
_UNKNOWN = 0.1
_NAMED = 8
_GLANCES = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """From when on (seconds since the epoch), and for how many seconds: whole steps."""

    first: int
    seconds: int

    @staticmethod
    def of(end: datetime, length: timedelta) -> Span:
        """The `length` before `end`.

        Raises:
            SwitchboardError: that is too short or too long.
        """
        seconds = math.ceil(length.total_seconds() / STEP_S) * STEP_S
        if not 60 <= seconds <= LONGEST_S:
            raise SwitchboardError(f"{length} of traffic can't be replayed: from a minute to 14 days")
        return Span(int(end.timestamp()) - seconds, seconds)

    def __str__(self) -> str:
        return f"from {_when(self.first)} to {_when(self.first + self.seconds)} UTC"


def of_service(url: str, key: Key, span: Span) -> Scenario:
    """What arrived for a service, in the core or at an edge's own replicas.

    Raises:
        SwitchboardError: Prometheus isn't reachable or answers nonsense, or there is no such traffic.
    """
    if not re.fullmatch(LABEL, key.service):
        raise SwitchboardError(f"{key.service!r} is no service's name", "name one by --model-server")
    asked, whose = signals.history([key.service], STEP_S), f"requests to {_name(key)}"

    def read(start: int, points: int, answer: list[Any]) -> list[float]:
        return signals.read_history(answer, start, points, STEP_S).get(key, [math.nan] * points)

    rates = _rates(url, asked, read, span)
    if not np.isfinite(rates).any():
        raise SwitchboardError(f"Prometheus at {url} knows no {whose} {span}", _what_there_is(url, span))
    # Such means have what happened; nothing has to be made up within them.
    return _scenario(url, whose, rates, span, gamma_shape=None)


def of_query(url: str, query: str, span: Span) -> Scenario:
    """What a query gives: one series in requests/s.

    Raises:
        SwitchboardError: as `of_service`, or the query is refused, or gives more than one series.
    """
    named = " ".join(query.split())[:200]
    series: set[str] = set()

    def read(start: int, points: int, answer: list[Any]) -> list[float]:
        found = [math.nan] * points
        for one in answer:
            series.add(repr(sorted(one["metric"].items())))
            for at, value in one["values"]:
                found[round((float(at) - start) / STEP_S)] = float(value)
        return found

    rates = _rates(url, query, read, span)
    if len(series) != 1:
        raise SwitchboardError(
            f"Prometheus at {url}: {named} gives {len(series)} series, not one",
            "sum them" if series else "see whether it has what the query names: --last, --end",
        )
    # Over how long the query's means are isn't known.
    return _scenario(url, named, rates, span, gamma_shape=GAMMA_SHAPE)


def _rates(url: str, query: str, read: Callable[[int, int, list[Any]], list[float]], span: Span) -> Rates:
    """The rate of each step; in as many questions as Prometheus needs. `read(start, points, answer)` is of one."""
    found: list[float] = []
    total = span.seconds // STEP_S
    while len(found) < total:
        points = min(MOST_POINTS, total - len(found))
        start = span.first + (len(found) + 1) * STEP_S  # a rate is of the time before it
        found += _ask(url, query, start, points, STEP_S, partial(read, start, points))
    rates = np.asarray(found)
    return np.where((rates >= 0) & (rates <= MOST_RPS), rates, np.nan)


def _scenario(url: str, whose: str, rates: Rates, span: Span, *, gamma_shape: float | None) -> Scenario:
    known = np.flatnonzero(np.isfinite(rates))
    if len(known) < (1 - _UNKNOWN) * len(rates):
        extent = ""
        if len(known):
            begin, last = (span.first + int(one) * STEP_S for one in (known[0], known[-1] + 1))
            extent = f", between {_when(begin)} and {_when(last)} UTC"
        raise SwitchboardError(
            f"Prometheus at {url} knows {len(known) * STEP_S} of {span.seconds} s of {whose}{extent}",
            "ask for a time of which it knows nine tenths: --last, --end",
        )
    whole = np.repeat(np.interp(np.arange(len(rates)), known, rates[known]), STEP_S)
    return Scenario("recorded", f"{whose} {span}", lambda _: whole, gamma_shape=gamma_shape)


def _what_there_is(url: str, span: Span) -> str:
    """The services that some of that time knows, for who named another."""
    step_s = max(STEP_S, span.seconds // _GLANCES)
    start, points = span.first + step_s, span.seconds // step_s

    def read(answer: list[Any]) -> list[Key]:
        found = signals.read_history(answer, start, points, step_s)
        return [key for key, rates in found.items() if not all(map(math.isnan, rates))]

    found = _ask(url, signals.history([".+"], STEP_S), start, points, step_s, read)
    if not found:
        return "it knows no gateway's requests then: see whether it is the right address, or --last, --end"
    return f"it knows those to {_listed(sorted(_name(key) for key in found))}: --model-server, --region"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _name(key: Key) -> str:
    return f"{key.service} on the edge of {key.region}" if key.tier == EDGE else key.service


def _when(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M}"


def _ask(url: str, query: str, start: int, points: int, step_s: int, read: Callable[[list[Any]], T]) -> T:
    """What `read` makes of the series of an answer.

    Raises:
        SwitchboardError: there is no answer, it says no, or nothing can be made of it.
    """
    import requests
    from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
    from urllib3.util import Retry

    from operators.signals.prometheus import first_line

    if not re.match(r"https?://[^/]", url):
        raise SwitchboardError(f"{url!r} is no Prometheus's address", "say it as http://127.0.0.1:9090")
    next_step: str | None = "see whether it is the right address"
    try:
        client = PrometheusConnect(url=url, retry=Retry(total=0), timeout=round(TIMEOUT_S))
        found = client.custom_query_range(
            query,
            start_time=datetime.fromtimestamp(start, UTC),
            end_time=datetime.fromtimestamp(start + (points - 1) * step_s, UTC),
            step=str(step_s),
        )
        if not isinstance(found, list):
            raise TypeError
        return read(found)
    except requests.exceptions.JSONDecodeError:
        reason = "it doesn't answer in JSON"
    except (requests.RequestException, PrometheusApiClientException) as error:
        reason = first_line(error)
        if "HTTP Status Code 400" in reason:  # it is a Prometheus, which says what is wrong
            next_step = None
    except Exception:  # of an answer of another shape, or an address that is none
        reason = "it doesn't answer as a Prometheus does"
    raise SwitchboardError(f"Prometheus at {url}: {reason}", next_step)
