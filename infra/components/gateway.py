"""A gateway: Envoy, and an agent that writes Envoy's configuration from the pods that are there."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    LifecycleArgs,
    LifecycleHandlerArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    SleepActionArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.components import _pod
from infra.components.model_server import Placement
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace
from infra.config import Stack
from switchboard import labels

PORT = 8080
STATS_PORT = 9902
DRAIN_S = 12
"""How long a gateway that is told to stop goes on serving, not ready: longer than a request may take (10 s)."""
_CONFIG = VolumeMountArgs(name="config", mount_path="/etc/envoy")


@dataclass(frozen=True)
class GatewayArgs:
    """Which gateway: its name, its place and what `switchboard status` calls its address."""

    name: str
    placement: Placement
    endpoint: str


class Gateway(pulumi.ComponentResource):
    """A gateway and its Service.

    Outputs: `url`, where customers' requests go.
    """

    def __init__(
        self,
        namespace: SiteNamespace,
        stack: Stack,
        args: GatewayArgs,
        identity: PodReader,
        *,
        parent: pulumi.Resource | None = None,
    ) -> None:
        site = namespace.site.name
        super().__init__(
            "switchboard:infra:Gateway",
            f"{site}-{args.name}",
            None,
            pulumi.ResourceOptions(parent=parent or namespace),
        )
        match = {**_pod.names(args.name, "gateway"), labels.TIER: args.placement.tier}
        place = args.placement
        self.deployment = Deployment(
            f"{site}-{args.name}",
            metadata=namespace.meta(args.name, match),
            spec=DeploymentSpecArgs(
                replicas=place.replicas,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(
                        labels={**match, labels.REGION: place.region},
                        annotations=_pod.scraped(STATS_PORT, "/stats/prometheus"),
                    ),
                    spec=PodSpecArgs(
                        service_account_name=identity.account,
                        security_context=_pod.security(),
                        termination_grace_period_seconds=20,
                        affinity=_pod.placement(place.tier, place.region if place.tier == "edge" else None),
                        topology_spread_constraints=_pod.spread(match),
                        init_containers=[_agent(stack, place, "init")],
                        containers=[_envoy(stack), _agent(stack, place, "run")],
                        volumes=[
                            VolumeArgs(name="config", empty_dir=EmptyDirVolumeSourceArgs(size_limit="16Mi")),
                            VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="16Mi")),
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[identity.binding]),
        )
        self.service, address = namespace.load_balancer(
            self, args.name, selector=match, port=PORT, target="http", endpoint=args.endpoint
        )
        self.url = pulumi.Output.concat("http://", address)
        self.register_outputs({"url": self.url})


def _envoy(stack: Stack) -> ContainerArgs:
    return ContainerArgs(
        name="envoy",
        image=stack.images.envoy,
        args=[
            "-c",
            "/etc/envoy/bootstrap.yaml",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--disable-hot-restart",
        ],
        env=_pod.environment(),
        ports=[
            ContainerPortArgs(name="http", container_port=PORT),
            ContainerPortArgs(name="stats", container_port=STATS_PORT),
        ],
        startup_probe=_pod.probe("/ready", "stats", period_s=1, failures=60),
        readiness_probe=_pod.probe("/ready", "stats", period_s=2, failures=2),
        liveness_probe=_pod.probe("/livez", "stats", period_s=10, failures=6, timeout_s=5),
        # The agent drains; Envoy itself would end at once and cut off what is under way.
        lifecycle=LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=DRAIN_S))),
        resources=_pod.resources("100m", "96Mi", "512Mi"),
        security_context=_pod.container_security(),
        volume_mounts=[_CONFIG, VolumeMountArgs(name="tmp", mount_path="/tmp")],
    )


def _agent(stack: Stack, place: Placement, command: str) -> ContainerArgs:
    return ContainerArgs(
        name="init" if command == "init" else "agent",
        image=stack.images.switchboard,
        command=["python", "-m", "serving.gateway", command],
        env=_pod.environment(
            {
                "HOME": "/tmp",
                "CONFIG_DIR": "/etc/envoy",
                "GATEWAY_TIER": place.tier,
                "GATEWAY_REGION": place.region,
                "MODEL_SERVERS": ",".join(server.name for server in stack.model_servers),
            }
        ),
        resources=_pod.resources("50m", "64Mi", "256Mi"),
        security_context=_pod.container_security(),
        volume_mounts=[_CONFIG, VolumeMountArgs(name="tmp", mount_path="/tmp")],
    )
