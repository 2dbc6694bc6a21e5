"""The first champion: a Job that trains and registers a model where the registry has none.

It is done once; a registry that has a champion (of any origin) is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.batch.v1 import Job, JobSpecArgs
from pulumi_kubernetes.core.v1 import PodTemplateSpecArgs, VolumeMountArgs

from infra.components import _data, _pod
from infra.components.account import account
from infra.components.mlflow import CLIENT_ENVIRONMENT, data_of
from infra.components.site import SiteNamespace
from infra.config import ModelServer
from switchboard.registry_users import FOLDER, FOLDER_VARIABLE


@dataclass(frozen=True)
class ChampionArgs:
    """Whose model, by which image, in which registry, and the Secret of the user that it is there."""

    server: ModelServer
    image: str
    mlflow_url: pulumi.Input[str]
    user: pulumi.Input[str]

    @property
    def name(self) -> str:
        """What its objects are called after. Two servers may serve one model by different aliases: each has a Job."""
        server = self.server
        return server.model if server.alias == "champion" else f"{server.model}-{server.alias}"


class Champion(pulumi.ComponentResource):
    """Outputs: `job`, which completes when the registry has the model by its alias."""

    job: Job

    def __init__(self, namespace: SiteNamespace, args: ChampionArgs) -> None:
        super().__init__(
            "switchboard:infra:Champion", args.name, None, pulumi.ResourceOptions(parent=namespace)
        )
        match = _pod.names(args.name, "training")
        data = data_of(namespace)
        name = f"train-{args.name}"
        self.job = Job(
            name,
            metadata=_data.workload_meta(namespace, name, match, data),
            spec=JobSpecArgs(
                backoff_limit=3,
                active_deadline_seconds=600,
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(namespace, match, data),
                    spec=_pod.pod(
                        account(namespace, name, "training", parent=self),
                        [
                            _pod.container(
                                "train",
                                args.image,
                                command=["python", "-m", "models.bootstrap"],
                                args=[f"--model={args.server.model}", f"--alias={args.server.alias}"],
                                env={
                                    "HOME": "/tmp",
                                    "MLFLOW_TRACKING_URI": args.mlflow_url,
                                    FOLDER_VARIABLE: FOLDER,
                                    **CLIENT_ENVIRONMENT,
                                },
                                resources=_pod.resources("500m", "512Mi", "2Gi", scratch="1Gi"),
                                mounts=[
                                    VolumeMountArgs(name="tmp", mount_path="/tmp"),
                                    VolumeMountArgs(name="mlflow-user", mount_path=FOLDER, read_only=True),
                                ],
                            )
                        ],
                        volumes=[
                            _pod.scratch("tmp", "1Gi"),
                            _pod.secret_volume("mlflow-user", args.user),
                        ],
                        restart_policy="Never",
                    ),
                ),
            ),
            opts=namespace.child(self),
        )
        self.register_outputs({})
