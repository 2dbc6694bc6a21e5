"""What a site's API server holds to be true of ModelReleases: who asked for one, and who else approved of it.

A ValidatingAdmissionPolicy, so it holds for everybody, whatever their rights and whichever client they use. Annotations
say who (`switchboard.labels`): nobody can write another's name, what was asked for can't be handed to somebody else,
and an approval is of what it was given for. Whether a release needs one is the operator's to ask.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_kubernetes.admissionregistration.v1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components.site import SiteNamespace, site_labels
from switchboard.api.model_release import Spec
from switchboard.kinds import MODEL_RELEASES
from switchboard.labels import APPROVED_BY, DOMAIN, REQUESTED_BY

NAME = f"{MODEL_RELEASES.plural}.{DOMAIN}"
FREE = ("paused", "order", "reason")
"""What of a release may change under an approval: to hold it, to end it, to say why."""


def _annotation(of: str, key: str) -> str:
    """An annotation's value in CEL; empty where there is none."""
    notes = f"{of}.metadata.annotations"
    return f"has({notes}) && '{key}' in {notes} ? {notes}['{key}'] : ''"


def _unchanged() -> str:
    """CEL: what an approval is of is as it was."""
    names = [field.alias or name for name, field in Spec.model_fields.items() if name not in FREE]
    return " && ".join(
        f"has(object.spec.{name}) == has(oldObject.spec.{name})"
        f" && (!has(object.spec.{name}) || object.spec.{name} == oldObject.spec.{name})"
        for name in names
    )


_VARIABLES = {
    "me": "request.userInfo.username",
    "requested": _annotation("object", REQUESTED_BY),
    "approved": _annotation("object", APPROVED_BY),
    "was": f"oldObject == null ? '' : ({_annotation('oldObject', APPROVED_BY)})",
}
_VALIDATIONS = (
    (
        f"oldObject != null ? variables.requested == ({_annotation('oldObject', REQUESTED_BY)})"
        " : variables.requested == variables.me",
        f"{REQUESTED_BY} is the name of who makes the release, and stays",
    ),
    (
        "variables.approved == variables.was || variables.approved == '' || variables.approved == variables.me",
        f"{APPROVED_BY} is written by who approves, with their own name",
    ),
    (
        "variables.approved == '' || variables.approved != variables.requested",
        f"{APPROVED_BY} is another person than {REQUESTED_BY}",
    ),
    (
        "oldObject == null || variables.approved == '' || variables.approved == variables.me"
        f" || ({_unchanged()})",
        f"what was approved of can't be changed: take {APPROVED_BY} away, and have it approved anew",
    ),
)
"""What has to hold, in CEL, and what is said where it doesn't."""


def policy_spec() -> dict[str, Any]:
    """The policy's spec, as Kubernetes has it."""
    group, version = MODEL_RELEASES.api_version.split("/")
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [group],
                    "apiVersions": [version],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [MODEL_RELEASES.plural],
                }
            ]
        },
        "variables": [{"name": name, "expression": text} for name, text in _VARIABLES.items()],
        "validations": [{"expression": text, "message": message} for text, message in _VALIDATIONS],
    }


def binding_spec() -> dict[str, Any]:
    """The binding's spec: for the whole cluster, and what it refuses is refused."""
    return {"policyName": NAME, "validationActions": ["Deny"]}


class Admission(pulumi.ComponentResource):
    """The policy and its binding in a namespace's site; both are the whole cluster's, as the definition is."""

    def __init__(self, namespace: SiteNamespace) -> None:
        site = namespace.site
        super().__init__(
            "switchboard:infra:Admission",
            f"{site.name}-admission",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        options = pulumi.ResourceOptions(parent=self, provider=namespace.provider)
        meta = ObjectMetaArgs(name=NAME, labels=site_labels(site))
        policy = ValidatingAdmissionPolicy(
            f"{site.name}-{MODEL_RELEASES.plural}", metadata=meta, spec=policy_spec(), opts=options
        )
        ValidatingAdmissionPolicyBinding(
            f"{site.name}-{MODEL_RELEASES.plural}",
            metadata=meta,
            spec=binding_spec(),
            opts=pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=[policy])),
        )
        self.register_outputs({})
