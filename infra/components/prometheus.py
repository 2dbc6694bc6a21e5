"""Prometheus of a site: it scrapes its site's pods; the private one also federates the others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import yaml
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs, DeploymentStrategyArgs
from pulumi_kubernetes.core.v1 import ConfigMap, PodTemplateSpecArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components import _data, _monitor, _pod
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace
from switchboard import labels

PORT = 9090
SCRAPE_S = {"public": 2, "private": 5}
_EXCEPTIONS = {
    "CKV_K8S_38": "it finds its targets by the token, the pods of its namespace, and may do nothing else"
}
"""From checkov's checks, which are on the object for whoever looks at it there."""

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


@dataclass(frozen=True)
class PrometheusArgs:
    """Its image, the Alertmanager it tells (`host:port`), and the sites it federates: name → `host:port`."""

    image: str
    alertmanager: pulumi.Input[str]
    federated: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class Prometheus(pulumi.ComponentResource):
    """One replica, without a disruption budget, which would block every drain of its node: what it measured is lost
    when it moves (6 h at most), and until it is there again (seconds) alerts rest.

    Outputs: `address` (`host:port`) and `url`, reachable from every site.
    """

    address: pulumi.Output[str]
    url: pulumi.Output[str]

    def __init__(self, namespace: SiteNamespace, args: PrometheusArgs) -> None:
        site = namespace.site
        super().__init__(
            "switchboard:infra:Prometheus",
            f"{site.name}-prometheus",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        match = _pod.names("prometheus", "monitoring")
        identity = PodReader(namespace, "prometheus", "monitoring")
        text = pulumi.Output.all(alertmanager=args.alertmanager, federated=args.federated).apply(
            lambda given: yaml.safe_dump(
                configuration(
                    site.name, namespace.name, site.role, given["alertmanager"], given["federated"]
                ),
                sort_keys=False,
            )
        )
        config = ConfigMap(
            f"{site.name}-prometheus",
            metadata=_data.meta(namespace, None, match, _data.INTERNAL),
            data={"prometheus.yml": text, "rules.yml": yaml.safe_dump(RULES, sort_keys=False)},
            opts=namespace.child(self),
        )
        Deployment(
            f"{site.name}-prometheus",
            metadata=_data.workload_meta(namespace, "prometheus", match, _data.INTERNAL, checkov=_EXCEPTIONS),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(type="Recreate"),
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(namespace, match, _data.INTERNAL, annotations=_pod.scraped(PORT)),
                    spec=_pod.pod(
                        identity.account,
                        [
                            _monitor.container(
                                "prometheus",
                                args.image,
                                port=PORT,
                                args=[
                                    "--storage.tsdb.path=/prometheus",
                                    "--storage.tsdb.retention.time=6h",
                                    "--storage.tsdb.retention.size=1GB",
                                ],
                                resources=_pod.resources("100m", "128Mi", "1Gi", scratch="2Gi"),
                            )
                        ],
                        volumes=_monitor.volumes(config.metadata.name, data="2Gi"),
                        token=True,
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[identity.binding]),
        )
        self.service, self.address = namespace.load_balancer(
            self, "prometheus", selector=match, port=PORT, target="http", endpoint="prometheus"
        )
        self.url = pulumi.Output.concat("http://", self.address)
        self.register_outputs({"address": self.address, "url": self.url})
