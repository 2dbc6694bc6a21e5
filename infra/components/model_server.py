"""A model server: replicas of a chat service that serve one registered model, in the core or on an edge.

A StatefulSet, since each replica keeps its copy of the model on a volume of its own: a replica that comes back
finds its model there and serves, the registry away or not.
"""

from __future__ import annotations

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
    EmptyDirVolumeSourceArgs,
    PersistentVolumeClaimArgs,
    PersistentVolumeClaimSpecArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    Service,
    ServiceSpecArgs,
    VolumeArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from infra.components import _pod
from infra.components.site import SiteNamespace
from infra.config import ModelServer, Stack
from switchboard import labels

PORT = 8080


@dataclass(frozen=True)
class Placement:
    """Where replicas run: in the core of a site, or on the edge node of a region."""

    tier: Literal["core", "edge"]
    region: str
    replicas: int


class ModelServerSet(pulumi.ComponentResource):
    """The replicas of `server` at one placement; the gateways find them by their labels."""

    def __init__(
        self,
        namespace: SiteNamespace,
        stack: Stack,
        server: ModelServer,
        placement: Placement,
        *,
        mlflow_url: pulumi.Input[str],
        after: list[pulumi.Resource],
        parent: pulumi.Resource | None = None,
    ) -> None:
        name = server.name if placement.tier == "core" else f"{server.name}-{placement.region}"
        super().__init__(
            "switchboard:infra:ModelServer",
            f"{namespace.site.name}-{name}",
            None,
            pulumi.ResourceOptions(parent=parent or namespace),
        )
        match = {
            **_pod.names(name, "model-server"),
            labels.MODEL_SERVER: server.name,
            labels.TIER: placement.tier,
        }
        pod_labels = {**match, labels.REGION: placement.region}
        headless = Service(
            f"{namespace.site.name}-{name}",
            metadata=namespace.meta(name, match, namespace.annotate_service()),
            spec=ServiceSpecArgs(
                cluster_ip="None",
                selector=match,
                ports=[{"name": "http", "port": PORT, "targetPort": "http"}],
            ),
            opts=namespace.child(self),
        )
        self.stateful_set = StatefulSet(
            f"{namespace.site.name}-{name}",
            metadata=namespace.meta(name, match),
            spec=StatefulSetSpecArgs(
                replicas=placement.replicas,
                service_name=name,
                pod_management_policy="Parallel",
                selector=LabelSelectorArgs(match_labels=match),
                persistent_volume_claim_retention_policy=StatefulSetPersistentVolumeClaimRetentionPolicyArgs(
                    when_deleted="Delete", when_scaled="Delete"
                ),
                volume_claim_templates=[_model_copy(stack)],
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=pod_labels, annotations=_pod.scraped(PORT)),
                    spec=PodSpecArgs(
                        security_context=_pod.security(),
                        automount_service_account_token=False,
                        termination_grace_period_seconds=30,
                        affinity=_pod.placement(
                            placement.tier, placement.region if placement.tier == "edge" else None
                        ),
                        topology_spread_constraints=_pod.spread(match),
                        containers=[_container(stack, server, placement, mlflow_url)],
                        volumes=[
                            VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="256Mi"))
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[headless, *after]),
        )
        if placement.replicas > 1:
            PodDisruptionBudget(
                f"{namespace.site.name}-{name}",
                metadata=namespace.meta(name, match),
                spec=PodDisruptionBudgetSpecArgs(
                    max_unavailable=1, selector=LabelSelectorArgs(match_labels=match)
                ),
                opts=namespace.child(self),
            )
        self.register_outputs({})


def _model_copy(stack: Stack) -> PersistentVolumeClaimArgs:
    return PersistentVolumeClaimArgs(
        metadata=ObjectMetaArgs(name="models"),
        spec=PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=stack.storage_class,
            resources=VolumeResourceRequirementsArgs(requests={"storage": "1Gi"}),
        ),
    )


def _container(
    stack: Stack, server: ModelServer, placement: Placement, mlflow_url: pulumi.Input[str]
) -> ContainerArgs:
    asks = server.resources
    return ContainerArgs(
        name="chat",
        image=stack.images.switchboard,
        command=["python", "-m", "serving.chat"],
        env=_pod.environment(
            {
                "HOME": "/tmp",
                "PORT": str(PORT),
                "MODEL_URI": f"models:/{server.model}@{server.alias}",
                "MODEL_CACHE_DIR": "/models",
                "MLFLOW_TRACKING_URI": mlflow_url,
                "MAX_CONCURRENCY": str(server.max_concurrency),
                "SERVICE_TIER": placement.tier,
            }
        ),
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/readyz", "http", period_s=1, failures=120),
        readiness_probe=_pod.probe("/readyz", "http", period_s=2, failures=2),
        liveness_probe=_pod.probe("/livez", "http", period_s=10, failures=6, timeout_s=5),
        resources=_pod.resources(asks.cpu, asks.memory, asks.memory_limit, asks.cpu_limit),
        security_context=_pod.container_security(),
        volume_mounts=[
            VolumeMountArgs(name="models", mount_path="/models"),
            VolumeMountArgs(name="tmp", mount_path="/tmp"),
        ],
    )
