"""A Job is ready when it is complete; it fails when its controller says that it failed.

A suspended Job isn't waited for.
"""

from __future__ import annotations

from infra.plugin.await_.rule import (
    DONE,
    Related,
    Rule,
    Seen,
    Verdict,
    condition,
    count,
    failed,
    is_condition,
    missing,
)
from switchboard.kube import PODS, Object


def check(live: Object, _: Seen) -> Verdict:
    if is_condition(live, "Complete") or live["spec"].get("suspend"):
        return DONE
    bad = condition(live, "Failed")
    if bad is not None and bad.get("status") == "True":
        return failed(f"failed: {bad.get('reason')}: {bad.get('message')}")
    wanted = live["spec"].get("completions") or 1
    message = f"{count(live, 'succeeded')} of {wanted} completions"
    if tries := count(live, "failed"):
        message += f", {tries} failed tries"
    return missing(message)


RULE = Rule(check, (Related(PODS, lambda live: f"batch.kubernetes.io/job-name={live['metadata']['name']}"),))
