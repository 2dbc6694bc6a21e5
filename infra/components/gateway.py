"""A gateway: Envoy, and an agent that writes Envoy's configuration from the pods that are there."""

from __future__ import annotations

from collections.abc import Sequence
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
    LifecycleArgs,
    LifecycleHandlerArgs,
    PodTemplateSpecArgs,
    SleepActionArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components import _data, _pod
from infra.components.budget import disruption_budget
from infra.components.model_server import Placement, data_of
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace
from infra.config import ModelServer
from switchboard import labels

PORT = 8080
STATS_PORT = 9902
DRAIN_S = 12
"""How long a gateway that is told to stop goes on serving, not ready: longer than a request may take (10 s)."""
_AGENT = "the agent has no port: Envoy, which has the probe, goes on by its last files without it"
_EXCEPTIONS = {
    "CKV_K8S_8": _AGENT,
    "CKV_K8S_9": _AGENT,
    "CKV_K8S_38": "the agent watches its namespace's pods and ModelServers by the token, and may do nothing else",
}
"""From checkov's checks, which are on the object for whoever looks at it there."""

_MOUNTS = (
    VolumeMountArgs(name="config", mount_path="/etc/envoy"),
    VolumeMountArgs(name="tmp", mount_path="/tmp"),
)


@dataclass(frozen=True)
class GatewayArgs:
    """Which gateway: its name, its place, what `switchboard status` calls its address, its images, and the model
    servers that it leads to from the start."""

    name: str
    placement: Placement
    endpoint: str
    envoy: str
    agent: str
    servers: Sequence[ModelServer]


class Gateway(pulumi.ComponentResource):
    """A gateway and its Service; `identity` reads the pods that it sends requests to, and the ModelServers of these.

    Outputs: `url`, where customers' requests go.
    """

    url: pulumi.Output[str]

    def __init__(
        self,
        namespace: SiteNamespace,
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
        # Customers' words pass through it on their way to each of the servers.
        data = _data.joined(data_of(server) for server in args.servers)
        self.deployment = Deployment(
            f"{site}-{args.name}",
            metadata=_data.workload_meta(namespace, args.name, match, data, checkov=_EXCEPTIONS),
            spec=DeploymentSpecArgs(
                replicas=place.replicas,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(
                        namespace,
                        match,
                        data,
                        region=place.region,
                        annotations=_pod.scraped(STATS_PORT, "/stats/prometheus"),
                    ),
                    spec=_pod.pod(
                        identity.account,
                        [_envoy(args), _agent(args, "run")],
                        init_containers=[_agent(args, "init")],
                        volumes=[_pod.scratch("config", "16Mi"), _pod.scratch("tmp", "16Mi")],
                        tier=place.tier,
                        region=place.region if place.tier == "edge" else None,
                        token=True,
                        grace_s=20,
                        topology_spread_constraints=_pod.spread(match, bound=False),
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[identity.binding]),
        )
        disruption_budget(namespace, args.name, match, place.replicas, parent=self)
        self.service, address = namespace.load_balancer(
            self,
            args.name,
            selector=match,
            port=PORT,
            target="http",
            endpoint=args.endpoint,
            refuses=place.tier == "edge",  # its customers ask the core
        )
        self.url = pulumi.Output.concat("http://", address)
        self.register_outputs({"url": self.url})


def _envoy(args: GatewayArgs) -> ContainerArgs:
    return _pod.container(
        "envoy",
        args.envoy,
        args=[
            "-c",
            "/etc/envoy/bootstrap.yaml",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--disable-hot-restart",
        ],
        ports=[
            ContainerPortArgs(name="http", container_port=PORT),
            ContainerPortArgs(name="stats", container_port=STATS_PORT),
        ],
        startup_probe=_pod.probe("/ready", "stats", period_s=1, failures=60),
        readiness_probe=_pod.probe("/ready", "stats", period_s=2, failures=2),
        liveness_probe=_pod.probe("/livez", "stats", period_s=10, failures=6, timeout_s=5),
        # The agent drains; Envoy itself would end at once and cut off what is under way.
        lifecycle=LifecycleArgs(pre_stop=LifecycleHandlerArgs(sleep=SleepActionArgs(seconds=DRAIN_S))),
        resources=_pod.resources("250m", "96Mi", "512Mi", scratch="32Mi"),
        mounts=_MOUNTS,
    )


def _agent(args: GatewayArgs, command: str) -> ContainerArgs:
    """Without probes: Envoy goes on with what the agent wrote last, whatever becomes of it, so that there is nothing to
    take the pod out for, and a question to it would cost a Python start each time."""
    return _pod.container(
        "init" if command == "init" else "agent",
        args.agent,
        command=["python", "-m", "serving.gateway", command],
        env={
            "HOME": "/tmp",
            "CONFIG_DIR": "/etc/envoy",
            "GATEWAY_TIER": args.placement.tier,
            "GATEWAY_REGION": args.placement.region,
            "MODEL_SERVERS": ",".join(server.name for server in args.servers),
        },
        resources=_pod.resources("50m", "64Mi", "256Mi", scratch="32Mi"),
        mounts=_MOUNTS,
    )
