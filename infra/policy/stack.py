"""The policies over all that a stack declares, without Pulumi's engine: what they refuse is known before a site is up.

What only a cluster knows isn't known here; the pack judges it when Pulumi does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from infra.components.exceptions import POLICY
from infra.config import Stack
from infra.declared import Declared, declare
from infra.policy.manifest import annotation
from infra.policy.rules import recovery_budget, violations
from infra.policy.servers import spare_replica
from infra.policy.subject import Site, Subject, Violation
from switchboard.errors import SwitchboardError


def judge(stack: Stack, objects: Iterable[Declared]) -> list[Violation]:
    """What the policies refuse of a stack's objects."""
    sites = {site.name: Site(site.role, site.region, site.embedded is not None) for site in stack.sites}
    return violations(Subject(one.revealed(), one.site, sites) for one in objects)


def exempt(objects: Iterable[Declared]) -> list[Violation]:
    """What objects are exempt from, each with the reason that it gives."""
    found = []
    for one in objects:
        subject = Subject(one.revealed(), one.site)
        for name, rule in (("recovery-budget", recovery_budget), ("spare-replica", spare_replica)):
            reason = annotation(subject.manifest, POLICY + name)
            if isinstance(reason, str) and any(rule(_without(subject, POLICY + name))):
                found.append(Violation(name, subject.title, reason, ""))
    return found


def _without(subject: Subject, exception: str) -> Subject:
    meta = subject.manifest["metadata"]
    kept = {key: value for key, value in meta["annotations"].items() if key != exception}
    return replace(subject, manifest={**subject.manifest, "metadata": {**meta, "annotations": kept}})


def check(stack: Stack, name: str) -> None:
    """See that the policies let the stack `name` pass; takes about a second.

    Raises:
        SwitchboardError: names the policy, the resource, the reason and what to change; how many more there are.
    """
    if found := judge(stack, declare(stack, name=name)):
        first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SwitchboardError(f"policy {first.rule}: {first.resource}: {first.reason}{more}", first.mend)
