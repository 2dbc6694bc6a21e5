"""The whole of a stack, and how its values become one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from infra.config._base import Count, Host, Strict
from infra.config.people import Person
from infra.config.servers import PARTS, Images, MlflowStore, ModelServer
from infra.config.sites import Site
from switchboard.errors import SwitchboardError
from switchboard.releases import ReleasePolicy

PROJECT = "switchboard"

WIDEST_NETWORK = 8
"""The shortest prefix that `networks` may have: that of the widest private network, 10.0.0.0/8."""

StorageClass = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""The name of a StorageClass, as Kubernetes allows them."""

SECRETS = {
    "mlflowDatabasePassword": "the password of MLflow's database user",
    "mlflowArtifactsAccessKey": "the access key of MLflow's bucket",
    "mlflowArtifactsSecretKey": "the secret key of MLflow's bucket",
    "mlflowUserKey": "what the passwords of MLflow's users are made of (`openssl rand -base64 32`)",
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
    mlflow_users: tuple[Person, ...] = Field(default=(), max_length=500, alias="mlflowUsers")
    """The people who use MLflow, beside the users that every stack has (`switchboard.registry_users`)."""
    gateway_replicas: Annotated[Count, Field(ge=1, le=100, alias="gatewayReplicas")] = 1
    storage_class: StorageClass | None = Field(default=None, alias="storageClass")
    """Of volumes that one node mounts: MLflow's data, and on an edge a model server's copies of models."""
    shared_storage_class: StorageClass | None = Field(default=None, alias="sharedStorageClass")
    """Of volumes that many nodes mount (ReadWriteMany): the copies of models that a model server's replicas share."""
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
    releases: ReleasePolicy = ReleasePolicy(gate=True)
    """What is asked of a release: a passed gate, a second person, times without any."""
    secrets_set: frozenset[str] = frozenset()
    """Which of SECRETS the stack file holds, encrypted; their values are for the Pulumi program alone."""

    @field_validator("networks")
    @classmethod
    def _not_everybody(cls, value: tuple[IPv4Network, ...]) -> tuple[IPv4Network, ...]:
        if wide := [network for network in value if network.prefixlen < WIDEST_NETWORK]:
            raise ValueError(
                f"{wide[0]} is no network of one bank: MLflow and monitoring are reached from it; "
                f"name those that are yours (/{WIDEST_NETWORK} or narrower)"
            )
        return value

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
        self._kinds_of_sites()
        if twice := _twice([person.name for person in self.mlflow_users]):
            raise ValueError(f"mlflowUsers has {twice} twice")
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

    def _kinds_of_sites(self) -> None:
        """Each site is a cluster of its own, and either all of them are the embedded cloud's or none is: that cloud's
        passphrase is known to everybody, so nothing that is worth a secret may be in a stack with it."""
        embedded = [site.name for site in self.sites if site.embedded is not None]
        clusters = [(site.name, site.cluster) for site in self.sites if site.cluster is not None]
        if embedded and clusters:
            raise ValueError(
                f"site {embedded[0]} is embedded and site {clusters[0][0]} is a cluster: "
                "a stack's sites are all of one kind"
            )
        if embedded and self.mlflow.database is not None:
            raise ValueError(
                "mlflow.database is for clusters: the embedded cloud's secrets are encrypted by a passphrase that "
                "everybody knows; leave `database` and `artifacts` out"
            )
        contexts: dict[tuple[str, str], str] = {}
        ids: dict[str, str] = {}
        for name, cluster in clusters:
            place = (str(cluster.kubeconfig.expanduser() if cluster.kubeconfig else ""), cluster.context)
            if (other := contexts.setdefault(place, name)) != name:
                raise ValueError(
                    f"sites {other} and {name} have the context {cluster.context}: each is a cluster of its own"
                )
            if cluster.id is not None and (other := ids.setdefault(cluster.id, name)) != name:
                raise ValueError(
                    f"sites {other} and {name} have the id {cluster.id}: each is a cluster of its own"
                )

    def workloads(self, site: Site) -> tuple[str, ...]:
        """The names of all that runs in a site for longer than a Job; none may be there twice."""
        if site.role == "private":
            return ("mlflow", "alertmanager", "prometheus")
        servers = [server.name for server in self.model_servers]
        edges = [f"{name}-{edge.region}" for edge in site.edges for name in ("gateway", *servers)]
        return ("gateway", "operator", "prometheus", *servers, *edges)

    def image(self, part: str) -> str:
        """The image of a part of Switchboard's own: a model server's name, or one of PARTS."""
        return self.images.overrides.get(part, self.images.switchboard)

    @property
    def secrets_needed(self) -> tuple[str, ...]:
        """Which of SECRETS the stack can't be without."""
        if self.embedded:
            return ()
        return tuple(SECRETS) if self.mlflow.database is not None else ("mlflowUserKey",)

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
        raise _told(error.errors(include_url=False)[0], source) from None


_SECRET = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)
"""Keys whose value is likely a secret, to whose right place an error leads."""


def _told(error: ErrorDetails, source: str) -> SwitchboardError:
    """A wrong key or value in a line; a value that may hold a secret isn't repeated, as errors end up in logs."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    where = where.removeprefix(".")
    reason = error["msg"].removeprefix("Value error, ")
    key = f"{PROJECT}:{where}" if where else PROJECT
    unknown = error["type"] == "extra_forbidden"
    shown = (
        not unknown and error["type"] not in ("missing", "value_error") and error["loc"][:1] != ("mlflow",)
    )
    got = _short(error["input"]) if shown else ""
    last = str(error["loc"][-1]) if error["loc"] else ""
    next_step = (
        f"a secret is a key of its own: {_secret_of(where)}" if unknown and _SECRET.search(last) else None
    )
    return SwitchboardError(f"{source}: {key}: {reason}{got}", next_step)


def _secret_of(where: str) -> str:
    """What sets the secret that was meant by a key which there isn't."""
    if "artifacts" in where.casefold():
        wanted = "mlflowArtifactsAccessKey" if "access" in where.casefold() else "mlflowArtifactsSecretKey"
        return f"`{set_secret(wanted)}`"
    if where.startswith("mlflow"):
        return f"`{set_secret('mlflowDatabasePassword')}`"
    return f"`{set_secret('<key>')}`, the key one of {', '.join(SECRETS)}"


def _short(value: object) -> str:
    """A value in an error's words; of more than one (a mapping, a list) only what is known to be harmless: nothing."""
    if isinstance(value, Mapping | list | tuple):
        return ""
    text = repr(value)
    return f" (it is {text if len(text) <= 60 else text[:57] + '…'})"
