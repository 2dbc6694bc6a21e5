"""A service account for each component, so that none runs as its namespace's `default`.

What is granted to `default`, by mistake or by somebody else, is granted to every pod that names no account. These have
no rights, and no token reaches a pod that doesn't ask for it.
"""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.core.v1 import ServiceAccount

from infra.components import _pod
from infra.components.site import SiteNamespace


def account(
    namespace: SiteNamespace, name: str, component: str, *, parent: pulumi.Resource
) -> pulumi.Output[str]:
    """Declare the service account `name`; its name, known once it is there."""
    made = ServiceAccount(
        f"{namespace.site.name}-{name}",
        metadata=namespace.meta(name, _pod.names(name, component)),
        automount_service_account_token=False,
        opts=namespace.child(parent),
    )
    return made.metadata.name
