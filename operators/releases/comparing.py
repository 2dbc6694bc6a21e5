"""What has been compared of a release so far, and what the judge says of it: asks Prometheus for what is new.

While requests are mirrored, the candidate stands beside the baseline, which is as young; from the first customer on it
stands beside all of the champion's warm replicas. Before all that, the champion's replicas are looked at for half an
hour, for how much they differ with nothing wrong. An operator that takes over asks for all of it once more.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from operators.canary.judge import Comparison, judge, summed
from operators.canary.values import METRICS, Block, Count, Judgement, Metric, kind_name
from operators.releases import counts
from operators.releases.answers import Joined
from operators.releases.counts import BLOCK_S, LATE_S, Blocks
from switchboard.api.model_release import MetricName, Phase, Spec, Status
from switchboard.api.model_server import Arm, fleet_of

BEFORE_S = 1800.0
SEEN_S = 60.0
"""A release is refused where there is no data of the champion for so long."""
MOST_STEPS = 360
"""Of a question; more is asked for in several."""

Ask = Callable[[str, float, float, int], Awaitable[list[dict[str, Any]] | str]]
"""A range query: its text, from when until when (s since the epoch), the step (s). A string says what was wrong."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which two fleets are compared; `end` is None for one that lasts. Without a `candidate` it is the
    champion that is looked at, alone."""

    start: float
    end: float | None
    candidate: str
    champion: str
    shadow: bool = False


def metrics_of(spec: Spec) -> tuple[Metric, ...]:
    """What a release is judged by: without mirrored requests nobody answers what another has answered."""
    given = {one.name: one for one in spec.metrics}
    found = []
    for metric in METRICS:
        if metric.name == MetricName.DISAGREED and not spec.shadow.mirrors:
            continue
        own = given.get(MetricName(metric.name))
        if own is not None:
            margin = own.margin if own.margin is not None else metric.margin
            tolerated = own.tolerated if own.tolerated is not None else min(metric.tolerated, margin / 2)
            metric = replace(metric, margin=margin, tolerated=tolerated)
        found.append(metric)
    return tuple(found)


def stretches(status: Status) -> tuple[Stretch, ...]:
    """What there is to compare in a release with this status, in order."""
    if status.started_at is None:
        return ()
    service, candidate = status.service, fleet_of(status.service, Arm.CANDIDATE)
    began = status.started_at.timestamp()
    found = [Stretch(began - BEFORE_S, began, "", service)]
    entered = [(turn.phase, turn.at.timestamp()) for turn in status.turns]
    shadow = next((at for phase, at in entered if phase is Phase.SHADOW), None)
    canary = next((at for phase, at in entered if phase is Phase.CANARY), None)
    over = next((at for phase, at in entered if phase.over or phase is Phase.WARM), None)
    if shadow is not None:
        end = canary if canary is not None else over
        found.append(Stretch(shadow, end, candidate, fleet_of(service, Arm.BASELINE), shadow=True))
    if canary is not None:
        found.append(Stretch(canary, over, candidate, service))
    return tuple(found)


class Comparing:
    """The comparison of one release, as far as it has come."""

    def __init__(self, spec: Spec) -> None:
        self.metrics = metrics_of(spec)
        self.comparison = Comparison()
        self.judgement: Judgement | None = None
        self.unseen: tuple[str, ...] | None = None
        """The metrics of which there is no data of the champion; None as long as nobody has said."""
        self._seen_at = -math.inf
        self._at: dict[float, float] = {}
        self._blocks: dict[float, Blocks] = {}
        self._held: tuple[dict[str, dict[str, Count]], dict[str, dict[str, Count]]] = ({}, {})

    def resume(self, status: Status) -> None:
        """Take from the status what can't be asked for again: who answered alike is known to replicas for minutes."""
        for one in status.compared:
            if one.name is MetricName.DISAGREED and one.candidate_of > 0:
                self.add_answers(
                    _before(
                        Count(one.candidate_events, one.candidate_of),
                        {kind.kind: Count(kind.candidate_events, kind.candidate_of) for kind in one.kinds},
                    ),
                    _before(
                        Count(one.champion_events, one.champion_of),
                        {kind.kind: Count(kind.champion_events, kind.champion_of) for kind in one.kinds},
                    ),
                    0.0,
                )

    def add_answers(self, candidate: Joined, champion: Joined, now: float) -> None:
        """Answers of either arm that were held against the customers'; what one arm alone has is kept for later."""
        for held, joined in zip(self._held, (candidate, champion), strict=True):
            for name, pods in _named(joined).items():
                held[name] = summed(held.get(name, {}), pods)
        mine, theirs = self._held
        both = [name for name in mine if name in theirs]
        block = Block(now, now, *({name: held.pop(name) for name in both} for held in self._held))
        self.comparison = self.comparison.add(block, self.metrics)

    async def see(self, ask: Ask, service: str, now: float) -> str | None:
        """Look what there is of a service's replicas, before its release; the answer is what hindered it.

        Not at each tick: a release may wait for its approval for days.
        """
        if 0 <= now - self._seen_at < BLOCK_S:
            return None
        end = math.floor((now - LATE_S) / BLOCK_S) * BLOCK_S
        answer = await ask(counts.query([service]), end - SEEN_S, end, BLOCK_S)
        if isinstance(answer, str):
            return answer
        self.unseen, self._seen_at = counts.unseen(counts.read(answer), service), now
        return None

    async def go_on(self, ask: Ask, status: Status, warm: Mapping[str, float], now: float) -> str | None:
        """Take in what is new by `now`; the answer is what hindered it.

        `warm`: since when each living pod counts (seconds since the epoch).
        """
        problem = None
        for one in stretches(status):
            if (problem := await self._follow(ask, one, warm, now)) is not None:
                break  # in order: what differs with nothing wrong is to be known first
        self.judgement = judge(self.comparison, self.metrics)
        return problem

    async def _follow(self, ask: Ask, stretch: Stretch, warm: Mapping[str, float], now: float) -> str | None:
        first = math.ceil(stretch.start / BLOCK_S) * BLOCK_S
        last = now - LATE_S if stretch.end is None else min(stretch.end, now - LATE_S)
        end = math.floor(last / BLOCK_S) * BLOCK_S
        begun = self._blocks.setdefault(
            stretch.start, Blocks(stretch.candidate, stretch.champion, shadow=stretch.shadow)
        )
        at = self._at.get(stretch.start, first - BLOCK_S)
        fleets = [one for one in (stretch.candidate, stretch.champion) if one]
        while at + BLOCK_S <= end:
            until = min(end, at + MOST_STEPS * BLOCK_S)
            asked = counts.query(fleets, shadow=stretch.shadow)
            answer = await ask(asked, at + BLOCK_S, until, BLOCK_S)
            if isinstance(answer, str):
                return answer
            for look in counts.read(answer):
                if (block := begun.add(look, warm)) is not None:
                    self._take(block, stretch)
            at = self._at[stretch.start] = until
        return None

    def _take(self, block: Block, stretch: Stretch) -> None:
        if stretch.candidate:
            self.comparison = self.comparison.add(block, self.metrics)
        else:
            self.comparison = self.comparison.before(block, self.metrics)


def _named(joined: Joined) -> dict[str, Mapping[str, Count]]:
    """As a block has it."""
    name = MetricName.DISAGREED.value
    found = {name: joined.pods, **{kind_name(name, kind): pods for kind, pods in joined.kinds.items()}}
    return {name: pods for name, pods in found.items() if pods}


def _before(whole: Count, kinds: Mapping[str, Count]) -> Joined:
    """What was joined by who led before; whose pods it was isn't known any more."""
    name = "(before)"
    return Joined({name: whole}, {kind: {name: count} for kind, count in kinds.items()})
