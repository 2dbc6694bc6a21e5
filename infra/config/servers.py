"""What runs in the sites: model servers, the images, MLflow's store."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from infra.config._base import Count, Host, Image, Name, Quantity, Strict
from switchboard import quantities
from switchboard.data import DataClass

KINDS = ("chat",)
"""The model servers that there are: each answers `/v1/<its name>` (see `serving.chat`)."""

PARTS = ("gateway", "mlflow", "training")
"""What else runs Switchboard's own image, by the names under which `images.overrides` gives it another."""

_CERTIFICATES = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Resources(Strict):
    """What one replica asks for and may use."""

    cpu: Quantity = "250m"
    cpu_limit: Quantity | None = Field(default=None, alias="cpuLimit")
    memory: Quantity = "512Mi"
    memory_limit: Quantity = Field(default="1Gi", alias="memoryLimit")

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> Resources:
        for key, request, limit in (
            ("cpu", self.cpu, self.cpu_limit),
            ("memory", self.memory, self.memory_limit),
        ):
            if limit is not None and quantities.parse(limit) < quantities.parse(request):
                raise ValueError(
                    f"{key}Limit {limit} is below {key} {request}: a replica may use what it asks for"
                )
        return self


class ModelServer(Strict):
    """A model that is served: its registered name and alias, and how many replicas serve it.

    The model's name becomes part of a Job's name, so it is as Kubernetes allows them.
    """

    name: Name
    model: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    alias: str = Field(default="champion", pattern=r"^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$")
    replicas: Annotated[Count, Field(ge=1, le=1000)] = 2
    edge_replicas: Annotated[Count, Field(ge=0, le=20, alias="edgeReplicas")] = 1
    max_concurrency: Annotated[Count, Field(ge=1, le=10_000, alias="maxConcurrency")] = 32
    resources: Resources = Resources()
    data_class: DataClass = Field(default=DataClass.CUSTOMER, alias="dataClass")
    """The most sensitive data that its requests carry."""
    data_regions: tuple[Name, ...] = Field(default=(), alias="dataRegions")
    """The regions in which that data may be."""

    @model_validator(mode="after")
    def _regions_are_stated(self) -> ModelServer:
        if self.data_class.bound_to_regions and not self.data_regions:
            raise ValueError(
                f"dataRegions is missing: {self.name} gets data of class {self.data_class}, "
                "which may be in stated regions only"
            )
        return self

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
