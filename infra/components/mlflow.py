"""MLflow: tracking, registry and artifacts, in the private site (see `infra.components.mlflow_store` for its data).

It asks everybody who they are (`models.access`); `/health` and `/livez` alone are for whoever asks, as probes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import ContainerArgs, ContainerPortArgs, PodTemplateSpecArgs, VolumeMountArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs

from infra.components import _data, _pod
from infra.components.account import account
from infra.components.budget import disruption_budget
from infra.components.mlflow_store import Store, in_database, on_volume
from infra.components.site import SiteNamespace
from infra.config import MlflowStore
from switchboard.data import DataClass

PORT = 5000

CLIENT_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Where artifacts are in a bucket, MLflow's client would go there by itself, by links that the server signs; only
    # the server is known to reach it.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Of every program that uses MLflow's own client."""


@dataclass(frozen=True)
class MlflowArgs:
    """The image, where the data is, the Secret with the list of users, the class of a volume for the data (None: the
    cluster's default), and by the keys of `infra.config.SECRETS` what a database and a bucket take."""

    image: str
    store: MlflowStore
    accounts: pulumi.Input[str]
    storage_class: str | None = None
    secrets: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


def data_of(namespace: SiteNamespace) -> _data.Data:
    """What MLflow and those who train see: models are made of customers' data, which stays where the registry is."""
    return _data.Data(DataClass.RESTRICTED, frozenset({namespace.site.region}))


class Mlflow(pulumi.ComponentResource):
    """Outputs: `url`, reachable from every site."""

    url: pulumi.Output[str]

    def __init__(self, namespace: SiteNamespace, args: MlflowArgs) -> None:
        super().__init__("switchboard:infra:Mlflow", "mlflow", None, pulumi.ResourceOptions(parent=namespace))
        match = _pod.names("mlflow", "registry")
        data = data_of(namespace)
        # The Service comes first: its address is one of the few that MLflow answers to.
        self.service, address = namespace.load_balancer(
            self, "mlflow", selector=match, port=PORT, target="http", endpoint="mlflow"
        )
        store = _store(namespace, self, args, match, data)
        replicas = args.store.replicas
        self.deployment = Deployment(
            "mlflow",
            metadata=_data.workload_meta(namespace, "mlflow", match, data, checkov=store.exceptions),
            spec=DeploymentSpecArgs(
                replicas=replicas,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=_strategy(args.store),
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(namespace, match, data),
                    spec=_pod.pod(
                        account(namespace, "mlflow", "registry", parent=self),
                        [_container(args.image, store, _allowed_hosts(namespace.name, address))],
                        volumes=[*store.volumes, _pod.scratch("tmp", "1Gi")],
                        grace_s=10,
                        topology_spread_constraints=_pod.spread(match, bound=False) if replicas > 1 else None,
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=store.after),
        )
        disruption_budget(namespace, "mlflow", match, replicas, parent=self)
        self.url = pulumi.Output.concat("http://", address)
        self.register_outputs({"url": self.url})


def _store(
    namespace: SiteNamespace,
    parent: pulumi.Resource,
    args: MlflowArgs,
    match: Mapping[str, str],
    data: _data.Data,
) -> Store:
    chosen = args.store
    if chosen.database is None or chosen.artifacts is None:
        return on_volume(
            namespace,
            parent,
            match=match,
            data=data,
            accounts=args.accounts,
            size=chosen.storage,
            storage_class=args.storage_class,
        )
    return in_database(
        namespace,
        parent,
        image=args.image,
        data=data,
        accounts=args.accounts,
        database=chosen.database,
        artifacts=chosen.artifacts,
        secrets=args.secrets,
    )


def _strategy(store: MlflowStore) -> DeploymentStrategyArgs:
    if store.database is None:
        return DeploymentStrategyArgs(type="Recreate")
    return DeploymentStrategyArgs(
        type="RollingUpdate", rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0)
    )


def _allowed_hosts(namespace: str, address: pulumi.Input[str]) -> pulumi.Output[str]:
    """The Host headers that MLflow answers to, each in full: a browser sends its user's password along, so a web page
    that gets it to speak to MLflow under another name (DNS rebinding) must be refused; a pattern such as `127.*` would
    let it in."""
    service = f"mlflow.{namespace}"
    own = ["$(POD_IP)", "mlflow", service, f"{service}.svc", f"{service}.svc.cluster.local", "localhost"]
    return pulumi.Output.concat(address, *(f",{host}:{PORT}" for host in own))


def _container(image: str, store: Store, allowed_hosts: pulumi.Input[str]) -> ContainerArgs:
    return _pod.container(
        "mlflow",
        image,
        command=["mlflow", "server"],
        args=[
            "--host=$(POD_IP)",
            f"--port={PORT}",
            "--workers=1",
            "--app-name=switchboard",
            *store.arguments,
            "--serve-artifacts",
            pulumi.Output.concat("--allowed-hosts=", allowed_hosts),
        ],
        env={
            "HOME": "/tmp",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Background job workers of MLflow: another process of 300 MB each, which nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **store.env,
        },
        env_from=store.env_from or None,
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/health", "http", period_s=1, failures=120),
        readiness_probe=_pod.probe("/health", "http", period_s=5),
        liveness_probe=_pod.probe("/livez", "http", period_s=10, failures=6, timeout_s=5),
        resources=_pod.resources("250m", "768Mi", "2Gi", scratch="1Gi"),
        mounts=[*store.mounts, VolumeMountArgs(name="tmp", mount_path="/tmp")],
    )
