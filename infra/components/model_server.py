"""A model server: a ModelServer object, in the core of a site or on an edge. What runs of it is the operator's to make.

`up` waits until it serves: until the operator, having seen the object as it is now, says that it is `Ready`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from infra.components import _data
from infra.components.account import account
from infra.components.site import SiteNamespace
from infra.config import ModelServer
from switchboard import labels, workload
from switchboard.api import model_server as api
from switchboard.kinds import MODEL_SERVERS
from switchboard.podspec import Tier

PORT = workload.PORT
_READY = {"pulumi.com/waitFor": "condition=Ready"}
USUAL_WAIT_S = 600
"""How long Pulumi waits for an object by itself."""


@dataclass(frozen=True)
class Placement:
    """Where replicas run: in the core of a site, or on the edge node of a region. `replicas` is a gateway's number; a
    model server's is the operator's to find, as its configuration says."""

    tier: Tier
    region: str
    replicas: int = 1


@dataclass(frozen=True)
class ModelServerArgs:
    """Which model server, where, of which image; `mlflow_url` is where it gets its model, `storage_class` that of the
    volume for copies of models (None: the cluster's default), which in the core many nodes have to be able to mount."""

    server: ModelServer
    placement: Placement
    image: str
    mlflow_url: pulumi.Input[str]
    storage_class: str | None = None

    @property
    def name(self) -> str:
        """What its objects are called."""
        at = self.placement
        return self.server.name if at.tier == "core" else f"{self.server.name}-{at.region}"

    @property
    def spec(self) -> api.Spec:
        """The object's, but for the registry's address, which may not be known yet.

        Raises:
            ValueError: edges have no servers of this one.
        """
        server, place = self.server, self.placement
        size = server.size(place.tier)
        if size is None:
            raise ValueError(f"{self.name} has no replicas")
        return api.Spec(
            model=api.Model(name=server.model, alias=server.alias),
            service=server.name,
            image=self.image,
            replicas=size.replicas,
            capacity=server.takes,
            resources=server.resources,
            placement=api.Placement(tier=place.tier, region=place.region if place.tier == "edge" else None),
            cache=api.Cache(storage_class=self.storage_class),
            service_account_name=self.name,
            data_class=server.data_class,
            data_regions=server.data_regions,
            scaling=size.scaling,
        )


def data_of(server: ModelServer) -> _data.Data:
    """The data that a model server sees."""
    return _data.Data(server.data_class, frozenset(server.data_regions))


class ModelServerSet(pulumi.ComponentResource):
    """A model server at one placement, made when `after` is there; gateways find its replicas by their labels.

    Outputs: `object`, the ModelServer's name.
    """

    object: pulumi.Output[str]

    def __init__(
        self,
        namespace: SiteNamespace,
        args: ModelServerArgs,
        *,
        after: Sequence[pulumi.Resource] = (),
        parent: pulumi.Resource | None = None,
    ) -> None:
        name, spec = args.name, args.spec
        unique = f"{namespace.site.name}-{name}"
        super().__init__(
            "switchboard:infra:ModelServer", unique, None, pulumi.ResourceOptions(parent=parent or namespace)
        )
        identity = account(namespace, name, workload.COMPONENT, parent=self)
        options = namespace.child(self, depends_on=list(after))
        if (wait_s := wait_for(spec)) > USUAL_WAIT_S:
            patient = pulumi.CustomTimeouts(create=f"{wait_s}s", update=f"{wait_s}s")
            options = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(custom_timeouts=patient))
        made = CustomResource(
            unique,
            api_version=MODEL_SERVERS.api_version,
            kind=MODEL_SERVERS.kind,
            metadata=_meta(namespace, args, spec),
            spec=_as_object(spec, registry=args.mlflow_url, account=identity),
            opts=options,
        )
        self.object = made.metadata["name"]
        self.register_outputs({"object": self.object})


def wait_for(spec: api.Spec) -> int:
    """How long a rollout may take, in seconds: a quarter of the replicas at a time, each batch twice its start time."""
    return max(USUAL_WAIT_S, 2 * 4 * spec.capacity.start_seconds)


def _meta(namespace: SiteNamespace, args: ModelServerArgs, spec: api.Spec) -> Any:
    """Its labels and exceptions are those of its Deployment, too (see `switchboard.workload`)."""
    why = args.server.availability_exception
    away = {"spare-replica": why} if why is not None and args.placement.tier == "core" else {}
    match = {**workload.selector(args.name, spec), labels.REGION: args.placement.region}
    return _data.workload_meta(namespace, args.name, match, data_of(args.server), policy=away, notes=_READY)


def _as_object(
    spec: api.Spec, *, registry: pulumi.Input[str], account: pulumi.Input[str]
) -> dict[str, pulumi.Input[Any]]:
    """The spec as an object has it, which says what differs from the API's defaults and no more."""
    said: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**said, "model": {**said["model"], "registry": registry}, "serviceAccountName": account}
