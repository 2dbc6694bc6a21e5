"""ModelRelease (`mr`): a version of a model on its way to every customer of a ModelServer, through a canary.

The operator runs it. `status` is also what gateways read: which part of a service's requests goes to the candidate
(`weight`), and which part is sent to it as well, its answers thrown away (`mirror`). Both arms are ModelServers that
belong to the release; `fleet` names them as gateways do.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from switchboard.api._base import Api, Rule
from switchboard.api.conditions import Condition
from switchboard.api.model_server import Arm
from switchboard.api.schema import definition
from switchboard.kinds import MODEL_RELEASES as MODEL_RELEASES

GROUP, VERSION = MODEL_RELEASES.api_version.split("/")

Percent = Annotated[int, Field(ge=0, le=100)]
ModelVersion = Annotated[int, Field(ge=1)]
ServerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
"""Its arms' names are longer, and are names of ModelServers, too."""
FINALIZER = "switchboard.dev/release"
"""Before its promotion, a release that is deleted is one that is aborted: the traffic goes back first."""


class MetricName(StrEnum):
    """What is judged (`operators.canary.values.METRICS`)."""

    FAILED = "failed"
    SLOW = "slow"
    FALLBACK = "fallback"
    HANDOFF = "handoff"
    DISAGREED = "disagreed"
    RESTARTS = "restarts"
    GREW = "grew"


class Step(Api):
    """So many percent of the requests for so long; the last step lasts until there is a verdict."""

    weight: Annotated[int, Field(ge=1, le=100)]
    hold_seconds: Annotated[int, Field(ge=10, le=86_400)] = 60


class Shadow(Api):
    """Before the first customer: so many percent of the requests are sent to the candidate as well, for so long, and
    until enough of its answers were held against the champion's."""

    percent: Percent = 20
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 30

    @property
    def mirrors(self) -> bool:
        """Whether anything is sent to it at all."""
        return self.seconds > 0 and self.percent > 0


class Margin(Api):
    """What a metric is judged by, where it isn't by what is usual."""

    name: MetricName
    margin: Annotated[float, Field(gt=0, le=3600)] | None = None
    tolerated: Annotated[float, Field(ge=0, le=3600)] | None = None
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.margin) || !has(self.tolerated) || self.tolerated < self.margin",
            "what is tolerated is to be less than the margin",
            "tolerated",
        ),
    )

    @model_validator(mode="after")
    def _margin_is_more(self) -> Self:
        if self.margin is not None and self.tolerated is not None and self.tolerated >= self.margin:
            raise ValueError("what is tolerated is to be less than the margin")
        return self


class Order(StrEnum):
    """What a person decides. `Promote` waits for no verdict: from the start, a release begins at any traffic.
    `Rollback` is for a release that is promoted, as long as the old version is warm."""

    PROMOTE = "Promote"
    ABORT = "Abort"
    ROLLBACK = "Rollback"


_FIXED = ("server", "version", "steps", "shadow")
"""What has been done can't have been something else."""


