"""What a stack consists of: the components, in the order in which they need each other."""

from __future__ import annotations

from pathlib import Path

import pulumi

from infra.components.alertmanager import Alertmanager
from infra.components.champion import Champion
from infra.components.edge import EdgeLocation
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.mlflow import Mlflow
from infra.components.model_server import ModelServerSet, Placement
from infra.components.pod_reader import PodReader
from infra.components.prometheus import Prometheus
from infra.components.site import SiteNamespace
from infra.config import Stack

CORE_NAMESPACE = "switchboard-core"
SERVING_NAMESPACE = "switchboard-serving"


def deploy(stack: Stack, *, state: Path) -> None:
    """Declare all resources of `stack` and export its endpoints; `state` is where embedded sites keep theirs."""
    core = SiteNamespace(stack.private, CORE_NAMESPACE, state=state)
    alertmanager = Alertmanager(core, stack)
    mlflow = Mlflow(core, stack)
    champions: list[pulumi.Resource] = []
    for server in {(server.model, server.alias): server for server in stack.model_servers}.values():
        champions.append(Champion(core, stack, server, mlflow).job)

    gateways: dict[str, pulumi.Output[str]] = {}
    edges: dict[str, pulumi.Output[str]] = {}
    prometheus: dict[str, pulumi.Output[str]] = {}
    for site in stack.public:
        serving = SiteNamespace(site, SERVING_NAMESPACE, state=state)
        prometheus[site.name] = Prometheus(serving, stack, alertmanager=alertmanager.address).address
        identity = PodReader(serving, "gateway", "gateway")
        gateway = Gateway(
            serving,
            stack,
            GatewayArgs("gateway", Placement("core", site.region, stack.gateway_replicas), "gateway"),
            identity,
        )
        gateways[site.name] = gateway.url
        for server in stack.model_servers:
            ModelServerSet(
                serving,
                stack,
                server,
                Placement("core", site.region, server.replicas),
                mlflow_url=mlflow.url,
                after=champions,
            )
        for edge in site.edges:
            location = EdgeLocation(serving, stack, edge, identity, mlflow_url=mlflow.url, after=champions)
            edges[edge.region] = location.url

    federating = Prometheus(core, stack, alertmanager=alertmanager.address, federated=prometheus)
    pulumi.export(
        "endpoints",
        {"gateways": gateways, "edges": edges, "mlflow": mlflow.url, "prometheus": federating.url},
    )
