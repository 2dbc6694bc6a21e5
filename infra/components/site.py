"""A site as the components see it: a provider for its cluster and a namespace at the restricted level."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_kubernetes.core.v1 import Namespace, Service, ServiceSpecArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components import _pod
from infra.config import Site
from infra.local.layout import SiteLayout
from switchboard import labels


class SiteNamespace(pulumi.ComponentResource):
    """One site's namespace for Switchboard.

    `child()` gives the options of a resource in it; `load_balancer()` makes a Service that is reached from outside.
    """

    def __init__(
        self, site: Site, namespace: str, *, state: Path, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("switchboard:infra:Site", site.name, None, opts)
        self.site = site
        self.provider = _provider(site, state, pulumi.ResourceOptions(parent=self))
        self.name = namespace
        self._namespace = Namespace(
            f"{site.name}-{namespace}",
            metadata=ObjectMetaArgs(
                name=namespace,
                labels={
                    labels.SITE: site.name,
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/warn": "restricted",
                },
            ),
            opts=pulumi.ResourceOptions(parent=self, provider=self.provider),
        )
        self.register_outputs({"namespace": namespace})

    def child(
        self, parent: pulumi.Resource, *, depends_on: list[pulumi.Resource] | None = None
    ) -> pulumi.ResourceOptions:
        """Options of a resource in this namespace: made after it, removed before it."""
        return pulumi.ResourceOptions(
            parent=parent, provider=self.provider, depends_on=[self._namespace, *(depends_on or [])]
        )

    def meta(
        self,
        name: str | None,
        object_labels: dict[str, str],
        annotations: dict[str, str] | None = None,
    ) -> ObjectMetaArgs:
        """Metadata in this namespace; without a name Pulumi gives one, and a change makes a new object."""
        return ObjectMetaArgs(
            name=name, namespace=self.name, labels=object_labels, annotations=annotations or None
        )

    def annotate_service(self, *, load_balancer: bool = False) -> dict[str, str]:
        """How Pulumi waits for a Service: for a load balancer's address only, since pods may need it to start; for
        others not at all in the embedded cloud, which has no endpoints objects to wait for."""
        if load_balancer:
            return {"pulumi.com/waitFor": "jsonpath={.status.loadBalancer.ingress[0]}"}
        return {"pulumi.com/skipAwait": "true"} if self.site.embedded is not None else {}

    def load_balancer(
        self,
        parent: pulumi.Resource,
        name: str,
        *,
        selector: dict[str, str],
        port: int,
        target: str,
        endpoint: str,
    ) -> tuple[Service, pulumi.Output[str]]:
        """A Service of type LoadBalancer and its address (`host:port`); `endpoint` is what `status` calls it."""
        service = Service(
            f"{self.site.name}-{name}",
            metadata=self.meta(
                name,
                {**selector, f"{labels.DOMAIN}/endpoint": endpoint},
                self.annotate_service(load_balancer=True),
            ),
            spec=ServiceSpecArgs(
                type="LoadBalancer",
                selector=selector,
                ports=[{"name": "http", "port": port, "targetPort": target}],
            ),
            opts=self.child(parent),
        )
        return service, service.status.apply(lambda status: f"{_pod.first_address(status)}:{port}")


def _provider(site: Site, state: Path, opts: pulumi.ResourceOptions) -> kubernetes.Provider:
    if site.embedded is not None:
        kubeconfig, context = SiteLayout(site, state).kubeconfig, site.name
    elif site.cluster is not None:
        kubeconfig = (site.cluster.kubeconfig or Path("~/.kube/config")).expanduser()
        context = site.cluster.context
    return kubernetes.Provider(
        site.name,
        kubeconfig=str(kubeconfig),
        context=context,
        enable_server_side_apply=True,
        # An `up` that was killed may have made objects that its state doesn't know; the next one takes them over.
        upsert_existing_objects=site.embedded is not None,
        enable_patch_force=site.embedded is not None,
        opts=opts,
    )
