"""ModelServer (`ms`): which model is served, by which image with which resources, where, and how it is sized.

The operator owns what runs of it. `spec.replicas` (which `kubectl scale` sets) is the number with which it begins. In
the modes `shadow` and `paused` it is followed when somebody changes it; a change of mode itself changes no number.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from switchboard import quantities
from switchboard.api._base import Api, Rule
from switchboard.api.conditions import Condition
from switchboard.api.scaling import MOST_REPLICAS, Mode, Replicas, Scaling
from switchboard.api.schema import definition
from switchboard.data import DataClass
from switchboard.kinds import MODEL_SERVERS as MODEL_SERVERS

GROUP, VERSION = MODEL_SERVERS.api_version.split("/")

LABEL = "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
Label = Annotated[str, StringConstraints(pattern=LABEL)]
Quantity = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=24)
]
MOST_DECISIONS = 10
"""So many of the last decisions are in the status."""


class Model(Api):
    """A registered model: the version that an alias means, or one version."""

    name: Label
    registry: Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=512)] | None = None
    """The address of the MLflow server that has it."""
    alias: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$")] | None = None
    version: Annotated[int, Field(ge=1)] | None = None
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.alias) != has(self.version)",
            "one of alias and version says which model is served",
            "alias",
        ),
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.alias is None) == (self.version is None):
            raise ValueError("one of alias and version says which model is served")
        return self

    @property
    def uri(self) -> str:
        """As MLflow names it."""
        return f"models:/{self.name}/{self.version}" if self.version else f"models:/{self.name}@{self.alias}"


class Capacity(Api):
    """What a replica can take. What isn't stated is measured."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 32
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    start_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a replica takes to serve, until it has been measured."""
    hedge_milliseconds: Annotated[int, Field(ge=10, le=3000)] | None = None
    """What a replica hasn't answered by then, gateways put to another one as well; the first answer counts."""


class Resources(Api):
    """What a replica asks for and may use."""

    cpu: Quantity = "250m"
    cpu_limit: Quantity | None = None
    memory: Quantity = "512Mi"
    memory_limit: Quantity = "1Gi"
    rules: ClassVar[tuple[Rule, ...]] = tuple(
        Rule(
            f"!has(self.{key}Limit) || quantity(self.{key}).compareTo(quantity(self.{key}Limit)) <= 0",
            f"{key}Limit is below {key}: a replica may use what it asks for",
            f"{key}Limit",
        )
        for key in ("cpu", "memory")
    )

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> Self:
        for key, asked, limit in (
            ("cpu", self.cpu, self.cpu_limit),
            ("memory", self.memory, self.memory_limit),
        ):
            if limit is not None and quantities.parse(limit) < quantities.parse(asked):
                raise ValueError(
                    f"{key}Limit {limit} is below {key} {asked}: a replica may use what it asks for"
                )
        return self


EDGES_KEEP_ONE = (
    "minReplicas 0 is for the core: an edge that is cut off could start no replica when it needs one"
)


class Placement(Api):
    """Where it may run: in the core of its site or on the edge nodes of a region."""

    tier: Literal["core", "edge"] = "core"
    region: Label | None = None
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.tier == 'edge') == has(self.region)",
            "an edge has a region, and nothing else does",
            "region",
        ),
    )

    @model_validator(mode="after")
    def _edges_have_regions(self) -> Self:
        if (self.tier == "edge") != (self.region is not None):
            raise ValueError("an edge has a region, and nothing else does")
        return self


class Cache(Api):
    """The volume for copies of models, which the replicas share; in the core, of a class that many nodes can mount."""

    storage_class: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    size: Quantity = "1Gi"


class Arm(StrEnum):
    """Which side of a release's comparison a ModelServer is, beside the one that is released to."""

    CANDIDATE = "candidate"
    BASELINE = "baseline"


def fleet_of(service: str, arm: Arm | None) -> str:
    """By which name gateways know the replicas of a service, or of an arm of its release; no service has it."""
    return service if arm is None else f"{service}_{arm}"


