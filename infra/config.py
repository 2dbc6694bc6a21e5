"""The stack file as types: what a stack consists of, checked before anything is done.

Both the Pulumi program and the embedded cloud read a stack through this module, so that the sites are described
once, in `Pulumi.<stack>.yaml`. Every error names the key, the value and what would be right, in one line.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.local.node import quantities
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

PROJECT = "switchboard"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""A DNS label of at most 32 characters."""
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity: `500m`, `512Mi`."""
Count = Annotated[int, Field(strict=True)]
"""A whole number as YAML writes one: neither `true` nor `"3"` is."""


KINDS = ("chat",)
"""The model servers that there are: each answers `/v1/<its name>` (see `serving.chat`)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Node(_Strict):
    """A node of an embedded site. An edge node has a region of its own; a core node has its site's."""

    name: Name
    zone: Name | None = None
    tier: Literal["core", "edge"] = "core"
    region: Name | None = None
    cpu: Quantity = "4"
    memory: Quantity = "8Gi"

    @model_validator(mode="after")
    def _edge_has_region(self) -> Node:
        if self.tier == "edge" and self.region is None:
            raise ValueError(f"edge node {self.name} needs a region")
        return self


class Embedded(_Strict):
    """A site of the embedded cloud: its loopback ranges and its nodes (see `infra.local.layout`)."""

    network: ipaddress.IPv4Network
    services: ipaddress.IPv4Network
    nodes: Annotated[tuple[Node, ...], Field(min_length=1, max_length=50)]

    @field_validator("network", "services")
    @classmethod
    def _loopback_16(cls, value: ipaddress.IPv4Network) -> ipaddress.IPv4Network:
        if value.prefixlen != 16 or not value.subnet_of(ipaddress.IPv4Network("127.0.0.0/8")):
            raise ValueError("must be a /16 of 127.0.0.0/8")
        if value.network_address == ipaddress.ip_address("127.0.0.0"):
            raise ValueError("127.0.0.0/16 is the machine's own; take another")
        return value

    @field_validator("nodes")
    @classmethod
    def _unique(cls, value: tuple[Node, ...]) -> tuple[Node, ...]:
        names = [node.name for node in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"node names must be unique, {', '.join(twice)} is there twice")
        if all(node.tier == "edge" for node in value):
            raise ValueError("at least one node must be of tier core: the site's own services run there")
        return value


class Cluster(_Strict):
    """An existing cluster, by kubeconfig (default: kubectl's) and context."""

    context: str
    kubeconfig: Path | None = None


class Edge(_Strict):
    """An edge location of a public site: the region whose edge node serves it."""

    region: Name


class Site(_Strict):
    """A Kubernetes cluster with a role; exactly one of `embedded` and `cluster` says where it is."""

    name: Name
    role: Literal["private", "public"]
    region: Name
    embedded: Embedded | None = None
    cluster: Cluster | None = None
    edges: tuple[Edge, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> Site:
        if (self.embedded is None) == (self.cluster is None):
            raise ValueError(f"site {self.name} needs exactly one of `embedded` and `cluster`")
        if self.edges and self.role != "public":
            raise ValueError(f"site {self.name} is {self.role}: only a public site has edges")
        regions = [edge.region for edge in self.edges]
        if len(set(regions)) != len(regions):
            raise ValueError(f"site {self.name} names an edge region twice")
        if self.embedded is not None:
            have = {node.region for node in self.embedded.nodes if node.tier == "edge"}
            if missing := [region for region in regions if region not in have]:
                raise ValueError(f"site {self.name} has no edge node in region {', '.join(missing)}")
        return self


class Resources(_Strict):
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


class ModelServer(_Strict):
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


class Images(_Strict):
    """The images that the stack runs."""

    switchboard: str
    envoy: str
    prometheus: str
    alertmanager: str


class MlflowStore(_Strict):
    """Where MLflow keeps its data: a volume of this size in its site."""

    storage: Quantity = "5Gi"


class Stack(_Strict):
    """One stack of Switchboard, as its stack file says."""

    sites: Annotated[tuple[Site, ...], Field(min_length=2)]
    images: Images
    model_servers: Annotated[tuple[ModelServer, ...], Field(min_length=1, alias="modelServers")]
    mlflow: MlflowStore = MlflowStore()
    gateway_replicas: Annotated[Count, Field(ge=1, le=100, alias="gatewayReplicas")] = 1
    storage_class: str | None = Field(default=None, alias="storageClass")

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


_KEYS = {field.alias or name for name, field in Stack.model_fields.items()}


def parse(values: Mapping[str, Any], source: str) -> Stack:
    """The stack from its configuration values (keys without the project's prefix).

    Raises:
        SwitchboardError: one line for the first wrong key or value, naming `source`, the key and the reason.
    """
    if unknown := sorted(set(values) - _KEYS):
        raise SwitchboardError(
            f"{source}: unknown key {PROJECT}:{unknown[0]}; known are {', '.join(sorted(_KEYS))}"
        )
    try:
        return Stack.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(
            "."
        )
        reason = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] in ("missing", "value_error") else f" (it is {_short(first['input'])})"
        key = f"{PROJECT}:{where}" if where else PROJECT
        raise SwitchboardError(f"{source}: {key}: {reason}{got}") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def stack_file(stack: str) -> Path:
    """The file of that stack's configuration: in the checkout, or where `$SWITCHBOARD_STACK_FILE` says.

    The variable counts only for the stack that it is named after (`…/Pulumi.<stack>.yaml`): tests have stacks of
    their own, and hand the place on to the processes that they start.
    """
    name = f"Pulumi.{stack}.yaml"
    own = Path(os.environ.get("SWITCHBOARD_STACK_FILE", ""))
    return own if own.name == name else ROOT / name


def load(stack: str) -> Stack:
    """The stack from its file.

    Raises:
        SwitchboardError: the file is missing, can't be read, isn't UTF-8 or YAML, or holds a wrong key or value.
    """
    path = stack_file(stack)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stacks = ", ".join(sorted(p.name.split(".")[1] for p in ROOT.glob("Pulumi.*.yaml"))) or "none"
        raise SwitchboardError(
            f"no stack {stack!r}: {path.name} is missing", f"stacks here: {stacks}"
        ) from None
    except OSError as error:
        raise SwitchboardError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SwitchboardError(
            f"{path.name} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from None
    except yaml.YAMLError as error:
        raise SwitchboardError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise SwitchboardError(f"{path.name}: it has no `config:` section")
    values: dict[str, Any] = {}
    for key, value in config.items():
        prefix, _, name = str(key).partition(":")
        if prefix == PROJECT:
            values[name] = value
        elif prefix not in ("pulumi", "kubernetes"):
            raise SwitchboardError(f"{path.name}: unknown key {key}; Switchboard's begin with {PROJECT}:")
    return parse(values, path.name)
