"""A StatefulSet is ready when

1. its controller has seen the latest spec,
2. every replica is ready, and
3. with rolling updates, every replica from the partition on is of the latest revision
   (with `OnDelete`, replicas are replaced when a person deletes them: their revision isn't waited for).
"""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, OWN_PODS, Rule, Seen, Verdict, count, missing, observed
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    if not observed(live):
        return missing("its controller has not seen it yet")
    spec, status = live["spec"], live.get("status", {})
    wanted, ready = spec.get("replicas", 1), count(live, "readyReplicas")
    if ready < wanted or count(live, "replicas") > wanted:
        return missing(f"{ready} of {wanted} replicas ready")
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return DONE
    if status.get("currentRevision") == status.get("updateRevision"):
        return DONE
    rolling = max(0, wanted - ((strategy.get("rollingUpdate") or {}).get("partition") or 0))
    updated = count(live, "updatedReplicas")
    return DONE if updated >= rolling else missing(f"{updated} of {rolling} replicas of the latest revision")


RULE = Rule(check, (OWN_PODS,))
