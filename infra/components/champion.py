"""The first champion: a Job that trains and registers a model where the registry has none.

It is done once; a registry that has a champion (of any origin) is left as it is.
"""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.batch.v1 import Job, JobSpecArgs
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    EmptyDirVolumeSourceArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    VolumeArgs,
    VolumeMountArgs,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components import _pod
from infra.components.mlflow import Mlflow
from infra.components.site import SiteNamespace
from infra.config import ModelServer, Stack


class Champion(pulumi.ComponentResource):
    """The Job for one model server's model; `job` completes when the registry has its alias."""

    def __init__(self, namespace: SiteNamespace, stack: Stack, server: ModelServer, mlflow: Mlflow) -> None:
        # Two servers may serve one model by different aliases: each alias has a Job of its own.
        name = server.model if server.alias == "champion" else f"{server.model}-{server.alias}"
        super().__init__("switchboard:infra:Champion", name, None, pulumi.ResourceOptions(parent=namespace))
        match = _pod.names(name, "training")
        self.job = Job(
            f"train-{name}",
            metadata=namespace.meta(f"train-{name}", match),
            spec=JobSpecArgs(
                backoff_limit=3,
                active_deadline_seconds=600,
                template=PodTemplateSpecArgs(
                    metadata=ObjectMetaArgs(labels=match),
                    spec=PodSpecArgs(
                        restart_policy="Never",
                        security_context=_pod.security(),
                        automount_service_account_token=False,
                        containers=[
                            ContainerArgs(
                                name="train",
                                image=stack.images.switchboard,
                                command=["python", "-m", "models.bootstrap"],
                                args=[f"--model={server.model}", f"--alias={server.alias}"],
                                env=_pod.environment(
                                    {
                                        "HOME": "/tmp",
                                        "MLFLOW_TRACKING_URI": mlflow.url,
                                        "MLFLOW_DISABLE_TELEMETRY": "true",
                                    }
                                ),
                                resources=_pod.resources("500m", "512Mi", "2Gi"),
                                security_context=_pod.container_security(),
                                volume_mounts=[VolumeMountArgs(name="tmp", mount_path="/tmp")],
                            )
                        ],
                        volumes=[
                            VolumeArgs(name="tmp", empty_dir=EmptyDirVolumeSourceArgs(size_limit="1Gi"))
                        ],
                    ),
                ),
            ),
            opts=namespace.child(self),
        )
        self.register_outputs({})
