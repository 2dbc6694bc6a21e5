"""A Namespace is ready when its phase is Active."""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, Rule, Seen, Verdict, missing
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    phase = live.get("status", {}).get("phase")
    return DONE if phase == "Active" else missing(f"phase is {phase or 'not set yet'}, not Active")


RULE = Rule(check)
