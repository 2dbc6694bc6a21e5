"""The custom resources that a site's API server is told of, before there are any."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions.v1 import CustomResourceDefinition
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components.site import SiteNamespace, site_labels
from infra.plugin.wire import from_kubernetes
from switchboard.api import model_release, model_server


def definitions(namespace: SiteNamespace) -> tuple[CustomResourceDefinition, ...]:
    """Those of ModelServers and ModelReleases in a namespace's site; they are there for the whole cluster."""
    return tuple(
        _definition(namespace, name, made)
        for name, made in (("model-servers", model_server.crd()), ("model-releases", model_release.crd()))
    )


def _definition(namespace: SiteNamespace, name: str, made: dict[str, Any]) -> CustomResourceDefinition:
    return CustomResourceDefinition(
        f"{namespace.site.name}-{name}",
        metadata=ObjectMetaArgs(name=made["metadata"]["name"], labels=site_labels(namespace.site)),
        # Keys such as `x-kubernetes-validations` as Pulumi's types name them.
        spec=from_kubernetes(made["spec"]),
        opts=pulumi.ResourceOptions(parent=namespace, provider=namespace.provider),
    )
