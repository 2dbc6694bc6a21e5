"""The policy pack: `pulumi preview --policy-pack infra/policy` refuses what breaks a rule of `infra.policy.rules`.

Pulumi asks once for each resource, before it is made, and again at the update, where nothing is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# Pulumi runs this folder as a script; the packages are two folders up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from infra.policy.manifest import UNKNOWN
from infra.policy.rules import RULES, sites_of
from infra.policy.servers import with_made
from infra.policy.subject import Rule, Site, Subject

PROJECT = "switchboard"
"""The prefix of the stack file's keys."""


def plain(value: Any) -> Any:
    """A property of Pulumi's as a plain value, with `UNKNOWN` for what isn't known before the update."""
    if isinstance(value, Mapping):
        return {key: _at(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_at(value, index) for index in range(len(value))]
    return value


def _at(value: Any, key: Any) -> Any:
    try:
        return plain(value[key])
    except UnknownValueError:
        return UNKNOWN


@cache
def sites() -> dict[str, Site]:
    """The sites of the stack that Pulumi works on."""
    return sites_of(pulumi.Config(PROJECT).get_object("sites"))


def validation(rule: Rule) -> Any:
    """`rule` as Pulumi calls it."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if not args.resource_type.startswith("kubernetes:"):
            return
        declared = Subject(plain(args.props), args.provider.name if args.provider else None, sites())
        for subject in with_made(declared):
            for fault in rule(subject):
                report(f"{subject.title}: {fault.reason}\n  → {fault.mend}", None)

    return validate


policies: list[Policy] = [
    ResourceValidationPolicy(
        name=name, description=(rule.__doc__ or "").partition("\n")[0], validate=validation(rule)
    )
    for name, rule in RULES.items()
]
PolicyPack(name="switchboard", policies=policies, enforcement_level=EnforcementLevel.MANDATORY)
