"""Prometheus of a site: it scrapes its site's pods; the private one also federates the others'."""

from __future__ import annotations

from typing import Any

import pulumi
import yaml
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs, DeploymentStrategyArgs
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
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace
from infra.config import Stack
from switchboard import labels

PORT = 9090
SCRAPE_S = {"public": 2, "private": 5}
RULES = {
    "groups": [
        {
            "name": "targets",
            "rules": [
                {
                    "alert": "TargetDown",
                    "expr": "up == 0",
                    "for": "10s",
                    "labels": {"severity": "warning"},
                    "annotations": {
                        "summary": "{{ $labels.pod }} of {{ $labels.site }} can't be scraped",
                        "runbook": "runbooks/TargetDown.md",
                    },
                }
            ],
        }
    ]
}


def configuration(
    site: str, namespace: str, role: str, alertmanager: str | None, federated: dict[str, str]
) -> dict[str, Any]:
    """Prometheus' configuration; addresses are `host:port`, `federated` maps a site to its Prometheus."""
    scrapes: list[dict[str, Any]] = [
        {
            "job_name": "pods",
            "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [namespace]}}],
            "relabel_configs": [
                _relabel("keep", [_annotation(labels.SCRAPE)], "true"),
                _relabel("drop", ["__meta_kubernetes_pod_phase"], "(Failed|Succeeded)"),
                {
                    "source_labels": ["__meta_kubernetes_pod_ip", _annotation(labels.SCRAPE_PORT)],
                    "separator": ":",
                    "target_label": "__address__",
                },
                {"source_labels": [_annotation(labels.SCRAPE_PATH)], "target_label": "__metrics_path__"},
                # One target for each pod, whatever number of ports its containers declare.
                _relabel("keep", ["__meta_kubernetes_pod_container_port_name"], "http"),
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
                {
                    "source_labels": ["__meta_kubernetes_pod_label_switchboard_dev_model_server"],
                    "target_label": "model_server",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_label_switchboard_dev_tier"],
                    "target_label": "tier",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_label_topology_kubernetes_io_region"],
                    "target_label": "region",
                },
            ],
        }
    ]
    if federated:
        scrapes.append(
            {
                "job_name": "federate",
                "honor_labels": True,
                # Federated samples bring their own time, and such series would outlive their pod by 5 min.
                "track_timestamps_staleness": True,
                "metrics_path": "/federate",
                "params": {"match[]": ['{job="pods"}']},
                "static_configs": [
                    {"targets": [address], "labels": {"federated_from": name}}
                    for name, address in sorted(federated.items())
                ],
            }
        )
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": f"{SCRAPE_S[role]}s",
            "scrape_timeout": f"{SCRAPE_S[role]}s",
            "evaluation_interval": f"{SCRAPE_S[role]}s",
            "external_labels": {"site": site},
        },
        "rule_files": ["/etc/prometheus/rules.yml"],
        "scrape_configs": scrapes,
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return config


def _annotation(name: str) -> str:
    return "__meta_kubernetes_pod_annotation_" + name.translate(str.maketrans("./-", "___"))


def _relabel(action: str, source: list[str], regex: str) -> dict[str, Any]:
    return {"action": action, "source_labels": source, "regex": regex}


class Prometheus(pulumi.ComponentResource):
    """Outputs: `address` (`host:port`) and `url`, reachable from every site."""

    def __init__(
        self,
        namespace: SiteNamespace,
        stack: Stack,
        *,
        alertmanager: pulumi.Input[str],
        federated: dict[str, pulumi.Output[str]] | None = None,
    ) -> None:
        site = namespace.site
        super().__init__(
            "switchboard:infra:Prometheus",
            f"{site.name}-prometheus",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        match = _pod.names("prometheus", "monitoring")
        identity = PodReader(namespace, "prometheus", "monitoring")
        text = pulumi.Output.all(alertmanager=alertmanager, federated=federated or {}).apply(
            lambda given: yaml.safe_dump(
                configuration(
                    site.name, namespace.name, site.role, given["alertmanager"], given["federated"]
                ),
                sort_keys=False,
            )
        )
        config = ConfigMap(
            f"{site.name}-prometheus",
            metadata=namespace.meta(None, match),
            data={"prometheus.yml": text, "rules.yml": yaml.safe_dump(RULES, sort_keys=False)},
            opts=namespace.child(self),
        )
        Deployment(
            f"{site.name}-prometheus",
            metadata=namespace.meta("prometheus", match),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(type="Recreate"),
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=match, annotations=_pod.scraped(PORT)),
                    spec=PodSpecArgs(
                        service_account_name=identity.account,
                        security_context=_pod.security(),
                        affinity=_pod.placement("core"),
                        containers=[_container(stack)],
                        volumes=[
                            VolumeArgs(
                                name="config", config_map=ConfigMapVolumeSourceArgs(name=config.metadata.name)
                            ),
                            VolumeArgs(name="data", empty_dir=EmptyDirVolumeSourceArgs(size_limit="2Gi")),
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[identity.binding]),
        )
        self.service, self.address = namespace.load_balancer(
            self, "prometheus", selector=match, port=PORT, target="http", endpoint="prometheus"
        )
        self.url = pulumi.Output.concat("http://", self.address)
        self.register_outputs({"url": self.url})


def _container(stack: Stack) -> ContainerArgs:
    return ContainerArgs(
        name="prometheus",
        image=stack.images.prometheus,
        args=[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=6h",
            "--storage.tsdb.retention.size=1GB",
            f"--web.listen-address=$(POD_IP):{PORT}",
            "--log.level=warn",
        ],
        env=_pod.environment(),
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/-/ready", "http", period_s=1, failures=60),
        readiness_probe=_pod.probe("/-/ready", "http"),
        liveness_probe=_pod.probe("/-/healthy", "http", period_s=10, failures=6),
        resources=_pod.resources("100m", "128Mi", "1Gi"),
        security_context=_pod.container_security(),
        volume_mounts=[
            VolumeMountArgs(name="config", mount_path="/etc/prometheus", read_only=True),
            VolumeMountArgs(name="data", mount_path="/prometheus"),
        ],
    )
