"""The traffic as the gateways count it themselves, for when Prometheus is away.

Each gateway's statistics are read at each tick, and rates are differences over the window. It takes two looks before
anything is known; until then nothing is, which changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from operators.signals.values import CORE, EDGE, Key, Place, Seen, Traffic
from operators.view import Gateway
from switchboard import gateway_stats

log = logging.getLogger(__name__)

STATS_PORT = 9902
TIMEOUT_S = 1.0
MOST_BYTES = 8 * 2**20
"""Of one gateway's statistics: those of 2,000 services have 1.5 MiB, 6 where each has replicas on an edge, too."""
AT_ONCE = 32
STALE_S = 30.0
LEAST_KEPT_S = 6.0

Counters = Mapping[Key, gateway_stats.Counters]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a gateway had counted at `at` (seconds)."""

    at: float
    counters: Counters


def rates(samples: Sequence[Sample], window_s: float) -> dict[Key, float]:
    """Requests/s of one gateway over the window before its last sample; nothing where there are no two in it.

    A counter that is lower than before has begun anew: what it says now has come since. One that wasn't there at the
    window's begin was at zero.
    """
    last = samples[-1]
    within = [one for one in samples if last.at - one.at <= window_s]
    if len(within) < 2 or last.at <= within[0].at:
        return {}
    span = last.at - within[0].at
    found: dict[Key, float] = {}
    for key in last.counters:
        counted = [one.counters[key].arrivals for one in within if key in one.counters]
        if key not in within[0].counters:
            counted.insert(0, 0.0)
        steps = (now - was if now >= was else now for was, now in itertools.pairwise(counted))
        found[key] = sum(steps) / span
    return found


def join(
    samples: Mapping[str, Sequence[Sample]],
    places: Mapping[str, Place],
    windows_s: Iterable[int],
    at: float,
    problem: str | None,
) -> Seen:
    """One view of what all gateways say: those count that have answered now and before."""
    windows = tuple(windows_s)
    total: dict[tuple[Key, int], float] = defaultdict(float)
    latest: dict[Key, float] = defaultdict(float)
    queued: dict[Key, float] = defaultdict(float)
    in_service: dict[tuple[Key, int], float] = defaultdict(float)
    gateways: dict[Place, int] = defaultdict(int)
    for name, place in places.items():
        own = samples.get(name) or ()
        if len(own) < 2 or own[-1].at < at:
            continue
        gateways[place] += 1
        for key, counters in own[-1].counters.items():
            queued[key] += counters.queued
        for key, rate in rates(own[-2:], STALE_S).items():
            latest[key] += rate
        for window in windows:
            within_s = max(window, own[-1].at - own[-2].at)
            for key, rate in rates(own, within_s).items():
                total[key, window] += rate
                in_service[key, window] += _at_work(own, key, within_s)
    traffic = {
        (key, window): Traffic(
            rate=rate,
            latest_rate=latest.get(key),
            in_service=in_service[key, window],
            queued=queued.get(key),
            measured=0,
        )
        for (key, window), rate in total.items()
    }
    if not gateways:
        return Seen(at, "nobody", problem=problem)
    return Seen(at, "gateways", traffic, gateways, age_s=0.0, problem=problem)


def _at_work(samples: Sequence[Sample], key: Key, window_s: float) -> float:
    """Requests that replicas were at work on, on average."""
    last = samples[-1].at
    counts = [
        one.counters[key].in_service for one in samples if last - one.at <= window_s and key in one.counters
    ]
    return sum(counts) / len(counts)


class Gateways:
    """Asks gateways for their statistics; an async context manager."""

    def __init__(self, *, port: int = STATS_PORT) -> None:
        self._port = port
        self._samples: dict[str, deque[Sample]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Gateways:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), connector=aiohttp.TCPConnector(limit=AT_ONCE)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(
        self, gateways: Sequence[Gateway], windows_s: Sequence[int], now: float, problem: str | None
    ) -> Seen:
        """Ask all of them; `problem` is why Prometheus isn't used."""
        answers = await asyncio.gather(*(self._ask(one, now) for one in gateways))
        longest_s = max(windows_s, default=0) + LEAST_KEPT_S
        for gateway, answer in zip(gateways, answers, strict=True):
            if answer is not None:
                kept = self._samples.setdefault(gateway.name, deque(maxlen=64))
                if kept and not 0 < now - kept[-1].at <= STALE_S:
                    kept.clear()  # too old, or of another time: the clock was set
                kept.append(answer)
                while len(kept) > 2 and now - kept[1].at >= longest_s:
                    kept.popleft()  # the one before says all that a rate over the longest window needs
        known = {one.name for one in gateways}
        for name in [name for name in self._samples if name not in known]:
            del self._samples[name]
        samples = {name: tuple(kept) for name, kept in self._samples.items()}
        return join(samples, {one.name: one.place for one in gateways}, windows_s, now, problem)

    async def _ask(self, gateway: Gateway, now: float) -> Sample | None:
        if self._session is None:
            raise RuntimeError("use `async with Gateways()`")
        url = f"http://{gateway.ip}:{self._port}{gateway_stats.PATH}"
        try:
            async with self._session.get(URL(url, encoded=True)) as response:
                if response.status != 200:
                    return None
                raw = await response.content.read(MOST_BYTES + 1)
                while len(raw) <= MOST_BYTES and (more := await response.content.read(MOST_BYTES + 1)):
                    raw += more
            if len(raw) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes of statistics")
            counted = await asyncio.to_thread(gateway_stats.parse, raw)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            log.debug("gateway %s: %s", gateway.name, str(error) or type(error).__name__)
            return None
        return Sample(
            now, {_key(service, tier, gateway.place): one for (service, tier), one in counted.items()}
        )


def _key(service: str, tier: str, place: Place) -> Key:
    return Key(service, EDGE, place.region) if tier == EDGE else Key(service, CORE)
