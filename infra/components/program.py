"""What a stack consists of: the components, in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from infra.components.alertmanager import Alertmanager, AlertmanagerArgs
from infra.components.champion import Champion, ChampionArgs
from infra.components.edge import EdgeArgs, EdgeLocation
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.mlflow import Mlflow, MlflowArgs
from infra.components.model_server import ModelServerArgs, ModelServerSet, Placement
from infra.components.network import NetworkPolicies
from infra.components.pod_reader import PodReader
from infra.components.prometheus import Prometheus, PrometheusArgs
from infra.components.site import SiteNamespace
from infra.config import ModelServer, Stack
from infra.namespaces import CORE_NAMESPACE, SERVING_NAMESPACE
from switchboard.outputs import ModelServerOutputs


def deploy(stack: Stack, *, state: Path, secrets: Mapping[str, pulumi.Input[str]] | None = None) -> None:
    """Declare all resources of `stack` and export what other tools need (`switchboard.outputs`).

    `state` is where embedded sites keep theirs; `secrets` has the values of `stack.secrets_needed`, by their keys.
    Without it they are placeholders: for who looks at the declarations and applies nothing.
    """
    values = {key: pulumi.Output.secret(f"<{key}>") for key in stack.secrets_needed} | dict(secrets or {})
    core = SiteNamespace(stack.private, CORE_NAMESPACE, state=state, domain=stack.domain)
    NetworkPolicies(core, stack)
    alertmanager = Alertmanager(core, AlertmanagerArgs(stack.images.alertmanager))
    mlflow = Mlflow(core, MlflowArgs(stack.image("mlflow"), stack.mlflow, stack.storage_class, values))
    champions: list[pulumi.Resource] = []
    for server in {(server.model, server.alias): server for server in stack.model_servers}.values():
        champions.append(Champion(core, ChampionArgs(server, stack.image("training"), mlflow.url)).job)

    sites: dict[str, dict[str, Any]] = {}
    addresses: dict[str, pulumi.Output[str]] = {}
    for site in stack.public:
        serving = SiteNamespace(site, SERVING_NAMESPACE, state=state, domain=stack.domain)
        NetworkPolicies(serving, stack)
        prometheus = Prometheus(serving, PrometheusArgs(stack.images.prometheus, alertmanager.address))
        identity = PodReader(serving, "gateway", "gateway")
        place = Placement("core", site.region, stack.gateway_replicas)
        gateway = Gateway(serving, _gateway(stack, "gateway", place, "gateway"), identity)
        for server in stack.model_servers:
            place = Placement("core", site.region, server.replicas)
            ModelServerSet(serving, _server(stack, server, place, mlflow.url), after=champions)
        edges = {
            edge.region: EdgeLocation(
                serving, _edge(stack, edge.region, mlflow.url), identity, after=champions
            ).url
            for edge in site.edges
        }
        addresses[site.name] = prometheus.address
        sites[site.name] = _outputs(serving, prometheus, gateway=gateway.url, edges=edges)

    prometheus = Prometheus(core, PrometheusArgs(stack.images.prometheus, alertmanager.address, addresses))
    alerts = pulumi.Output.concat("http://", alertmanager.address)
    sites[stack.private.name] = _outputs(core, prometheus, mlflow=mlflow.url, alertmanager=alerts)
    _export(stack, sites)


def _outputs(namespace: SiteNamespace, prometheus: Prometheus, **addresses: Any) -> dict[str, Any]:
    """A site's outputs (`switchboard.outputs.SiteOutputs`)."""
    site = namespace.site
    return {
        "role": site.role,
        "region": site.region,
        "namespace": namespace.name,
        "context": namespace.context,
        "kubeconfig": namespace.kubeconfig,
        "prometheus": prometheus.url,
        **addresses,
    }


def _export(stack: Stack, sites: dict[str, dict[str, Any]]) -> None:
    private = sites[stack.private.name]
    pulumi.export("sites", sites)
    pulumi.export(
        "endpoints",
        {
            "gateways": {site.name: sites[site.name]["gateway"] for site in stack.public},
            "edges": {
                region: url for site in stack.public for region, url in sites[site.name]["edges"].items()
            },
            **{name: private[name] for name in ("mlflow", "prometheus", "alertmanager")},
        },
    )
    edges = [edge.region for site in stack.public for edge in site.edges]
    servers = {
        server.name: ModelServerOutputs(
            path=f"/v1/{server.name}",
            model=server.model,
            alias=server.alias,
            image=stack.image(server.name),
            sites=tuple(site.name for site in stack.public),
            edges=tuple(edges) if server.edge_replicas else (),
            data_class=server.data_class,
            data_regions=server.data_regions,
        )
        for server in stack.model_servers
    }
    pulumi.export(
        "modelServers", {name: one.model_dump(mode="json", by_alias=True) for name, one in servers.items()}
    )


def _edge(stack: Stack, region: str, mlflow_url: pulumi.Input[str]) -> EdgeArgs:
    servers = [server for server in stack.model_servers if server.edge_replicas]
    return EdgeArgs(
        region,
        _gateway(stack, f"gateway-{region}", Placement("edge", region, 1), "edge"),
        [
            _server(stack, server, Placement("edge", region, server.edge_replicas), mlflow_url)
            for server in servers
        ],
    )


def _gateway(stack: Stack, name: str, place: Placement, endpoint: str) -> GatewayArgs:
    return GatewayArgs(name, place, endpoint, stack.images.envoy, stack.image("gateway"), stack.model_servers)


def _server(
    stack: Stack, server: ModelServer, place: Placement, mlflow_url: pulumi.Input[str]
) -> ModelServerArgs:
    return ModelServerArgs(server, place, stack.image(server.name), mlflow_url, stack.storage_class)
