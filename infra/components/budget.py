"""How many replicas of a workload a drain may take at a time."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs
from pulumi_kubernetes.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpecArgs

from infra.components.site import SiteNamespace


def disruption_budget(
    namespace: SiteNamespace, name: str, match: Mapping[str, str], replicas: int, *, parent: pulumi.Resource
) -> None:
    """One at a time, where there are several; a single replica has none, since its node could never be drained.

    A replica that isn't ready may go in any case (`AlwaysAllow`): it serves nobody, and one that never gets ready would
    hold up the drain that could mend it.
    """
    if replicas < 2:
        return
    PodDisruptionBudget(
        f"{namespace.site.name}-{name}",
        metadata=namespace.meta(name, dict(match)),
        spec=PodDisruptionBudgetSpecArgs(
            max_unavailable=1,
            unhealthy_pod_eviction_policy="AlwaysAllow",
            selector=LabelSelectorArgs(match_labels=dict(match)),
        ),
        opts=namespace.child(parent),
    )
