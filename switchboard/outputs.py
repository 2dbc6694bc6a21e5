"""What a stack tells other tools once it is applied: `pulumi stack output --json`, as types.

    StackOutputs.parse(subprocess.check_output(["pulumi", "stack", "output", "--json", "--stack", "staging"]))

Addresses are URLs without a path (`http://127.96.3.4:8080`). Keys may be added; those that are here stay.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from switchboard.data import DataClass
from switchboard.errors import SwitchboardError


class _Output(BaseModel):
    """Keys are in camelCase, as Kubernetes' are; a key of a newer program is no error to an older reader."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, alias_generator=to_camel, extra="ignore")


class SiteOutputs(_Output):
    """A site: how kubectl gets there, and where its parts are reached."""

    role: Literal["private", "public"]
    region: str
    namespace: str
    """Switchboard's namespace in it."""
    context: str
    """Of kubectl."""
    kubeconfig: str | None = None
    """The file with that context; None: kubectl's own."""
    prometheus: str
    gateway: str | None = None
    """Of a public site."""
    release_key: str | None = None
    """Of a public site: the public key (Ed25519, base64) by which the evidence of its releases is signed."""
    edges: dict[str, str] = Field(default_factory=dict)
    """Of a public site: the gateway of each edge region."""
    mlflow: str | None = None
    """Of the private site."""
    alertmanager: str | None = None
    """Of the private site."""


class Endpoints(_Output):
    """The same addresses by what they are for: gateways by site, edges by region."""

    gateways: dict[str, str]
    edges: dict[str, str] = Field(default_factory=dict)
    mlflow: str
    prometheus: str
    """The one that federates the others."""
    alertmanager: str


class ModelServerOutputs(_Output):
    """A model server: its route at every gateway, what it serves, where, and the data that it gets."""

    path: str
    model: str
    alias: str
    image: str
    sites: tuple[str, ...]
    edges: tuple[str, ...] = ()
    data_class: DataClass
    data_regions: tuple[str, ...] = ()


class StackOutputs(_Output):
    """All outputs of a stack."""

    endpoints: Endpoints
    sites: dict[str, SiteOutputs]
    model_servers: dict[str, ModelServerOutputs]

    @classmethod
    def parse(cls, text: str | bytes) -> StackOutputs:
        """From what `pulumi stack output --json` prints.

        Raises:
            SwitchboardError: it isn't that, or the stack was never applied.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SwitchboardError(
                f"these are not the outputs of a stack that was applied: {where or 'they'}: {first['msg']}",
                "`pulumi up` applies it; `pulumi stack output --json` prints its outputs",
            ) from None
