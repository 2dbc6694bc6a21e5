"""Waiting until an object does what it is for: one file for each kind that has more to it than being there.

Each file begins with the conditions of success in words; its `check` is a pure function of the live object and of
what belongs to it (pods, endpoints). `waiting` watches them and gives up after a deadline, naming what is wrong.
"""

from __future__ import annotations

from infra.plugin.annotations import SKIP_AWAIT, WAIT_FOR, annotation, is_true
from infra.plugin.await_ import (
    crd,
    daemonset,
    deployment,
    job,
    namespace,
    pod,
    pvc,
    service,
    statefulset,
    wait_for,
)
from infra.plugin.await_.rule import Rule
from switchboard.kube import Object

RULES: dict[tuple[str, str], Rule] = {
    ("v1", "Namespace"): namespace.RULE,
    ("v1", "PersistentVolumeClaim"): pvc.RULE,
    ("v1", "Pod"): pod.RULE,
    ("v1", "Service"): service.RULE,
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): crd.RULE,
    ("apps/v1", "DaemonSet"): daemonset.RULE,
    ("apps/v1", "Deployment"): deployment.RULE,
    ("apps/v1", "StatefulSet"): statefulset.RULE,
    ("batch/v1", "Job"): job.RULE,
}


def rule_for(obj: Object) -> Rule | None:
    """What to wait for after `obj` was applied; None: nothing.

    Raises:
        ValueError: its `pulumi.com/waitFor` is malformed.
    """
    if is_true(obj, SKIP_AWAIT):
        return None
    if text := annotation(obj, WAIT_FOR):
        return wait_for.rule(text)
    return RULES.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
