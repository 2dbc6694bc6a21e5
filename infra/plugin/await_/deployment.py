"""A Deployment is ready when

1. its controller has seen the latest spec,
2. every replica is of the latest revision and available, and
3. no replica of an earlier revision is left.

A paused Deployment is ready at once. A rollout past its progress deadline is still waited for, as it may recover.
"""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, OWN_PODS, Rule, Seen, Verdict, condition, count, missing, observed
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    spec = live["spec"]
    if spec.get("paused"):
        return DONE
    if not observed(live):
        return missing("its controller has not seen it yet")
    wanted = spec.get("replicas", 1)
    updated, available = count(live, "updatedReplicas"), count(live, "availableReplicas")
    old = count(live, "replicas") - updated
    if updated >= wanted and available >= wanted and old <= 0:
        return DONE
    message = f"{min(updated, available)} of {wanted} replicas available"
    if old > 0:
        message += f", {old} of an earlier revision left"
    for type_, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
        found = condition(live, type_)
        if found is not None and found.get("status") == bad:
            message += f"; {found.get('message') or found.get('reason')}"
    return missing(message)


RULE = Rule(check, (OWN_PODS,))
