"""Which replicas go when there are too many: drained before they are removed, idle ones first, zones kept even.

A replica that is to go gets no new requests (the gateways leave it out) and is removed when it has none any more, or
when its time is up. If it is needed again meanwhile, it is let back. Replicas that don't serve go first, at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_APART = 1
"""Zones may differ by so many replicas; beyond that one of the fullest zone goes, idle or not."""


@dataclass(frozen=True, slots=True)
class Replica:
    """What is known of one: `in_flight` requests (None: not known), `created` in seconds since the epoch, and for how
    long it has been on its way out, by a clock that nobody sets (`drained_s`; None: it isn't)."""

    name: str
    zone: str
    ready: bool
    created: float
    in_flight: float | None = None
    drained_s: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now: which get no more requests, which get some again, which are removed."""

    drain: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def plan(replicas: Sequence[Replica], wanted: int, *, deadline_s: float, settle_s: float) -> Plan:
    """From what there is to `wanted`.

    `settle_s` is how long gateways may take to leave a replica out: before that, no requests in it means nothing.
    After `deadline_s` it is removed with what it has.
    """
    chosen = choose(replicas, len(replicas) - wanted)
    names = {one.name for one in chosen}

    def over(one: Replica) -> bool:
        if not one.ready:
            return True
        if one.drained_s is None:
            return False
        return one.drained_s >= deadline_s or (one.drained_s >= settle_s and one.in_flight == 0)

    return Plan(
        drain=tuple(one.name for one in chosen if one.ready and one.drained_s is None),
        restore=tuple(one.name for one in replicas if one.drained_s is not None and one.name not in names),
        remove=tuple(one.name for one in chosen if over(one)),
    )


def choose(replicas: Iterable[Replica], count: int) -> tuple[Replica, ...]:
    """So many that can best be spared: those that don't serve, those on their way out, idle ones, young ones."""
    left, chosen = list(replicas), []
    for _ in range(min(max(count, 0), len(left))):
        spare = min(_candidates(left), key=_worth)
        left.remove(spare)
        chosen.append(spare)
    return tuple(chosen)


def _candidates(replicas: Sequence[Replica]) -> Sequence[Replica]:
    """Those whose going keeps zones even, counting replicas that serve."""
    if any(not one.ready or one.drained_s is not None for one in replicas):
        return [one for one in replicas if not one.ready or one.drained_s is not None]
    zones = Counter(one.zone for one in replicas)
    most = max(zones.values())
    if most - min(zones.values()) <= MOST_APART:
        return replicas
    return [one for one in replicas if zones[one.zone] == most]


def _worth(one: Replica) -> tuple[bool, bool, float, float, str]:
    """How much is lost with it: more of what is or may be busy than of what is idle, more of old ones than of young."""
    busy = float("inf") if one.in_flight is None else one.in_flight
    return one.ready, one.drained_s is None, busy, -one.created, one.name
