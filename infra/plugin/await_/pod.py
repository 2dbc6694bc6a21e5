"""A Pod is ready when its condition Ready is true, or when it ran to its end with success.

It fails when its phase is Failed.
"""

from __future__ import annotations

from infra.plugin.await_.pods import trouble_of
from infra.plugin.await_.rule import DONE, Rule, Seen, Verdict, failed, is_condition, missing
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    phase = live.get("status", {}).get("phase")
    if is_condition(live, "Ready") or phase == "Succeeded":
        return DONE
    trouble = trouble_of(live)
    reason = (
        f"{f'container {trouble.container}: ' if trouble.container else ''}{trouble.reason}"
        if trouble
        else ""
    )
    if phase == "Failed":
        return failed(reason or "its phase is Failed")
    return missing(reason or f"phase is {phase}, not ready yet")


RULE = Rule(check)
