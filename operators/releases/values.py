"""What is known of a release at a moment, and what it wants to be there. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from operators.canary.plan import Traffic
from operators.canary.values import Judgement


@dataclass(frozen=True, slots=True)
class Running:
    """What runs of a ModelServer: replicas that are wanted, that serve, and whether all have the template that was
    asked for last. `trouble`: what keeps one from serving, if waiting won't mend it."""

    wanted: int
    ready: int
    current: bool
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the registry says of a candidate: its model, the version that is served now, why it can't be released."""

    model: str
    champion: int
    refusal: str | None = None


class Told(StrEnum):
    """What the registry and its ledger are to be told of a release."""

    NOTHING = "Nothing"
    PROMOTED = "Promoted"
    """`champion` is the candidate, `previous` the version before."""
    RETURNED = "Returned"
    """`champion` is the version before again."""
    ABORTED = "Aborted"
    """It was never promoted: `challenger` is gone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision is made of, beside the release itself.

    `problem`: why there can be no release of its ModelServer; `waits_for`: another release of it that is under way;
    `held`: why it may not go on now, by what the stack asks for; `failing_s`: for how long the candidate hasn't served,
    while the champion did; `checked` and `told` are None for what isn't known (yet); `settled`: the service's own
    replicas have the new version and serve; `traffic` is that of the service now, for a plan; `unseen` are the metrics
    of which there is no data of the champion (None: Prometheus hasn't said).
    """

    problem: str | None = None
    waits_for: str | None = None
    held: str | None = None
    service: str = ""
    champion: Running = Running(0, 0, False)
    candidate: Running | None = None
    failing_s: float = 0.0
    baseline: Running | None = None
    checked: Checked | None = None
    traffic: Traffic | None = None
    unseen: tuple[str, ...] | None = ()
    judgement: Judgement | None = None
    told: Told | None = None
    settled: bool = False
    deleted: bool = False
    start_s: float = 120.0
    """How long a replica may take to start."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be there: replicas at the least of either arm (None: the arm is to go), the version that the service's
    own replicas load (None: as it is), what the registry is to be told."""

    candidate: int | None = None
    baseline: int | None = None
    pin: int | None = None
    tell: Told = Told.NOTHING
