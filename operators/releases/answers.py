"""Whether both arms answer alike: answers to the same request, joined by its id. Pure values, bounded.

Gateways send a request to its replica and a copy to the arms, and throw the copies' answers away. Each replica says of
its last answers which request they were to and what they were (a digest). The champion's answer to the customer is what
both arms are held against: the candidate, and the baseline, which is the champion's version and so shows how often the
champion itself answers otherwise.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from operators.canary.values import Count

T = TypeVar("T")

MOST = 20_000
"""Answers of a fleet that wait for their like; the oldest are forgotten."""


class Answer(NamedTuple):
    """Which request it was to, what it was, and of which kinds the request is by it: its intent, its language."""

    request: str
    digest: str
    kinds: tuple[str, ...] = ()


class Joined(NamedTuple):
    """Of the answers of a fleet's pods that were held against the customers': those that are others, among so many; in
    all, and by the kind of the customer's answer."""

    pods: Mapping[str, Count]
    kinds: Mapping[str, Mapping[str, Count]]


NOTHING = Joined({}, {})


class Joins:
    """Of one release; `champion` names the fleet that answers customers."""

    def __init__(self, champion: str) -> None:
        self._champion = champion
        self._theirs: OrderedDict[str, Answer] = OrderedDict()
        self._waiting: dict[str, OrderedDict[str, tuple[str, str]]] = defaultdict(OrderedDict)
        self._found: dict[str, _Found] = defaultdict(_Found)

    def add(self, fleet: str, pod: str, answers: Iterable[Answer]) -> None:
        """What a pod of a fleet has answered. Of several answers to one request the last counts."""
        for one in answers:
            if fleet == self._champion:
                _put(self._theirs, one.request, one)
                for arm, waiting in self._waiting.items():
                    if (mine := waiting.pop(one.request, None)) is not None:
                        self._note(arm, *mine, one)
            elif (theirs := self._theirs.get(one.request)) is not None:
                self._note(fleet, pod, one.digest, theirs)
            else:
                _put(self._waiting[fleet], one.request, (pod, one.digest))

    def _note(self, fleet: str, pod: str, mine: str, theirs: Answer) -> None:
        found, other = self._found[fleet], mine != theirs.digest
        for counts in (found.pods, *(found.kinds[kind] for kind in theirs.kinds)):
            known = counts.get(pod, Count(0, 0))
            counts[pod] = Count(known.events + other, known.of + 1)

    def take(self) -> Mapping[str, Joined]:
        """By fleet, what was joined since this was last asked."""
        found, self._found = self._found, defaultdict(_Found)
        return {fleet: Joined(one.pods, dict(one.kinds)) for fleet, one in found.items()}


@dataclass
class _Found:
    pods: dict[str, Count] = field(default_factory=dict)
    kinds: dict[str, dict[str, Count]] = field(default_factory=lambda: defaultdict(dict))


def _put(into: OrderedDict[str, T], key: str, value: T) -> None:
    into[key] = value
    into.move_to_end(key)
    if len(into) > MOST:
        into.popitem(last=False)
