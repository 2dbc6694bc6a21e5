"""ModelServer (`ms`): which model is served, by which image with which resources, where, and how it is sized.

The operator owns what runs of it. `spec.replicas` is the number in the modes `shadow` and `paused` (it is what
`kubectl scale` sets), and where `active` begins.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from switchboard import quantities
from switchboard.api._base import Api, Rule
from switchboard.api.conditions import Condition
from switchboard.api.scaling import MOST_REPLICAS, Mode, Replicas, Scaling
from switchboard.api.schema import definition
from switchboard.data import DataClass
from switchboard.kinds import Kind
from switchboard.labels import DOMAIN

VERSION = "v1alpha1"
MODEL_SERVERS = Kind(f"{DOMAIN}/{VERSION}", "modelservers", "ModelServer")

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
Quantity = Annotated[
    str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=24)
]
MOST_DECISIONS = 10
"""So many of the last decisions are in the status."""


class Model(Api):
    """A registered model: the version that an alias means, or one version."""

    name: Label
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


class Spec(Api):
    """What is wanted."""

    model: Model
    image: Annotated[str, StringConstraints(pattern=r"^\S+$", min_length=1, max_length=512)]
    replicas: Replicas | None = None
    capacity: Capacity = Capacity()
    resources: Resources = Resources()
    placement: Placement = Placement()
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
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data_class.bound_to_regions and not self.data_regions:
            raise ValueError(f"data of class {self.data_class} may be in stated regions only")
        if self.replicas is not None and self.replicas > self.scaling.max_replicas:
            raise ValueError(f"replicas {self.replicas} is more than maxReplicas {self.scaling.max_replicas}")
        return self


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
    selector: str | None = None
    load: str | None = None
    last_decisions: Annotated[tuple[LastDecision, ...], Field(max_length=MOST_DECISIONS)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32)] = ()


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of ModelServers."""
    return definition(
        group=DOMAIN,
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
    )
