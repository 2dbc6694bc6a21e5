"""A DaemonSet is ready when

1. its controller has seen the latest spec,
2. on every node where it belongs a pod of the latest revision is scheduled (not asked with `OnDelete`), and
3. all of them are available.
"""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, OWN_PODS, Rule, Seen, Verdict, count, missing, observed
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    if not observed(live):
        return missing("its controller has not seen it yet")
    wanted, available = count(live, "desiredNumberScheduled"), count(live, "numberAvailable")
    on_delete = (live["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
    updated = count(live, "currentNumberScheduled" if on_delete else "updatedNumberScheduled")
    if updated >= wanted and available >= wanted:
        return DONE
    return missing(f"{min(updated, available)} of {wanted} nodes have it available")


RULE = Rule(check, (OWN_PODS,))
