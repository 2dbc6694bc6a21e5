"""The policies over all that a stack declares, without Pulumi's engine: what they refuse is known before a site is up.

What only a cluster knows isn't known here; the pack judges it when Pulumi does.
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.components.exceptions import RECOVERY
from infra.config import Stack
from infra.declared import Declared, declare
from infra.policy.manifest import annotation
from infra.policy.recovery import alone
from infra.policy.rules import Site, Subject, Violation, violations
from switchboard.errors import SwitchboardError


def judge(stack: Stack, objects: Iterable[Declared]) -> list[Violation]:
    """What the policies refuse of a stack's objects."""
    sites = {site.name: Site(site.role, site.region, site.embedded is not None) for site in stack.sites}
    return violations(Subject(one.revealed(), one.site, sites) for one in objects)


def exempt(objects: Iterable[Declared]) -> list[Violation]:
    """What objects are exempt from, each with the reason that it gives."""
    subjects = [Subject(one.revealed(), one.site) for one in objects]
    return [
        Violation("recovery-budget", subject.title, reason, "")
        for subject in subjects
        if isinstance(reason := annotation(subject.manifest, RECOVERY), str) and alone(subject.manifest)
    ]


def check(stack: Stack, name: str) -> None:
    """See that the policies let the stack `name` pass; takes about a second.

    Raises:
        SwitchboardError: names the policy, the resource, the reason and what to change; how many more there are.
    """
    if found := judge(stack, declare(stack, name=name)):
        first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SwitchboardError(f"policy {first.rule}: {first.resource}: {first.reason}{more}", first.mend)
