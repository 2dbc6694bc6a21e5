"""MLflow: tracking, registry and artifacts, with its store on a volume of the private site."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment, DeploymentSpecArgs, DeploymentStrategyArgs
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpecArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    VolumeArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.components import _pod
from infra.components.site import SiteNamespace
from infra.config import Stack

PORT = 5000


class Mlflow(pulumi.ComponentResource):
    """One replica: its store is SQLite on a volume that one pod may open at a time.

    Outputs: `url`, reachable from every site.
    """

    def __init__(self, namespace: SiteNamespace, stack: Stack) -> None:
        super().__init__("switchboard:infra:Mlflow", "mlflow", None, pulumi.ResourceOptions(parent=namespace))
        match = _pod.names("mlflow", "registry")
        # The Service comes first: its address is one of the few that MLflow answers to.
        self.service, address = namespace.load_balancer(
            self, "mlflow", selector=match, port=PORT, target="http", endpoint="mlflow"
        )
        claim = PersistentVolumeClaim(
            "mlflow-store",
            metadata=namespace.meta("mlflow-store", match),
            spec=PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteOnce"],
                storage_class_name=stack.storage_class,
                resources=VolumeResourceRequirementsArgs(requests={"storage": stack.mlflow.storage}),
            ),
            opts=namespace.child(self),
        )
        self.deployment = Deployment(
            "mlflow",
            metadata=namespace.meta("mlflow", match),
            spec=DeploymentSpecArgs(
                replicas=1,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(type="Recreate"),
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=match),
                    spec=PodSpecArgs(
                        security_context=_pod.security(),
                        automount_service_account_token=False,
                        termination_grace_period_seconds=10,
                        containers=[_container(stack, _allowed_hosts(namespace.name, address))],
                        volumes=[
                            VolumeArgs(
                                name="store",
                                persistent_volume_claim=PersistentVolumeClaimVolumeSourceArgs(
                                    claim_name=claim.metadata.name
                                ),
                            ),
                            VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="1Gi")),
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self),
        )
        self.url = pulumi.Output.concat("http://", address)
        self.register_outputs({"url": self.url})


def _allowed_hosts(namespace: str, address: pulumi.Input[str]) -> pulumi.Output[str]:
    """The Host headers that MLflow answers to, each in full: it has no login, so a web page that gets a browser to
    speak to it under another name (DNS rebinding) must be refused; a pattern such as `127.*` would let it in."""
    service = f"mlflow.{namespace}"
    own = ["$(POD_IP)", "mlflow", service, f"{service}.svc", f"{service}.svc.cluster.local", "localhost"]
    return pulumi.Output.concat(address, *(f",{host}:{PORT}" for host in own))


def _container(stack: Stack, allowed_hosts: pulumi.Input[str]) -> ContainerArgs:
    return ContainerArgs(
        name="mlflow",
        image=stack.images.switchboard,
        command=["mlflow", "server"],
        args=[
            "--host=$(POD_IP)",
            f"--port={PORT}",
            "--workers=1",
            "--backend-store-uri=sqlite:////data/mlflow.db",
            "--artifacts-destination=/data/artifacts",
            "--serve-artifacts",
            pulumi.Output.concat("--allowed-hosts=", allowed_hosts),
        ],
        env=_pod.environment(
            {
                "HOME": "/tmp",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                # Background job workers of MLflow: another process of 300 MB each, which nothing here uses.
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            }
        ),
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/health", "http", period_s=1, failures=120),
        readiness_probe=_pod.probe("/health", "http", period_s=5),
        liveness_probe=_pod.probe("/health", "http", period_s=10, failures=6, timeout_s=5),
        resources=_pod.resources("250m", "768Mi", "2Gi"),
        security_context=_pod.container_security(),
        volume_mounts=[
            VolumeMountArgs(name="store", mount_path="/data"),
            VolumeMountArgs(name="tmp", mount_path="/tmp"),
        ],
    )
