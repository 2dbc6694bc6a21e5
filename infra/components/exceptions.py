"""Exceptions from the independent checkers, made on the object that they are about, each with its reason beside it.

Of our own policies two take one: `recovery-budget`, for a StatefulSet that isn't back by itself, and `spare-replica`,
for a model server of the core that may be away.

    annotations=exceptions(kube_score={"container-image-pull-policy": "a digest means one content"})

Whoever reads the object, in the cluster or in a rendered file, sees which check it is exempt from and why; whoever
removes it from the code removes the exception with it. `infra.checkers` counts one without a reason as a fault.
"""

from __future__ import annotations

from collections.abc import Mapping

from switchboard.errors import SwitchboardError
from switchboard.labels import DOMAIN

IGNORED = "kube-score/ignore"
REASON = f"kube-score.{DOMAIN}/"
"""Before the name of a check: why kube-score is told to leave it out, which its own annotation has no room for."""

POLICY = f"policy.{DOMAIN}/"
"""Before the name of a policy of ours (`infra.policy`): why the object may break it, where that policy lets it."""


def exceptions(
    *,
    checkov: Mapping[str, str] | None = None,
    kube_score: Mapping[str, str] | None = None,
    policy: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The annotations by which an object is exempt from these checks (check → reason), and from policies of ours.

    >>> exceptions(checkov={"CKV_K8S_38": "it watches pods"}, kube_score={"pod-probes-identical": "it has one path"})
    {'checkov.io/skip1': 'CKV_K8S_38=it watches pods', 'kube-score/ignore': 'pod-probes-identical', \
'kube-score.switchboard.dev/pod-probes-identical': 'it has one path'}

    Raises:
        SwitchboardError: a reason that checkov can't read.
    """
    for check, why in (checkov or {}).items():
        if "=" in why:
            raise SwitchboardError(
                f'the reason for the exception from {check} has a "=", at which checkov ends',
                "say it in words",
            )
    found = {
        f"checkov.io/skip{number}": f"{check}={why}"
        for number, (check, why) in enumerate(sorted((checkov or {}).items()), 1)
    }
    if kube_score:
        found[IGNORED] = ",".join(sorted(kube_score))
        found |= {REASON + check: why for check, why in sorted(kube_score.items())}
    return found | {POLICY + rule: why for rule, why in sorted((policy or {}).items())}


def kube_score_reason(check: str, annotations: Mapping[str, str]) -> str | None:
    """Why an object with these annotations is exempt from a check of kube-score's; None where it says nothing."""
    return annotations.get(REASON + check) or None
