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

HOSTNAME = "external-dns.alpha.kubernetes.io/hostname"
"""On a Service: the name that external-dns gives to its load balancer."""


class SiteNamespace(pulumi.ComponentResource):
    """One site's namespace for Switchboard; with a `domain`, Services that are reached from outside have names in it.

    `child()` gives the options of a resource in it; `load_balancer()` makes a Service that is reached from outside.
    Outputs: `namespace` (its name).
    """

    def __init__(
        self,
        site: Site,
        namespace: str,
        *,
        state: Path,
        domain: str | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("switchboard:infra:Site", site.name, None, opts)
        self.site = site
        self.domain = domain
        self.kubeconfig, self.context = access(site, state)
        self.provider = _provider(site, self.kubeconfig, self.context, pulumi.ResourceOptions(parent=self))
        self.name = namespace
        self._namespace = Namespace(
            f"{site.name}-{namespace}",
            metadata=ObjectMetaArgs(
                name=namespace,
                labels={
                    **site_labels(site),
                    labels.REGION: site.region,
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
        """Metadata in this namespace, with the site's labels; without a name Pulumi gives one, and a change makes a
        new object."""
        return ObjectMetaArgs(
            name=name,
            namespace=self.name,
            labels={**object_labels, **site_labels(self.site)},
            annotations=annotations or None,
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
        refuses: bool = False,
    ) -> tuple[Service, pulumi.Output[str]]:
        """A Service of type LoadBalancer and its address (`host:port`); `endpoint` is what `status` calls it.
        `refuses`: its clients have somewhere else to go (`labels.REFUSES`).

        With a domain the host is `<name>.<site>.<domain>`, which external-dns keeps: known before there is a load
        balancer. Without, it is the address that the cluster gives.
        """
        host = f"{name}.{self.site.name}.{self.domain}" if self.domain is not None else None
        annotations = self.annotate_service(load_balancer=True)
        if refuses:
            annotations[labels.REFUSES] = "true"
        service = Service(
            f"{self.site.name}-{name}",
            metadata=self.meta(
                name,
                {**selector, f"{labels.DOMAIN}/endpoint": endpoint},
                {**annotations, HOSTNAME: host} if host is not None else annotations,
            ),
            spec=ServiceSpecArgs(
                type="LoadBalancer",
                selector=selector,
                ports=[{"name": "http", "port": port, "targetPort": target}],
            ),
            opts=self.child(parent),
        )
        if host is not None:
            return service, pulumi.Output.from_input(f"{host}:{port}")
        return service, service.status.apply(lambda status: f"{_pod.first_address(status)}:{port}")


def site_labels(site: Site) -> dict[str, str]:
    """What every object that the program declares says about its site, and pod templates too."""
    return {labels.SITE: site.name, labels.SITE_ROLE: site.role}


def access(site: Site, state: Path) -> tuple[str | None, str]:
    """The kubeconfig (None: kubectl's own) and the context by which a site is reached."""
    if site.embedded is not None:
        return str(SiteLayout(site, state).kubeconfig), site.name
    if site.cluster is None:
        raise ValueError(f"site {site.name} is nowhere")  # the stack file's types see to it
    given = site.cluster.kubeconfig
    return (str(given.expanduser()) if given is not None else None), site.cluster.context


def _provider(
    site: Site, kubeconfig: str | None, context: str, opts: pulumi.ResourceOptions
) -> kubernetes.Provider:
    return kubernetes.Provider(
        site.name,
        kubeconfig=kubeconfig,
        context=context,
        enable_server_side_apply=True,
        # An `up` that was killed may have made objects that its state doesn't know; the next one takes them over.
        upsert_existing_objects=site.embedded is not None,
        enable_patch_force=site.embedded is not None,
        opts=opts,
    )
