"""What the scaling policy takes and gives: values, with the time among them.

A `Decision` is a record: the signals, the number that each of them asks for, every constraint that moved the number,
and the result, also where nothing changes. A `State` is what the policy remembers; it is small, and may be lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from operators.scaling.history import EMPTY, MOST, History
from switchboard.api.scaling import Reason

LEAST_CAPACITY = 1e-6
"""A replica that takes less takes nothing: that isn't known, but wrong."""
LONGEST_WAIT_S, LONGEST_START_S = 3600.0, 3600.0
USUAL_WAIT_S, CAREFUL_START_S = 0.2, 420.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a replica can take: `rps` requests/s and `concurrency` requests at once, stated or measured.

    `math.inf` where that isn't known: it asks for no replicas then. `wait_s` is how long a request may wait and still
    be answered in time; `start_s` the 95th percentile of the time from the decision for a replica until it serves.
    """

    rps: float
    concurrency: float
    wait_s: float = USUAL_WAIT_S
    start_s: float = 60.0

    def trusted(self) -> Capacity:
        """With what can't be true as unknown, and times in bounds."""
        rps = self.rps if self.rps >= LEAST_CAPACITY else math.inf
        concurrency = self.concurrency if self.concurrency >= LEAST_CAPACITY else math.inf
        wait_s = self.wait_s if 1e-3 <= self.wait_s <= LONGEST_WAIT_S else USUAL_WAIT_S
        start_s = min(self.start_s, LONGEST_START_S) if self.start_s >= 0 else CAREFUL_START_S
        sound = Capacity(rps, concurrency, wait_s, start_s)
        return self if sound == self else sound


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen at a tick. Signals are None where they aren't known (a gap, an outage), never zero for that.

    `rate`: requests/s that arrived in the policy's window for steps up; `latest_rate`: those of the last tick's length
    `tick_s` alone, where known; `in_service`: requests in replicas, on average
    over it; `queued`: requests that wait at the gateway now. `current` is what is asked for, `ready` what serves.
    `partial`: not all gateways are in the signals, so there is more than they say.
    """

    current: int
    ready: int
    rate: float | None
    in_service: float | None = None
    queued: float | None = None
    latest_rate: float | None = None
    tick_s: float = 2.0
    partial: bool = False

    def trusted(self) -> Observation:
        """Without signals that can't be true: no number, out of bounds, or no arrivals while requests are at work."""

        def sound(value: float | None) -> float | None:
            return value if value is not None and 0 <= value <= MOST else None

        rate, in_service, queued = sound(self.rate), sound(self.in_service), sound(self.queued)
        if rate == 0 and ((in_service or 0) >= 1 or (queued or 0) >= 1):
            rate = None
        latest = sound(self.latest_rate) if rate is not None else None
        if (rate, in_service, queued, latest) == (
            self.rate,
            self.in_service,
            self.queued,
            self.latest_rate,
        ):
            return self
        return replace(self, rate=rate, in_service=in_service, queued=queued, latest_rate=latest)


@dataclass(frozen=True, slots=True)
class Move:
    """A constraint that changed the number, and why, in a clause."""

    constraint: str
    before: float
    after: float
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. `raw` has what each signal asks for, in replicas; `because` the one that counted most."""

    at: float
    current: int
    wanted: int
    because: Reason | None
    raw: dict[Reason, float]
    seen: Observation
    moves: tuple[Move, ...] = ()

    @property
    def changes(self) -> bool:
        return self.wanted != self.current

    def sentence(self) -> str:
        """Why, in one sentence; for an Event and for the status."""
        if self.because is None:
            known = "the traffic" if self.seen.rate is None else "what a replica can take"
            asked = f"nothing is known of {known}"
        else:
            asked = f"{self.because} asks for {self.raw[self.because]:.1f}"
            if self.seen.rate is not None:
                asked += f" at {self.seen.rate:.1f} requests/s"
        why = "".join(f"; {move.constraint}: {move.why}" for move in self.moves)
        kept = f"stays at {self.current}" if not self.changes else f"from {self.current} to {self.wanted}"
        return f"{kept}: {asked}{why}"


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered from tick to tick; times as the caller's clock gives them.

    `since`: from when on the traffic is known without a break (nothing goes down before a stabilisation's time has
    passed since); `highest`: needs of the stabilisation window, falling, each with its time; `bucket`: number, sum and
    count of the one that is being filled; `offset_s`: where its time begins, so that not all servers' buckets are full
    at the same tick; `headroom` in replicas; `changes`: steps of the last time, for the pace; `busy_at`, `waited_at`
    and `known_at`: the last times with requests, with requests that waited, and with signals at all; `short_since`:
    since when requests have waited though all that was asked for serves; `in_service_at` and `queued_at`: when these
    signals were last known.
    """

    at: float
    since: float
    busy_at: float
    known_at: float
    waited_at: float = -math.inf
    short_since: float = math.inf
    in_service_at: float = -math.inf
    queued_at: float = -math.inf
    highest: tuple[tuple[float, float], ...] = ()
    history: History = EMPTY
    bucket: tuple[int, float, int] = (0, 0.0, 0)
    offset_s: float = 0.0
    headroom: float = 0.0
    changes: tuple[tuple[float, int], ...] = ()