class Spec(Api):
    """What is wanted. Without `steps` they are chosen by what the error budget allows."""

    server: ServerName
    version: ModelVersion
    steps: Annotated[tuple[Step, ...], Field(max_length=16)] = ()
    shadow: Shadow = Shadow()
    within_seconds: Annotated[int, Field(ge=60, le=604_800)] = 1800
    """Without a verdict by then it is inconclusive, and the traffic goes back."""
    keep_warm_seconds: Annotated[int, Field(ge=0, le=86_400)] = 600
    """So long after a promotion the old version stays as it is: to go back is a matter of a weight."""
    error_budget_percent: Annotated[float, Field(gt=0, le=100)] = 5.0
    """What a candidate that fails every request may cost, of the failures that a month's availability leaves."""
    metrics: Annotated[tuple[Margin, ...], Field(max_length=len(MetricName))] = ()
    paused: bool = False
    """The weight stays as it is, and nothing is promoted. Harm that is shown aborts all the same."""
    order: Order | None = None
    reason: Annotated[str, StringConstraints(max_length=512)] = ""
    """Why it is released, for the ledger."""
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.steps.map(one, one.weight).isSorted() && "
            "self.steps.all(one, self.steps.exists_one(other, other.weight == one.weight))",
            "the weights of steps are to rise",
            "steps",
        ),
        *(
            Rule(
                f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
                f"{name} can't be changed: a release of something else is another one",
                name,
            )
            for name in _FIXED
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        weights = [step.weight for step in self.steps]
        if any(later <= earlier for earlier, later in pairwise(weights)):
            raise ValueError("the weights of steps are to rise")
        return self


class Phase(StrEnum):
    """Where a release is."""

    PENDING = "Pending"
    """Another one of its server is under way."""
    REFUSED = "Refused"
    PREPARING = "Preparing"
    """The candidate is started, to the size that its first step needs."""
    SHADOW = "Shadow"
    CANARY = "Canary"
    PROMOTING = "Promoting"
    """The candidate gets the size of all traffic, and the registry is told."""
    WARM = "Warm"
    """All requests go to the candidate; the old version is kept warm."""
    SETTLING = "Settling"
    """The ModelServer itself gets the new version, without traffic; then it takes it, and the arms go."""
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    INCONCLUSIVE = "Inconclusive"

    @property
    def over(self) -> bool:
        """Nothing more happens."""
        return self in (Phase.REFUSED, Phase.PROMOTED, Phase.ROLLED_BACK, Phase.INCONCLUSIVE)


class Kind(Api):
    """A kind of request (an intent, a language), as both arms had it."""

    kind: Annotated[str, StringConstraints(max_length=63)]
    candidate_events: Annotated[float, Field(ge=0)]
    candidate_of: Annotated[float, Field(ge=0)]
    champion_events: Annotated[float, Field(ge=0)]
    champion_of: Annotated[float, Field(ge=0)]


class Compared(Api):
    """A metric, as both arms had it: events among so many, and what that says."""

    name: MetricName
    standing: Annotated[str, StringConstraints(max_length=16)]
    candidate_events: Annotated[float, Field(ge=0)]
    candidate_of: Annotated[float, Field(ge=0)]
    champion_events: Annotated[float, Field(ge=0)]
    champion_of: Annotated[float, Field(ge=0)]
    kinds: Annotated[tuple[Kind, ...], Field(max_length=64)] = ()
    """What can't be asked for again by who takes over."""


class Turn(Api):
    """A phase that was entered, when, and why."""

    at: datetime
    phase: Phase
    weight: Percent = 0
    sentence: Annotated[str, StringConstraints(max_length=1024)]


class Status(Api):
    """What there is. Gateways read `service`, `weight` and `mirror`; `begin` of a step is from when both arms count."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    phase: Phase = Phase.PENDING
    service: Annotated[str, StringConstraints(max_length=63)] = ""
    model: Annotated[str, StringConstraints(max_length=63)] = ""
    champion_version: ModelVersion | None = None
    steps: Annotated[tuple[Step, ...], Field(max_length=16)] = ()
    """Those that it goes, chosen or stated."""
    step: Annotated[int, Field(ge=0, le=16)] = 0
    """The step that it is at, from 1 on."""
    progress: Annotated[str, StringConstraints(max_length=16)] = ""
    """The same for people: `2/4`."""
    weight: Percent = 0
    mirror: Percent = 0
    started_at: datetime | None = None
    phase_at: datetime | None = None
    """When it came into its phase, or to its step."""
    compared_from: datetime | None = None
    """From when on both arms are compared: the candidate has warmed up."""
    verdict: Annotated[str, StringConstraints(max_length=16)] = ""
    sentence: Annotated[str, StringConstraints(max_length=1024)] = ""
    compared_seconds: Annotated[float, Field(ge=0)] = 0.0
    compared: Annotated[tuple[Compared, ...], Field(max_length=len(MetricName))] = ()
    turns: Annotated[tuple[Turn, ...], Field(max_length=64)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()


def arm_of(server: str, arm: Arm) -> str:
    """The name of the ModelServer that is an arm of a release of `server`."""
    return f"{server}-{arm}"


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of ModelReleases."""
    return definition(
        group=GROUP,
        version=VERSION,
        kind=MODEL_RELEASES.kind,
        plural=MODEL_RELEASES.plural,
        short_names=("mr",),
        spec=Spec,
        status=Status,
        columns=(
            ("Server", "string", ".spec.server"),
            ("Candidate", "integer", ".spec.version"),
            ("Phase", "string", ".status.phase"),
            ("Step", "string", ".status.progress"),
            ("Weight", "integer", ".status.weight"),
            ("Verdict", "string", ".status.verdict"),
            ("Reason", "string", ".status.sentence"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        rules=(
            Rule(
                "self.metadata.name.matches('^[a-z0-9-]{1,63}$')",
                "metadata.name has letters, digits and dashes, 63 at the most: it is a label of its arms",
                "metadata",
            ),
        ),
    )
