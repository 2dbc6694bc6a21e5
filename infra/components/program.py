"""What a stack consists of: the components, in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from infra.components.admission import Admission
from infra.components.alertmanager import Alertmanager, AlertmanagerArgs
from infra.components.champion import Champion, ChampionArgs
from infra.components.definitions import definitions
from infra.components.edge import EdgeArgs, EdgeLocation
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.mlflow import Mlflow, MlflowArgs
from infra.components.model_server import ModelServerArgs, ModelServerSet, Placement
from infra.components.network import NetworkPolicies
from infra.components.operator import Operator, OperatorArgs
from infra.components.pod_reader import PodReader
from infra.components.prometheus import Prometheus, PrometheusArgs
from infra.components.registry_users import RegistryUsers, RegistryUsersArgs
from infra.components.site import SiteNamespace
from infra.config import ModelServer, Stack
from infra.namespaces import CORE_NAMESPACE, SERVING_NAMESPACE
from infra.stack_secrets import USER_KEY
from switchboard.outputs import ModelServerOutputs


def deploy(stack: Stack, *, state: Path, secrets: Mapping[str, pulumi.Input[str]] | None = None) -> None:
    """Declare all resources of `stack` and export what other tools need (`switchboard.outputs`).

    `state` is where embedded sites keep theirs; `secrets` has the values of `infra.stack_secrets`, by their keys.
    Without it they are placeholders: for who looks at the declarations and applies nothing.
    """
    keys = {*stack.secrets_needed, USER_KEY}
    values = {key: pulumi.Output.secret(f"<{key}>") for key in keys} | dict(secrets or {})
    core = SiteNamespace(stack.private, CORE_NAMESPACE, state=state, domain=stack.domain)
    NetworkPolicies(core, stack)
    alertmanager = Alertmanager(core, AlertmanagerArgs(stack.images.alertmanager))
    users = RegistryUsers(core, RegistryUsersArgs(values[USER_KEY], stack.mlflow_users))
    mlflow = Mlflow(
        core,
        MlflowArgs(stack.image("mlflow"), stack.mlflow, users.accounts, stack.storage_class, values),
    )
    trainer = users.secrets["trainer"].metadata.name
    champions: list[pulumi.Resource] = []
    for server in {(server.model, server.alias): server for server in stack.model_servers}.values():
        champions.append(
            Champion(core, ChampionArgs(server, stack.image("training"), mlflow.url, trainer)).job
        )

    sites: dict[str, dict[str, Any]] = {}
    addresses: dict[str, pulumi.Output[str]] = {}
    for site in stack.public:
        serving = SiteNamespace(site, SERVING_NAMESPACE, state=state, domain=stack.domain)
        NetworkPolicies(serving, stack)
        prometheus = Prometheus(serving, PrometheusArgs(stack.images.prometheus, alertmanager.address))
        identity = PodReader(serving, "gateway", "gateway", model_servers=True)
        place = Placement("core", site.region, stack.gateway_replicas)
        gateway = Gateway(serving, _gateway(stack, "gateway", place, "gateway"), identity)
        defined = definitions(serving)
        Admission(serving)
        release = users.secret(serving, "release").metadata.name
        operator = Operator(
            serving,
            OperatorArgs(stack.image("operator"), mlflow.url, release, stack.releases),
            definitions=defined,
        )
        # A champion to serve, and somebody to make replicas of the object; the objects are gone before either is.
        after = [*champions, *defined, users.secret(serving, "serving"), operator.deployment]
        place = Placement("core", site.region)
        for server in stack.model_servers:
            ModelServerSet(serving, _server(stack, server, place, mlflow.url), after=after)
        edges = {
            edge.region: EdgeLocation(
                serving, _edge(stack, edge.region, mlflow.url), identity, after=after
            ).url
            for edge in site.edges
        }
        addresses[site.name] = prometheus.address
        sites[site.name] = _outputs(
            serving,
            prometheus,
            gateway=gateway.url,
            edges=edges,
            releaseKey=users.signing_key(site.name),
        )

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
            edges=tuple(edges) if server.on_edges else (),
            data_class=server.data_class,
            data_regions=server.data_regions,
        )
        for server in stack.model_servers
    }
    pulumi.export(
        "modelServers", {name: one.model_dump(mode="json", by_alias=True) for name, one in servers.items()}
    )


def _edge(stack: Stack, region: str, mlflow_url: pulumi.Input[str]) -> EdgeArgs:
    place = Placement("edge", region)
    return EdgeArgs(
        region,
        _gateway(stack, f"gateway-{region}", place, "edge"),
        [_server(stack, server, place, mlflow_url) for server in stack.model_servers if server.on_edges],
    )


def _gateway(stack: Stack, name: str, place: Placement, endpoint: str) -> GatewayArgs:
    return GatewayArgs(name, place, endpoint, stack.images.envoy, stack.image("gateway"), stack.model_servers)


def _server(
    stack: Stack, server: ModelServer, place: Placement, mlflow_url: pulumi.Input[str]
) -> ModelServerArgs:
    storage = stack.storage_class if place.tier == "edge" else stack.shared_storage_class
    return ModelServerArgs(server, place, stack.image(server.name), mlflow_url, storage)
