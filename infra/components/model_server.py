"""A model server: replicas of a chat service that serve one registered model, in the core or on an edge.

A StatefulSet, since each replica keeps its copy of the model on a volume of its own: a replica that comes back
finds its model there and serves, the registry away or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_kubernetes.apps.v1 import (
    StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicyArgs,
    StatefulSetSpecArgs,
)
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    PersistentVolumeClaimArgs,
    PersistentVolumeClaimSpecArgs,
    PodTemplateSpecArgs,
    Service,
    ServiceSpecArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.components import _data, _pod
from infra.components.account import account
from infra.components.budget import disruption_budget
from infra.components.site import SiteNamespace
from infra.config import ModelServer
from switchboard import labels

PORT = 8080

FALLBACK = (
    "a fallback on an edge's one node, which only the gateway of that edge asks, and only while it can't reach the "
    "site's replicas: the node takes both with it"
)
"""Why an edge's model server may wait for its node."""


@dataclass(frozen=True)
class Placement:
    """Where replicas run: in the core of a site, or on the edge node of a region."""

    tier: Literal["core", "edge"]
    region: str
    replicas: int


@dataclass(frozen=True)
class ModelServerArgs:
    """Which model server, where, of which image; `mlflow_url` is where it gets its model, `storage_class` that of the
    volumes for its copies (None: the cluster's default)."""

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


def data_of(server: ModelServer) -> _data.Data:
    """The data that a model server sees."""
    return _data.Data(server.data_class, frozenset(server.data_regions))


class ModelServerSet(pulumi.ComponentResource):
    """The replicas of a model server at one placement, made when `after` is there; gateways find them by their labels.

    Outputs: `workload`, the StatefulSet's name.
    """

    workload: pulumi.Output[str]

    def __init__(
        self,
        namespace: SiteNamespace,
        args: ModelServerArgs,
        *,
        after: Sequence[pulumi.Resource] = (),
        parent: pulumi.Resource | None = None,
    ) -> None:
        name, place, server = args.name, args.placement, args.server
        unique = f"{namespace.site.name}-{name}"
        super().__init__(
            "switchboard:infra:ModelServer", unique, None, pulumi.ResourceOptions(parent=parent or namespace)
        )
        match = {
            **_pod.names(name, "model-server"),
            labels.MODEL_SERVER: server.name,
            labels.TIER: place.tier,
        }
        data = data_of(server)
        headless = Service(
            unique,
            metadata=namespace.meta(name, match, namespace.annotate_service()),
            spec=ServiceSpecArgs(
                cluster_ip="None",
                selector=match,
                ports=[{"name": "http", "port": PORT, "targetPort": "http"}],
            ),
            opts=namespace.child(self),
        )
        self.stateful_set = StatefulSet(
            unique,
            metadata=_data.workload_meta(
                namespace, name, match, data, recovery=FALLBACK if place.tier == "edge" else None
            ),
            spec=StatefulSetSpecArgs(
                replicas=place.replicas,
                service_name=name,
                pod_management_policy="Parallel",
                selector=LabelSelectorArgs(match_labels=match),
                persistent_volume_claim_retention_policy=StatefulSetPersistentVolumeClaimRetentionPolicyArgs(
                    when_deleted="Delete", when_scaled="Delete"
                ),
                volume_claim_templates=[_model_copy(args)],
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(
                        namespace, match, data, region=place.region, annotations=_pod.scraped(PORT)
                    ),
                    spec=_pod.pod(
                        account(namespace, name, "model-server", parent=self),
                        [_container(args)],
                        volumes=[_pod.scratch("tmp", "256Mi")],
                        tier=place.tier,
                        region=place.region if place.tier == "edge" else None,
                        topology_spread_constraints=_pod.spread(match, bound=True),
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[headless, *after]),
        )
        disruption_budget(namespace, name, match, place.replicas, parent=self)
        self.workload = self.stateful_set.metadata.name
        self.register_outputs({"workload": self.workload})


def _model_copy(args: ModelServerArgs) -> PersistentVolumeClaimArgs:
    return PersistentVolumeClaimArgs(
        metadata=ObjectMetaArgs(name="models", labels=_data.INTERNAL.labels),
        spec=PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=args.storage_class,
            resources=VolumeResourceRequirementsArgs(requests={"storage": "1Gi"}),
        ),
    )


def _container(args: ModelServerArgs) -> ContainerArgs:
    server, asks = args.server, args.server.resources
    return _pod.container(
        "chat",
        args.image,
        command=["python", "-m", "serving.chat"],
        env={
            "HOME": "/tmp",
            "PORT": str(PORT),
            "MODEL_URI": f"models:/{server.model}@{server.alias}",
            "MODEL_CACHE_DIR": "/models",
            "MLFLOW_TRACKING_URI": args.mlflow_url,
            "MAX_CONCURRENCY": str(server.max_concurrency),
            "SERVICE_TIER": args.placement.tier,
        },
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/readyz", "http", period_s=1, failures=120),
        readiness_probe=_pod.probe("/readyz", "http", period_s=2, failures=2),
        liveness_probe=_pod.probe("/livez", "http", period_s=10, failures=6, timeout_s=5),
        resources=_pod.resources(asks.cpu, asks.memory, asks.memory_limit, asks.cpu_limit, scratch="256Mi"),
        mounts=[
            VolumeMountArgs(name="models", mount_path="/models"),
            VolumeMountArgs(name="tmp", mount_path="/tmp"),
        ],
    )
