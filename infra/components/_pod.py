"""Pods and containers of the components, with what all of Switchboard's pods have in common (`switchboard.podspec`).

Components make their pods and containers here only, so that none of it can be forgotten. Parts of podspec's are plain
mappings, in Kubernetes' own spelling, which Pulumi's types take as they are.

There are no PriorityClasses: they are the whole cluster's, which its owners share out, and what a site of
Switchboard's could let go for its gateways and model servers is one Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import (
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    EmptyDirVolumeSourceArgs,
    PodSpecArgs,
    SecretVolumeSourceArgs,
    VolumeArgs,
    VolumeMountArgs,
)

from switchboard import podspec
from switchboard.podspec import Spec, Tier, names, probe, resources, scraped

__all__ = [
    "Tier",
    "config_volume",
    "container",
    "first_address",
    "names",
    "pod",
    "probe",
    "resources",
    "scraped",
    "scratch",
    "secret_volume",
    "spread",
]


def pod(
    account: pulumi.Input[str],
    containers: Sequence[ContainerArgs],
    *,
    volumes: Sequence[VolumeArgs] = (),
    tier: Tier = "core",
    region: str | None = None,
    token: bool = False,
    grace_s: int = 30,
    **more: Any,
) -> PodSpecArgs:
    """A pod of the service account `account`; `token`: it speaks to the API server. `more` is as in PodSpecArgs."""
    return PodSpecArgs(
        service_account_name=account,
        automount_service_account_token=token,
        # Names of Services come by DNS; a variable for each Service of the namespace would change with its neighbours.
        enable_service_links=False,
        security_context=podspec.security(),
        affinity=podspec.placement(tier, region),
        tolerations=podspec.tolerations(tier),
        termination_grace_period_seconds=grace_s,
        containers=list(containers),
        volumes=list(volumes),
        **more,
    )


def container(
    name: str,
    image: pulumi.Input[str],
    *,
    resources: Spec,
    env: Mapping[str, pulumi.Input[str]] | None = None,
    mounts: Sequence[VolumeMountArgs] = (),
    **more: Any,
) -> ContainerArgs:
    """A container at the restricted level; `env` beside the pod's address and names. `more` is as in ContainerArgs."""
    return ContainerArgs(
        name=name,
        image=image,
        # A digest means one content for ever, so there is nothing to ask a registry again; and a pod must start again
        # on its node while the registry, or the site's way to it, is down.
        image_pull_policy="IfNotPresent",
        env=podspec.environment(env),
        resources=resources,
        security_context=podspec.container_security(),
        volume_mounts=list(mounts),
        **more,
    )


def scratch(name: str, size: str) -> VolumeArgs:
    """A volume of the node's disk that lives as long as its pod."""
    return VolumeArgs(name=name, empty_dir=EmptyDirVolumeSourceArgs(size_limit=size))


def config_volume(name: str, config_map: pulumi.Input[str]) -> VolumeArgs:
    """A volume that shows a ConfigMap."""
    return VolumeArgs(name=name, config_map=ConfigMapVolumeSourceArgs(name=config_map))


def secret_volume(name: str, secret: pulumi.Input[str], *, optional: bool = False) -> VolumeArgs:
    """A volume that shows a Secret; `optional`: a pod starts without it."""
    return VolumeArgs(name=name, secret=SecretVolumeSourceArgs(secret_name=secret, optional=optional or None))


def spread(match: Mapping[str, str], *, bound: bool) -> list[Spec]:
    """`podspec.spread`, over nodes strictly unless a volume binds the pods to a node."""
    return podspec.spread(match, strict=not bound)


def first_address(status: Any) -> str:
    """The address of a LoadBalancer Service, from its status."""
    ingress = ((status or {}).get("load_balancer") or {}).get("ingress") or []
    for entry in ingress:
        if address := entry.get("ip") or entry.get("hostname"):
            return address
    if pulumi.runtime.is_dry_run():
        return "address-known-after-up"
    raise ValueError("the Service has no load-balancer address")
