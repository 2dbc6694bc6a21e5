"""What runs in the sites: model servers, the images, MLflow's store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from infra.config._base import Count, Host, Image, Name, Quantity, Strict, more_than_none, strictly
from switchboard.api import model_server as api
from switchboard.api.model_server import EDGES_KEEP_ONE
from switchboard.api.scaling import Mode, Scaling
from switchboard.data import DataClass
from switchboard.podspec import Tier

KINDS = ("chat",)
"""The model servers that there are: each answers `/v1/<its name>` (see `serving.chat`)."""

PARTS = ("gateway", "mlflow", "operator", "training")
"""What else runs Switchboard's own image, by the names under which `images.overrides` gives it another."""

_CERTIFICATES = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Resources(api.Resources):
    """What one replica asks for and may use."""

    @field_validator("cpu", "cpu_limit", "memory", "memory_limit")
    @classmethod
    def _something(cls, value: str | None) -> str | None:
        return value if value is None else more_than_none(value)


@dataclass(frozen=True)
class Size:
    """How many replicas: by which scaling, and where an object begins (None: where its scaling puts it)."""

    scaling: Scaling
    replicas: int | None = None


def _fixed(replicas: int) -> Size:
    return Size(Scaling(min_replicas=replicas, max_replicas=replicas))


