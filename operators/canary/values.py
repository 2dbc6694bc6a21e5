"""What the judge takes and gives: counts of both arms in the same minutes, the metrics' margins, and a verdict.

A verdict is a record: what was seen of each metric, what that says, and one sentence why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

ALPHA = 0.05
"""The chance of a wrong abort that all metrics share, at worst; and of a wrong promotion, for each."""


NO_POD = "(no replica)"
"""In place of a pod's name: requests of an arm that none of its pods took. They are no sign of how pods differ."""


BOUND_S = "0.3"
"""The service level of an answer, as the bucket of its histogram is named."""
WINDOW_S = 20.0
"""A pod's memory is looked at so often: a canary with one pod has few minutes, but many of these."""


class Unit(StrEnum):
    """Of what a metric's events are counted."""

    REQUESTS = "requests"
    POD_WINDOWS = "times 20 s of a pod"
    POD_HOURS = "hours of a pod"

    def of(self, seconds: float) -> float:
        """So many seconds of a pod in this unit.

        Raises:
            KeyError: it is no unit of time.
        """
        return seconds / {Unit.POD_WINDOWS: WINDOW_S, Unit.POD_HOURS: 3600.0}[self]


@dataclass(frozen=True, slots=True)
class Kinds:
    """How each kind of request (an intent, a language) is judged by itself too: what is wrong with one of twenty is
    lost in the sum of all.

    `share` of the metric's own is spent on them, in equal parts for `most` kinds. One that has had `some` events has to
    be shown safe before a promotion; those that are too rare for that don't hinder it.
    """

    share: float
    most: int
    margin: float
    tolerated: float
    some: int = 3


@dataclass(frozen=True, slots=True)
class Metric:
    """What is judged. `share` of `ALPHA` is what it may spend on a wrong abort.

    `margin`: a candidate whose rate exceeds the champion's by so much is not promoted; `tolerated`: one whose rate
    exceeds it by no more is not harmful (a new model is to answer some questions in another way). `quiet`: how likely
    it is that a good candidate has no event at all (`evidence.log_safe`).
    """

    name: str
    what: str
    share: float
    margin: float
    tolerated: float = 0.0
    unit: Unit = Unit.REQUESTS
    quiet: float = 0.03
    kinds: Kinds | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"{self.name}: share {self.share:g} is not within 0 and 1")
        if not 0 <= self.tolerated < self.margin:
            raise ValueError(f"{self.name}: margin {self.margin:g} is to be more than what is tolerated")

    @property
    def of_all(self) -> Metric:
        """The same for all requests together: what its kinds may spend isn't its own."""
        if self.kinds is None:
            return self
        return replace(self, share=self.share * (1 - self.kinds.share))

    def of_kind(self, kind: str) -> Metric:
        """The same for one kind of request.

        Raises:
            ValueError: the metric isn't judged by kinds.
        """
        if self.kinds is None:
            raise ValueError(f"{self.name} is not judged by kinds")
        return replace(
            self,
            what=f"{self.what} ({kind})",
            share=self.share * self.kinds.share / self.kinds.most,
            margin=max(self.margin, self.kinds.margin),
            tolerated=max(self.tolerated, self.kinds.tolerated),
            kinds=None,
        )

    def said(self, rate: float) -> str:
        """A rate in words."""
        return f"{rate:.3g} an hour" if self.unit is Unit.POD_HOURS else f"{rate * 100:.3g} %"


KINDS = Kinds(share=0.5, most=32, margin=0.5, tolerated=0.25)
"""A new model may answer a quarter of an intent's questions in another way, and some intents are asked rarely."""

METRICS = (
    Metric("failed", "requests failed", 0.25, 0.005),
    Metric("slow", "requests over the latency bound", 0.03, 0.01),
    Metric("fallback", "fallback answers", 0.02, 0.02),
    Metric("handoff", "hand-offs to a person", 0.05, 0.03),
    Metric("disagreed", "answers other than the champion's", 0.15, 0.15, tolerated=0.1, kinds=KINDS),
    Metric("restarts", "restarts", 0.4, 60.0, unit=Unit.POD_HOURS, quiet=0.5),
    Metric("grew", "times 20 s in which a pod's memory grew", 0.1, 0.5, unit=Unit.POD_WINDOWS),
)
"""Those that are judged where a release says nothing else. Rare events get the larger shares: it is there that the
minutes until harm is shown depend on them. Of the others enough is seen in a minute or two: a larger share would gain
seconds, for more wrong aborts where pods differ. Not so of hand-offs, whose margin is less than half of their rate:
pods may well differ by so much, and the share decides whether such a harm is shown at all."""

USUAL: Mapping[str, float] = {
    "failed": 0.005,
    "slow": 0.01,
    "fallback": 0.03,
    "handoff": 0.08,
    "disagreed": 0.001,
    "restarts": 0.02,
    "grew": 0.02,
}
"""A champion's rates, by metric, where they aren't known."""


@dataclass(frozen=True, slots=True)
class Count:
    """Events among so many of the metric's unit."""

    events: float
    of: float


@dataclass(frozen=True, slots=True)
class Block:
    """Some seconds of both arms: of each metric, each warm pod's count, and that of each kind of request, by the name
    that `kind_name` gives. `noise`: the champion's pods' own counts, where
    it isn't `champion` that says how they differ."""

    start_s: float
    end_s: float
    candidate: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    champion: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)
    noise: Mapping[str, Mapping[str, Count]] = field(default_factory=dict)


def kind_name(metric: str, kind: str) -> str:
    """Under which a block has the counts of one kind of request."""
    return f"{metric}/{kind}"


def by_kind(named: Mapping[str, T], metric: str) -> dict[str, T]:
    """Of what is there by name, that of a metric's kinds of request, by the kind."""
    begin = kind_name(metric, "")
    return {name.removeprefix(begin): one for name, one in named.items() if name.startswith(begin)}


class Verdict(StrEnum):
    PROMOTE = "Promote"
    ABORT = "Abort"
    CONTINUE = "Continue"
    INCONCLUSIVE = "Inconclusive"
    """There won't be more to see, and neither was shown."""


class Standing(StrEnum):
    """What a metric says so far."""

    HARMFUL = "Harmful"
    SAFE = "Safe"
    OPEN = "Open"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A metric's part of a verdict; `log_harm` and `log_safe` are logarithms of evidence (see `evidence`)."""

    metric: Metric
    standing: Standing
    candidate: Count
    champion: Count
    log_harm: float
    log_safe: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, why, and what it rests on: `seconds` in which both arms were compared."""

    verdict: Verdict
    sentence: str
    findings: tuple[Finding, ...]
    seconds: float
    kinds: Mapping[str, tuple[Count, Count]] = field(default_factory=dict)
    """Of each kind of request that was looked at, by its `kind_name`, the candidate's count and the champion's."""
