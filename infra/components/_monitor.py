"""What the programs of the Prometheus project have in common: flags, probes, and volumes by the program's name."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_kubernetes.core.v1 import (
    ContainerArgs,
    ContainerPortArgs,
    VolumeArgs,
    VolumeMountArgs,
)

from infra.components import _pod
from switchboard.podspec import Spec


def container(name: str, image: str, *, port: int, args: Sequence[str], resources: Spec) -> ContainerArgs:
    """`prometheus` or `alertmanager`: its configuration in `/etc/<name>`, its data in `/<name>`."""
    return _pod.container(
        name,
        image,
        args=[
            f"--config.file=/etc/{name}/{name}.yml",
            *args,
            f"--web.listen-address=$(POD_IP):{port}",
            "--log.level=warn",
        ],
        ports=[ContainerPortArgs(name="http", container_port=port)],
        startup_probe=_pod.probe("/-/ready", "http", period_s=1, failures=60),
        readiness_probe=_pod.probe("/-/ready", "http"),
        liveness_probe=_pod.probe("/-/healthy", "http", period_s=10, failures=6),
        resources=resources,
        mounts=[
            VolumeMountArgs(name="config", mount_path=f"/etc/{name}", read_only=True),
            VolumeMountArgs(name="data", mount_path=f"/{name}"),
        ],
    )


def volumes(config_map: pulumi.Input[str], *, data: str) -> list[VolumeArgs]:
    """The volumes that `container` mounts; `data` is the size of what is kept as long as the pod lives."""
    return [_pod.config_volume("config", config_map), _pod.scratch("data", data)]