class Spec(Api):
    """What is wanted. `service` is what answers, at `/v1/<service>`: by default what the object's name says. `arm`: it
    answers that part of the service's requests which a release gives it."""

    model: Model
    service: Label | None = None
    arm: Arm | None = None
    image: Annotated[str, StringConstraints(pattern=r"^\S+$", min_length=1, max_length=512)]
    replicas: Replicas | None = None
    capacity: Capacity = Capacity()
    resources: Resources = Resources()
    placement: Placement = Placement()
    cache: Cache = Cache()
    service_account_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "default"
    data_class: DataClass = DataClass.CUSTOMER
    data_regions: Annotated[tuple[Label, ...], Field(max_length=64)] = ()
    scaling: Scaling
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.dataClass in ['customer', 'restricted']) || size(self.dataRegions) > 0",
            "data of the classes customer and restricted may be in stated regions only",
            "dataRegions",
        ),
        Rule(
            "!has(self.replicas) || self.replicas <= self.scaling.maxReplicas",
            "replicas is more than scaling.maxReplicas",
            "replicas",
        ),
        Rule(
            "self.placement.tier != 'edge' || self.scaling.minReplicas > 0",
            EDGES_KEEP_ONE,
            "scaling.minReplicas",
        ),
        # Replicas are found by what they answer and where: with another, the old ones would be nobody's.
        Rule(
            "has(self.service) == has(oldSelf.service) && (!has(self.service) || self.service == oldSelf.service)",
            "service can't be changed: delete the ModelServer and make another",
            "service",
        ),
        Rule(
            "has(self.arm) == has(oldSelf.arm) && (!has(self.arm) || self.arm == oldSelf.arm)",
            "arm can't be changed: delete the ModelServer and make another",
            "arm",
        ),
        Rule(
            "self.placement == oldSelf.placement",
            "placement can't be changed: delete the ModelServer and make another",
            "placement",
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data_class.bound_to_regions and not self.data_regions:
            raise ValueError(f"data of class {self.data_class} may be in stated regions only")
        if self.replicas is not None and self.replicas > self.scaling.max_replicas:
            raise ValueError(f"replicas {self.replicas} is more than maxReplicas {self.scaling.max_replicas}")
        if self.placement.tier == "edge" and self.scaling.min_replicas == 0:
            raise ValueError(EDGES_KEEP_ONE)
        return self

    def service_of(self, name: str) -> str:
        """What the ModelServer `name` answers."""
        return self.service or name

    def fleet_of(self, name: str) -> str:
        """By which name gateways know its replicas."""
        return fleet_of(self.service_of(name), self.arm)


class LastDecision(Api):
    """A decision of the policy, for people; `sentence` says why."""

    at: datetime
    before: Annotated[int, Field(ge=0, le=MOST_REPLICAS)]
    wanted: Annotated[int, Field(ge=0, le=MOST_REPLICAS)]
    sentence: Annotated[str, StringConstraints(max_length=1024)]


class Status(Api):
    """What there is. `replicas` and `selector` are for the scale subresource; `load` is a share of the capacity."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    mode: Mode | None = None
    revision: str | None = None
    replicas: Replicas = 0
    ready_replicas: Replicas = 0
    desired_replicas: Replicas = 0
    requested_replicas: Replicas | None = None
    """`spec.replicas` as it was followed last, or passed over in the mode `active`."""
    selector: str | None = None
    load: str | None = None
    last_decisions: Annotated[tuple[LastDecision, ...], Field(max_length=MOST_DECISIONS)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()


NAMES = (
    Rule(
        "self.metadata.name.matches('^[a-z0-9-]{1,52}$')",
        "metadata.name has letters, digits and dashes, 52 at the most: its replicas' names begin with it",
        "metadata",
    ),
    Rule(
        f"has(self.spec.service) || self.metadata.name.matches('{LABEL}')",
        "metadata.name is what is answered where spec.service isn't stated: 32 letters, digits and dashes at the most",
        "metadata",
    ),
)
"""What a ModelServer may be called."""


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of ModelServers."""
    return definition(
        group=GROUP,
        version=VERSION,
        kind=MODEL_SERVERS.kind,
        plural=MODEL_SERVERS.plural,
        short_names=("ms",),
        spec=Spec,
        status=Status,
        columns=(
            ("Model", "string", ".spec.model.name"),
            ("Revision", "string", ".status.revision"),
            ("Ready", "integer", ".status.readyReplicas"),
            ("Desired", "integer", ".status.desiredReplicas"),
            ("Load", "string", ".status.load"),
            ("Mode", "string", ".spec.scaling.mode"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        scale=(".spec.replicas", ".status.replicas", ".status.selector"),
        rules=NAMES,
    )
