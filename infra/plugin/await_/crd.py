"""A CustomResourceDefinition is ready when its names are accepted and it is established.

If its names are taken by another definition, it never will be.
"""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, Rule, Seen, Verdict, condition, failed, is_condition, missing
from switchboard.kube import Object


def check(live: Object, _: Seen) -> Verdict:
    names = condition(live, "NamesAccepted")
    if names is not None and names.get("status") == "False":
        return failed(f"names not accepted: {names.get('message')}")
    return DONE if is_condition(live, "Established") else missing("not established yet")


RULE = Rule(check)
