"""What is known of the traffic of each placement of a service, whoever was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

CORE: Literal["core"] = "core"
EDGE: Literal["edge"] = "edge"


class Key(NamedTuple):
    """Where requests of a service are answered: in the core of the site, or on the edge of a region."""

    service: str
    tier: str = CORE
    region: str | None = None


class Place(NamedTuple):
    """Where gateways are: in the core of the site, or on the edge of a region."""

    tier: str = CORE
    region: str | None = None


class Measured(NamedTuple):
    """What the replicas of a placement have answered of late, as `Traffic` has it: `measured` is how many they are."""

    cpu: float | None
    answered: float | None
    measured: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """The signals of a placement; None for what isn't known. Rates in requests/s, `cpu` in cores of all its replicas,
    `answered` is the rate at which they answered, `measured` how many replicas those two are of (None: not asked)."""

    rate: float | None = None
    latest_rate: float | None = None
    in_service: float | None = None
    queued: float | None = None
    cpu: float | None = None
    answered: float | None = None
    measured: int | None = None

    def part(self, share: float) -> Traffic:
        """That of some of the replicas, which have `share` of it."""

        def of(value: float | None) -> float | None:
            return None if value is None else value * share

        return Traffic(
            of(self.rate),
            of(self.latest_rate),
            of(self.in_service),
            of(self.queued),
            of(self.cpu),
            of(self.answered),
            None if self.measured is None else round(self.measured * share),
        )

    def beside(self, other: Traffic) -> Traffic:
        """With what another placement's replicas are asked for: as if they were to get all of it."""

        def both(mine: float | None, theirs: float | None) -> float | None:
            return mine if theirs is None else theirs + (mine or 0.0)

        return replace(
            self,
            rate=both(self.rate, other.rate),
            latest_rate=both(self.latest_rate, other.latest_rate),
            in_service=both(self.in_service, other.in_service),
            queued=both(self.queued, other.queued),
        )


NOTHING = Traffic()


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at all traffic.

    `at`: when it was asked for, in seconds since the epoch; `source` who answered; `traffic` by placement, and for
    each by the length of the window (s) of its means; `gateways`: of how many gateways the rates are (fewer than there
    are is a view in part: what is missing isn't zero); `in_flight`: requests in single replicas, for those that were
    asked for; `age_s`: how old the newest sample is; `problem`: why another source wasn't used.
    """

    at: float
    source: Literal["prometheus", "gateways", "nobody"]
    traffic: Mapping[tuple[Key, int], Traffic] = field(default_factory=dict)
    gateways: Mapping[Place, int] = field(default_factory=dict)
    in_flight: Mapping[str, float] = field(default_factory=dict)
    age_s: float | None = None
    problem: str | None = None

    def lacks(self, there: Mapping[Place, int]) -> bool:
        """Whether it is of fewer gateways than are `there`."""
        return any(self.gateways.get(place, 0) < count for place, count in there.items())

    def completed(self, other: Seen, there: Mapping[Place, int]) -> Seen:
        """With the arrivals of another look, if that one has all gateways that are `there`."""
        if other.lacks(there):
            return self
        traffic = dict(self.traffic)
        for key, found in other.traffic.items():
            own = traffic.get(key, NOTHING)
            traffic[key] = replace(
                own,
                rate=found.rate,
                latest_rate=found.latest_rate,
                queued=found.queued,
                in_service=found.in_service if own.in_service is None else own.in_service,
            )
        return replace(
            self, source=other.source, traffic=traffic, gateways=other.gateways, problem=other.problem
        )

    def whole(self, key: Key, there: Mapping[Place, int]) -> bool:
        """Whether all gateways are in the view that send requests to that placement, of those that are `there`.

        To the core, all gateways of a site do; to an edge's own replicas, the gateways of that edge.
        """
        own = Place(key.tier, key.region)
        senders = there if key.tier == CORE else {own: there.get(own, 0)}
        return not self.lacks(senders)
