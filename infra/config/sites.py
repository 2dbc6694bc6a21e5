"""Sites: Kubernetes clusters with a role, embedded ones and those that exist."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from infra.config._base import Name, Quantity, Strict


class Node(Strict):
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


class Embedded(Strict):
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


class Cluster(Strict):
    """An existing cluster, by kubeconfig (default: kubectl's) and context.

    `id` is the UID of its namespace `kube-system`, which stays as long as the cluster does: a context that leads
    anywhere else is refused before anything is sent (see `infra.identity`).
    """

    context: str = Field(min_length=1)
    kubeconfig: Path | None = None
    id: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )

    @field_validator("kubeconfig")
    @classmethod
    def _one_file(cls, value: Path | None) -> Path | None:
        """The program, the plugin and kubectl each have a folder of their own, from which a relative path would be
        another file."""
        try:
            found = value.expanduser() if value is not None else None
        except RuntimeError:
            raise ValueError(f"{value} is in the home of nobody here") from None
        if found is not None and not found.is_absolute():
            raise ValueError(f"{value} is a relative path: begin it with / or ~/")
        return value


class Edge(Strict):
    """An edge location of a public site: the region whose edge node serves it."""

    region: Name


class Site(Strict):
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
