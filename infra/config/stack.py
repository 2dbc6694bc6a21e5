"""The whole of a stack, and how its values become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from infra.config._base import Count, Host, Strict
from infra.config.servers import PARTS, Images, MlflowStore, ModelServer
from infra.config.sites import Site
from switchboard.errors import SwitchboardError

PROJECT = "switchboard"

SECRETS = {
    "mlflowDatabasePassword": "the password of MLflow's database user",
    "mlflowArtifactsAccessKey": "the access key of MLflow's bucket",
    "mlflowArtifactsSecretKey": "the secret key of MLflow's bucket",
}
"""Keys of the stack file whose values Pulumi encrypts, and what they are."""


def set_secret(key: str) -> str:
    """The command that sets a secret of the current stack; it asks for the value, so that no shell remembers it."""
    return f"pulumi config set --secret {PROJECT}:{key}"


class Stack(Strict):
    """One stack of Switchboard, as its stack file says."""

    sites: Annotated[tuple[Site, ...], Field(min_length=2)]
    images: Images
    model_servers: Annotated[tuple[ModelServer, ...], Field(min_length=1, alias="modelServers")]
    mlflow: MlflowStore = MlflowStore()
    gateway_replicas: Annotated[Count, Field(ge=1, le=100, alias="gatewayReplicas")] = 1
    storage_class: str | None = Field(default=None, alias="storageClass")
    domain: Host | None = None
    """The DNS zone in which external-dns keeps the addresses of the sites' Services; without it they are known by the
    addresses that their load balancers get."""
    networks: Annotated[tuple[IPv4Network, ...], Field(min_length=1)] = (
        IPv4Network("10.0.0.0/8"),
        IPv4Network("172.16.0.0/12"),
        IPv4Network("192.168.0.0/16"),
    )
    """The bank's networks: its sites' nodes, load balancers and API servers, MLflow's database and bucket, and people.
    From them MLflow and monitoring are reached, to them pods may go (see `infra.components.network`)."""
    secrets_set: frozenset[str] = frozenset()
    """Which of SECRETS the stack file holds, encrypted; their values are for the Pulumi program alone."""

    @field_validator("gateway_replicas", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """A number as text is one here: `pulumi config set` rewrites the file, and with it each number at its top."""
        return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value

    @model_validator(mode="after")
    def _consistent(self) -> Stack:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("site names must be unique")
        roles = [site.role for site in self.sites]
        if roles.count("private") != 1:
            raise ValueError(f"exactly one site must be private, there are {roles.count('private')}")
        if "public" not in roles:
            raise ValueError("at least one site must be public")
        servers = [server.name for server in self.model_servers]
        if len(set(servers)) != len(servers):
            raise ValueError("modelServers must have unique names")
        if unknown := sorted(set(self.images.overrides) - {*PARTS, *servers}):
            raise ValueError(
                f"images.overrides names {unknown[0]!r}, which is none of {', '.join([*PARTS, *servers])}"
            )
        if twice := _twice([edge.region for site in self.sites for edge in site.edges]):
            raise ValueError(f"edge region {twice} is in two sites: an edge is known by its region")
        if twice := _twice([f"{site.name}-{name}" for site in self.sites for name in self.workloads(site)]):
            raise ValueError(
                f"two workloads would have the name {twice}: rename a site, server or edge region"
            )
        ranges = [
            net
            for site in self.sites
            if site.embedded
            for net in (site.embedded.network, site.embedded.services)
        ]
        for index, one in enumerate(ranges):
            for other in ranges[index + 1 :]:
                if one.overlaps(other):
                    raise ValueError(
                        f"ranges {one} and {other} overlap: every range of every site is its own"
                    )
        return self

    def workloads(self, site: Site) -> tuple[str, ...]:
        """The names of all that runs in a site for longer than a Job; none may be there twice."""
        if site.role == "private":
            return ("mlflow", "alertmanager", "prometheus")
        servers = [server.name for server in self.model_servers]
        edges = [f"{name}-{edge.region}" for edge in site.edges for name in ("gateway", *servers)]
        return ("gateway", "prometheus", *servers, *edges)

    def image(self, part: str) -> str:
        """The image of a part of Switchboard's own: a model server's name, or one of PARTS."""
        return self.images.overrides.get(part, self.images.switchboard)

    @property
    def secrets_needed(self) -> tuple[str, ...]:
        """Which of SECRETS the stack can't be without."""
        return tuple(SECRETS) if self.mlflow.database is not None else ()

    @property
    def embedded(self) -> bool:
        """Whether all of its sites are of the embedded cloud."""
        return all(site.embedded is not None for site in self.sites)

    @property
    def private(self) -> Site:
        return next(site for site in self.sites if site.role == "private")

    @property
    def public(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.role == "public")

    def site(self, name: str) -> Site:
        """The site of that name.

        Raises:
            SwitchboardError: where there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise SwitchboardError(
            f"no site {name!r} in this stack: it has {', '.join(s.name for s in self.sites)}"
        )


def _twice(names: list[str]) -> str | None:
    return next((name for name, count in sorted(Counter(names).items()) if count > 1), None)


_KEYS = {field.alias or name for name, field in Stack.model_fields.items()} - {"secrets_set"}


def parse(values: Mapping[str, Any], source: str) -> Stack:
    """The stack from its configuration values (keys without the project's prefix).

    Raises:
        SwitchboardError: one line for the first wrong key or value, naming `source`, the key and the reason.
    """
    if unknown := sorted(set(values) - _KEYS - set(SECRETS)):
        raise SwitchboardError(
            f"{source}: unknown key {PROJECT}:{unknown[0]}; known are {', '.join(sorted({*_KEYS, *SECRETS}))}"
        )
    found = {key for key in SECRETS if key in values}
    for key in sorted(found):
        if not (isinstance(values[key], Mapping) and set(values[key]) == {"secure"}):
            raise SwitchboardError(
                f"{source}: {PROJECT}:{key}: a secret in clear: take it out and change it where it is used",
                f"set the new one by `{set_secret(key)}`, which encrypts it",
            )
    plain = {key: value for key, value in values.items() if key not in SECRETS}
    try:
        return Stack.model_validate({**plain, "secrets_set": found})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        where = where.removeprefix(".")
        reason = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] in ("missing", "value_error") else f" (it is {_short(first['input'])})"
        key = f"{PROJECT}:{where}" if where else PROJECT
        raise SwitchboardError(f"{source}: {key}: {reason}{got}") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
