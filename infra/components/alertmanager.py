"""Alertmanager of the private site: every site's Prometheus sends its alerts here."""

from __future__ import annotations

import pulumi
import yaml
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs
from pulumi_kubernetes.core.v1 import (
    ConfigMap,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.components import _pod
from infra.components.site import SiteNamespace
from infra.config import Stack

PORT = 9093

# Alerts are kept and shown; where they go on to (pager, chat) is a receiver of the bank's own.
CONFIG = {
    "route": {
        "receiver": "none",
        "group_by": ["alertname", "site"],
        "group_wait": "2s",
        "group_interval": "10s",
    },
    "receivers": [{"name": "none"}],
}


class Alertmanager(pulumi.ComponentResource):
    """Outputs: `address` (`host:port`), reachable from every site."""

    def __init__(self, namespace: SiteNamespace, stack: Stack) -> None:
        super().__init__(
            "switchboard:infra:Alertmanager", "alertmanager", None, pulumi.ResourceOptions(parent=namespace)
        )
        match = _pod.names("alertmanager", "monitoring")
        config = ConfigMap(
            "alertmanager",
            metadata=namespace.meta(None, match),
            data={"alertmanager.yml": yaml.safe_dump(CONFIG)},
            opts=namespace.child(self),
        )
        Deployment(
            "alertmanager",
            metadata=namespace.meta("alertmanager", match),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels=match),
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=match, annotations=_pod.scraped(PORT)),
                    spec=PodSpecArgs(
                        security_context=_pod.security(),
                        automount_service_account_token=False,
                        containers=[
                            ContainerArgs(
                                name="alertmanager",
                                image=stack.images.alertmanager,
                                args=[
                                    "--config.file=/etc/alertmanager/alertmanager.yml",
                                    "--storage.path=/alertmanager",
                                    f"--web.listen-address=$(POD_IP):{PORT}",
                                    "--cluster.listen-address=",
                                    "--log.level=warn",
                                ],
                                env=_pod.environment(),
                                ports=[ContainerPortArgs(name="http", container_port=PORT)],
                                startup_probe=_pod.probe("/-/ready", "http", period_s=1, failures=60),
                                readiness_probe=_pod.probe("/-/ready", "http"),
                                liveness_probe=_pod.probe("/-/healthy", "http", period_s=10, failures=6),
                                resources=_pod.resources("50m", "64Mi", "256Mi"),
                                security_context=_pod.container_security(),
                                volume_mounts=[
                                    VolumeMountArgs(
                                        name="config", mount_path="/etc/alertmanager", read_only=True
                                    ),
                                    VolumeMountArgs(name="data", mount_path="/alertmanager"),
                                ],
                            )
                        ],
                        volumes=[
                            VolumeArgs(
                                name="config", config_map=ConfigMapVolumeSourceArgs(name=config.metadata.name)
                            ),
                            VolumeArgs(name="data", empty_dir=EmptyDirVolumeSourceArgs(size_limit="64Mi")),
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self),
        )
        self.service, self.address = namespace.load_balancer(
            self, "alertmanager", selector=match, port=PORT, target="http", endpoint="alertmanager"
        )
        self.register_outputs({"address": self.address})