class ModelServer(Strict):
    """A model that is served: its registered name and alias, and how many replicas serve it.

    The model's name becomes part of a Job's name, so it is as Kubernetes allows them.
    """

    name: Name
    model: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    alias: str = Field(default="champion", pattern=r"^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$")
    scaling: Annotated[Scaling | None, strictly(Scaling)] = None
    """How it is sized in the core of each site; without, it has `replicas`, always."""
    replicas: Annotated[Count, Field(ge=1, le=1000)] | None = None
    """Without `scaling`, so many (2 where nothing is said); with it, where it begins, and its number while the mode is
    `shadow` or `paused`."""
    edge_scaling: Annotated[Scaling | None, strictly(Scaling)] = Field(default=None, alias="edgeScaling")
    """The same on each edge, where there is little room: without, it has `edgeReplicas`."""
    edge_replicas: Annotated[Count, Field(ge=0, le=20)] | None = Field(default=None, alias="edgeReplicas")
    """1 where nothing is said; 0: edges have none of their own."""
    capacity: Annotated[api.Capacity, strictly(api.Capacity)] = api.Capacity()
    """What a replica can take, and how long it takes to start."""
    max_concurrency: Annotated[Count, Field(ge=1, le=10_000)] | None = Field(
        default=None, alias="maxConcurrency"
    )
    """Short for `capacity.concurrency`."""
    resources: Resources = Resources()
    data_class: DataClass = Field(default=DataClass.CUSTOMER, alias="dataClass")
    """The most sensitive data that its requests carry."""
    data_regions: tuple[Name, ...] = Field(default=(), alias="dataRegions")
    """The regions in which that data may be."""
    availability_exception: str | None = Field(default=None, alias="availabilityException", min_length=10)
    """Why the core may do with fewer than two replicas, which `infra.policy` refuses otherwise."""

    @model_validator(mode="after")
    def _regions_are_stated(self) -> ModelServer:
        if self.data_class.bound_to_regions and not self.data_regions:
            raise ValueError(
                f"dataRegions is missing: {self.name} gets data of class {self.data_class}, "
                "which may be in stated regions only"
            )
        return self

    @model_validator(mode="after")
    def _numbers_agree(self) -> ModelServer:
        if self.edge_replicas == 0 and self.edge_scaling is not None:
            raise ValueError(
                "edgeReplicas 0 and edgeScaling: edges have none of their own, or they are scaled"
            )
        if self.edge_scaling is not None and self.edge_scaling.min_replicas == 0:
            raise ValueError(f"edgeScaling: {EDGES_KEEP_ONE}")
        for key, number, scaling in (
            ("", self.replicas, self.scaling),
            ("edge", self.edge_replicas, self.edge_scaling),
        ):
            if number is None or scaling is None:
                continue
            names = (f"{key}Replicas", f"{key}Scaling") if key else ("replicas", "scaling")
            if number > scaling.max_replicas:
                raise ValueError(
                    f"{names[0]} {number} is more than {names[1]}.maxReplicas {scaling.max_replicas}"
                )
            if scaling.mode is Mode.ACTIVE and number < scaling.min_replicas:
                raise ValueError(
                    f"{names[0]} {number} is less than {names[1]}.minReplicas {scaling.min_replicas}: "
                    "it is where scaling begins"
                )
        if self.max_concurrency is not None and "concurrency" in self.capacity.model_fields_set:
            raise ValueError("maxConcurrency is short for capacity.concurrency: keep one of the two")
        return self

    def size(self, tier: Tier) -> Size | None:
        """Its size in a site's core or on an edge; None where edges have none."""
        if tier == "core":
            return Size(self.scaling, self.replicas) if self.scaling else _fixed(self.replicas or 2)
        if self.edge_scaling is not None:
            return Size(self.edge_scaling, self.edge_replicas)
        number = 1 if self.edge_replicas is None else self.edge_replicas
        return _fixed(number) if number else None

    @property
    def on_edges(self) -> bool:
        return self.size("edge") is not None

    @property
    def takes(self) -> api.Capacity:
        """`capacity`, said at length."""
        short = {} if self.max_concurrency is None else {"concurrency": self.max_concurrency}
        return self.capacity.model_copy(update=short)

    @field_validator("name")
    @classmethod
    def _answered(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(
                f"{value!r} is no kind of model server: gateways route /v1/<name>, "
                f"and the service answers {', '.join(f'/v1/{kind}' for kind in KINDS)} only"
            )
        return value

    @field_validator("alias")
    @classmethod
    def _free_alias(cls, value: str) -> str:
        if value == "latest" or re.fullmatch(r"v[0-9]+", value):
            raise ValueError(f"the registry reserves the alias {value!r} for versions")
        return value


class Images(Strict):
    """The images that the stack runs. `overrides` gives one part of Switchboard's own (a model server by its name,
    or one of PARTS) another image than the rest, so that it alone can be changed."""

    switchboard: Image
    envoy: Image
    prometheus: Image
    alertmanager: Image
    overrides: dict[str, Image] = Field(default_factory=dict)


class Database(Strict):
    """A PostgreSQL database for MLflow's records; its password is a secret of the stack."""

    host: Host
    port: Annotated[Count, Field(ge=1, le=65535)] = 5432
    name: str = Field(default="mlflow", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    user: str = Field(default="mlflow", pattern=r"^[a-z_][a-z0-9_.-]{0,62}$")
    ca_certificate: str | None = Field(default=None, alias="caCertificate")
    """The PEM of who signed the server's certificate, where the image's own CAs didn't: certificates and nothing else,
    since a ConfigMap shows it to whoever may read those."""

    @field_validator("ca_certificate")
    @classmethod
    def _only_certificates(cls, value: str | None) -> str | None:
        from cryptography import x509  # here, since few stacks have one and many processes read a stack

        if value is None:
            return None
        if "PRIVATE KEY" in value:
            raise ValueError(
                "it holds a private key, which is for the server alone: give the certificate without it"
            )
        try:
            x509.load_pem_x509_certificates(value.encode())
        except ValueError:
            raise ValueError("it is no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
        if _CERTIFICATES.sub("", value).strip():
            raise ValueError("it holds more than certificates: take the rest out")
        return value


class Artifacts(Strict):
    """An S3-compatible bucket for MLflow's artifacts; its keys are secrets of the stack."""

    endpoint: str = Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,6})?$")
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    region: Name

    @field_validator("endpoint")
    @classmethod
    def _port(cls, value: str) -> str:
        try:
            valid = urlsplit(value).port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("its port must be from 1 to 65535")
        return value


class MlflowStore(Strict):
    """Where MLflow keeps its data: on a volume of this size in its site (one replica), or in a database and a bucket
    that exist."""

    storage: Quantity = "5Gi"
    database: Database | None = None
    artifacts: Artifacts | None = None
    replicas: Annotated[Count, Field(ge=1, le=10)] = 1

    @model_validator(mode="after")
    def _one_store(self) -> MlflowStore:
        if (self.database is None) != (self.artifacts is None):
            raise ValueError("`database` and `artifacts` come together: without both, all is on a volume")
        if self.database is not None and "storage" in self.model_fields_set:
            raise ValueError("`storage` is of a volume: with a database there is none")
        if self.database is None and self.replicas > 1:
            raise ValueError(
                f"{self.replicas} replicas need `database` and `artifacts`: one replica can use a volume"
            )
        return self
