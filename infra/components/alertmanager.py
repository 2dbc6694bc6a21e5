"""Alertmanager of the private site: every site's Prometheus sends its alerts here."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import yaml
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs
from pulumi_kubernetes.core.v1 import ConfigMap, PodTemplateSpecArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components import _data, _monitor, _pod
from infra.components.account import account
from infra.components.site import SiteNamespace

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


@dataclass(frozen=True)
class AlertmanagerArgs:
    """The image that it runs."""

    image: str


class Alertmanager(pulumi.ComponentResource):
    """One replica, without a disruption budget: one of a single replica would block every drain of its node, and an
    Alertmanager that moves is away for seconds, in which each Prometheus keeps its alerts and sends them again.

    Outputs: `address` (`host:port`), reachable from every site.
    """

    address: pulumi.Output[str]

    def __init__(self, namespace: SiteNamespace, args: AlertmanagerArgs) -> None:
        super().__init__(
            "switchboard:infra:Alertmanager", "alertmanager", None, pulumi.ResourceOptions(parent=namespace)
        )
        match = _pod.names("alertmanager", "monitoring")
        config = ConfigMap(
            "alertmanager",
            metadata=_data.meta(namespace, None, match, _data.INTERNAL),
            data={"alertmanager.yml": yaml.safe_dump(CONFIG)},
            opts=namespace.child(self),
        )
        Deployment(
            "alertmanager",
            metadata=_data.workload_meta(namespace, "alertmanager", match, _data.INTERNAL),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels=match),
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(namespace, match, _data.INTERNAL, annotations=_pod.scraped(PORT)),
                    spec=_pod.pod(
                        account(namespace, "alertmanager", "monitoring", parent=self),
                        [
                            _monitor.container(
                                "alertmanager",
                                args.image,
                                port=PORT,
                                args=[
                                    "--storage.path=/alertmanager",
                                    "--cluster.listen-address=",
                                ],
                                resources=_pod.resources("50m", "64Mi", "256Mi", scratch="64Mi"),
                            )
                        ],
                        volumes=_monitor.volumes(config.metadata.name, data="64Mi"),
                    ),
                ),
            ),
            opts=namespace.child(self),
        )
        self.service, self.address = namespace.load_balancer(
            self, "alertmanager", selector=match, port=PORT, target="http", endpoint="alertmanager"
        )
        self.register_outputs({"address": self.address})
