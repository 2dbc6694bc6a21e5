"""What the arms of a service's release get of its requests, as pure functions of the ModelReleases.

An arm is a fleet of its own, `<service>_candidate` or `<service>_baseline`, and no service: it is reached by its
service's route alone. The operator says in a release's status how many percent go to the candidate (`weight`), and how
many are sent to both arms as well, for the sake of comparison (`mirror`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from switchboard.kube import Object

CANDIDATE, BASELINE = "candidate", "baseline"
"""As `switchboard.api.model_server.Arm` has them, which takes pydantic (15 MB)."""
_OVER = ("Refused", "Promoted", "RolledBack", "Inconclusive")
"""Phases after which nothing more happens (`switchboard.api.model_release.Phase`)."""

LINGER_S = 30.0
"""An arm's clusters stay for so long after its last pod: a request under way may still be tried again, for 10 s."""


@dataclass(frozen=True, order=True)
class Release:
    """What a release that is under way gives to its candidate, in percent of the service's requests."""

    service: str
    weight: int = 0
    mirror: int = 0


def fleet_of(service: str, arm: str) -> str:
    """The name of an arm's fleet."""
    return f"{service}_{arm}"


def arm_of(fleet: str) -> tuple[str, str] | None:
    """The service and the arm that a fleet is, None where it is a service's own.

    >>> arm_of("chat_candidate"), arm_of("chat")
    (('chat', 'candidate'), None)
    """
    service, _, arm = fleet.rpartition("_")
    return (service, arm) if service and arm in (CANDIDATE, BASELINE) else None


def parse(obj: Object) -> Release | None:
    """None where the release is over or says nothing of use: its word is another program's, and may be anything."""
    status = _mapping(obj.get("status"))
    service = status.get("service")
    if not isinstance(service, str) or not service or status.get("phase") in _OVER:
        return None
    return Release(service, _percent(status.get("weight")), _percent(status.get("mirror")))


def releases(objects: Iterable[Object]) -> tuple[Release, ...]:
    """One for each service: where there are several under way, the one that has requests."""
    found: dict[str, Release] = {}
    for one in sorted(made for obj in objects if (made := parse(obj)) is not None):
        other = found.get(one.service)
        if other is None or (one.weight, one.mirror) > (other.weight, other.mirror):
            found[one.service] = one
    return tuple(found[service] for service in sorted(found))


class Lingering:
    """Arms whose last pod has gone, for as long as their clusters stay. The time is passed in."""

    def __init__(self, arms: Iterable[str], now: float) -> None:
        self._seen = dict.fromkeys(arms, now)

    def look(self, there: Iterable[str], now: float) -> tuple[frozenset[str], float | None]:
        """Those that stay though they aren't `there` any more, and how long it is until the next one goes."""
        there = frozenset(there)
        gone = {arm: at for arm, at in self._seen.items() if arm not in there and now - at < LINGER_S}
        self._seen = gone | dict.fromkeys(there, now)
        return frozenset(gone), min((at + LINGER_S - now for at in gone.values()), default=None)


def _percent(value: Any) -> int:
    """Nothing goes to a candidate by a number that can't be meant."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100 else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
