"""The rules, each a pure function from an object and its stack to what is wrong with it.

Every rule refuses what it can't judge for want of a label, since a forgotten label is the likeliest mistake; only
what a preview doesn't know yet is left to the update. Everything here is read by a person at `pulumi preview`, so a
violation names the resource, the reason and what to change.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from infra.components.exceptions import POLICY
from infra.policy.manifest import (
    UNKNOWN,
    WORKLOADS,
    annotation,
    bound_to,
    containers,
    get,
    items,
    label,
    pod_spec,
    pod_template,
    text,
)
from infra.policy.recovery import RECOVERY_S, alone, budget, served_by_others
from infra.policy.servers import model_server, spare_replica, with_made
from infra.policy.subject import Fault, Rule, Site, Subject, Violation
from switchboard import labels, quantities
from switchboard.data import DataClass, parse_regions
from switchboard.workload import LONGEST_START

CARRIERS = WORKLOADS | {"ConfigMap", "Secret", "PersistentVolumeClaim"}
"""The kinds that hold or see data, and so say of which class."""

RECOVERY_EXCEPTION = POLICY + "recovery-budget"

_TAKING_RIGHTS = ("escalate", "bind", "impersonate")
"""Verbs of RBAC's own, by which whoever has them may have any others."""

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")


def private_data(subject: Subject) -> Iterator[Fault]:
    """Data of a class that must stay private never goes to a public site, and nothing to a cluster that is no site."""
    facts = subject.facts
    if facts is None:  # whatever its labels say: without a provider it goes where kubectl's context leads
        if subject.maker is not None:
            return
        yield Fault(
            f"its provider {subject.site or '(none)'} is no site of the stack file: it may go to any cluster",
            "give it the options of its namespace: `opts=namespace.child(self)`",
        )
        return
    if subject.kind not in CARRIERS:
        return
    own = label(subject.manifest, labels.SITE_ROLE)
    if isinstance(own, str) and own != facts.role:
        yield Fault(
            f"its label {labels.SITE_ROLE} says {own}, but the stack file makes the site {facts.role}",
            "take the labels from its namespace: `metadata=namespace.meta(...)`",
        )
    for where, part in _parts(subject):
        value = label(part, labels.DATA_CLASS)
        if value is UNKNOWN:
            continue
        if value is None:
            yield Fault(
                f"{where} doesn't say of which class its data is",
                f"label it {labels.DATA_CLASS}: {', '.join(DataClass)}",
            )
        elif (known := _data_class(value)) is None:
            yield Fault(
                f"{where} is of the data class {value!r}, which isn't one",
                f"use one of {', '.join(DataClass)}",
            )
        elif known.must_stay_private and facts.role != "private":
            yield Fault(
                f"{where} holds {known} data, which must stay in private sites, and its site is {facts.role}",
                "keep it in the private site, or mask the data and label what is left `customer`",
            )


def data_region(subject: Subject) -> Iterator[Fault]:
    """Data that is bound to regions is in none but those."""
    if subject.kind == "Namespace" and subject.facts is not None:
        own = label(subject.manifest, labels.REGION)
        if own not in (subject.facts.region, UNKNOWN):
            yield Fault(
                f"it says that it is in region {own or '(none)'}, but its site is in {subject.facts.region}",
                f"label it {labels.REGION}: {subject.facts.region}",
            )
    if subject.kind not in CARRIERS:
        return
    regions = yield from _regions(subject)
    for where, part in _parts(subject):
        known = _data_class(label(part, labels.DATA_CLASS))
        if known is None or not known.bound_to_regions:
            continue
        stated = annotation(part, labels.DATA_REGIONS)
        if stated is UNKNOWN:
            continue
        allowed = parse_regions(stated) if isinstance(stated, str) else frozenset()
        if not allowed:
            yield Fault(
                f"{where} holds {known} data and doesn't say in which regions it may be",
                f"annotate it {labels.DATA_REGIONS}: the regions, by commas (`dataRegions` of the stack file)",
            )
            continue
        if regions is not None and (outside := regions - allowed):
            yield Fault(
                f"{where} holds {known} data that may be in {', '.join(sorted(allowed))} only, "
                f"and is in {', '.join(sorted(outside))}",
                "place it in one of these regions; a wider list of `dataRegions` is for who answers for the data",
            )


def _regions(subject: Subject) -> Generator[Fault, None, frozenset[str] | None]:
    """Where an object may be: what its pods are bound to, else its site's region; None where that isn't known.

    An edge is in another region than its site, and only the scheduler's rules bring a pod there: a label that
    nothing makes true is a fault.
    """
    spec, stated = pod_spec(subject.manifest), label(pod_template(subject.manifest), labels.REGION)
    if spec is None and subject.kind in WORKLOADS:
        return None
    bound = bound_to(spec, labels.REGION)
    if bound is UNKNOWN or (bound is None and subject.facts is None):
        return None  # `private_data` refuses what has no site
    held: frozenset[str] = frozenset({subject.facts.region}) if bound is None and subject.facts else bound
    if isinstance(stated, str) and stated not in held:
        yield Fault(
            f"its pods' label says that they run in {stated}, and they run in {', '.join(sorted(held)) or 'none'}",
            f"bind them to {stated} by required node affinity (`_pod.placement()`), or correct the label",
        )
    return held


def container_user(subject: Subject) -> Iterator[Fault]:
    """No container may run as root, or become it."""
    spec = pod_spec(subject.manifest)
    if spec is None:
        return
    for container in containers(spec):
        own = get(container.spec, "securityContext")
        if own is UNKNOWN:
            continue
        for key in ("runAsNonRoot", "runAsUser"):
            value = get(own, key)
            if value is None:
                value = get(spec, "securityContext", key)
            if key == "runAsNonRoot" and value is not True and value is not UNKNOWN:
                yield Fault(
                    f"{container.title} may run as root",
                    "set `runAsNonRoot: true` in the pod's security context (`_pod.security()`)",
                )
            if key == "runAsUser" and value == 0 and value is not False:
                yield Fault(f"{container.title} runs as user 0, which is root", "give it another `runAsUser`")
        if get(own, "privileged") is True:
            yield Fault(f"{container.title} is privileged", "remove `privileged`")
        if get(own, "allowPrivilegeEscalation") not in (False, UNKNOWN):
            yield Fault(
                f"{container.title} may gain privileges (a program of root's with the setuid bit)",
                "set `allowPrivilegeEscalation: false` (`_pod.container_security()`)",
            )


def container_limits(subject: Subject) -> Iterator[Fault]:
    """Every container has limits of CPU and memory."""
    spec = pod_spec(subject.manifest)
    if spec is None:
        return
    for container in containers(spec):
        if container.role == "ephemeral container":  # Kubernetes gives these no resources of their own
            continue
        missing = [
            name
            for name in ("cpu", "memory")
            if not _limits(get(container.spec, "resources", "limits", name))
            # Limits of the whole pod bound each of its containers.
            and not _limits(get(spec, "resources", "limits", name))
        ]
        if missing:
            yield Fault(
                f"{container.title} has no limit of {' and '.join(missing)}",
                f"set {', '.join(f'resources.limits.{name}' for name in missing)}",
            )


def _limits(value: Any) -> bool:
    """Whether a quantity is a limit: none, one of nothing (to Kubernetes that is no limit) and what isn't a quantity
    are not; what isn't known yet may be."""
    if value is UNKNOWN:
        return True
    try:
        return quantities.parse(value) > 0
    except (ValueError, decimal.DecimalException):
        return False


def image_digest(subject: Subject) -> Iterator[Fault]:
    """Outside the embedded cloud an image is named by its digest."""
    spec = pod_spec(subject.manifest)
    if spec is None or (subject.facts is not None and subject.facts.embedded):
        return
    named = [(one.title, get(one.spec, "image")) for one in containers(spec)]
    named += [
        (f"volume {text(one, 'name')}", get(one, "image", "reference"))
        for one in items(spec, "volumes")
        if get(one, "image") is not None
    ]
    for title, image in named:
        if image is not UNKNOWN and not (isinstance(image, str) and _DIGEST.search(image)):
            yield Fault(
                f"{title} has the image {image}, whose contents may change under its tag",
                "name it by its digest in the stack file: `registry/name@sha256:…`",
            )


def rbac_wildcards(subject: Subject) -> Iterator[Fault]:
    """No role allows everything of something, or grows by itself; nobody is bound to cluster-admin."""
    if subject.kind in ("Role", "ClusterRole"):
        if get(subject.manifest, "aggregationRule") not in (None, UNKNOWN):
            yield Fault(
                "its aggregationRule gives it the rules of whatever roles there will be",
                "name its own `rules`",
            )
        for index, rule in enumerate(items(subject.manifest, "rules")):
            for key in ("verbs", "resources", "apiGroups", "nonResourceURLs"):
                if wide := [value for value in items(rule, key) if isinstance(value, str) and "*" in value]:
                    yield Fault(
                        f"rules[{index}].{key} holds the wildcard {', '.join(map(repr, wide))}",
                        f"name the {key} that are needed, each",
                    )
            if taken := [verb for verb in items(rule, "verbs") if verb in _TAKING_RIGHTS]:
                yield Fault(
                    f"rules[{index}].verbs holds {', '.join(taken)}, by which one takes rights that one wasn't given",
                    "give the rights that are needed themselves",
                )
    binds = subject.kind in ("RoleBinding", "ClusterRoleBinding")
    if binds and text(subject.manifest, "roleRef", "name") == "cluster-admin":
        yield Fault("it binds to cluster-admin, which may do everything", "bind to a role of its own")


def recovery_budget(subject: Subject) -> Iterator[Fault]:
    """A workload is back within 5 min of the loss of its node, by its own time limits or its other replicas."""
    found = budget(subject.manifest)
    if found is None or (subject.maker is not None and served_by_others(subject.manifest)):
        return
    if why := alone(subject.manifest):
        reason = annotation(subject.manifest, RECOVERY_EXCEPTION)
        if reason is not UNKNOWN and not (isinstance(reason, str) and reason.strip()):
            yield Fault(
                f"a StatefulSet's pod on a lost node isn't replaced before a person acts, and {why}",
                "give it two replicas or more, spread over nodes (`_pod.spread()`), make a Deployment of it, or say "
                f"why it may wait: annotation {RECOVERY_EXCEPTION} (`exceptions(policy=…)`)",
            )
        return
    total = found.total_s
    if total is None or total > RECOVERY_S:
        allowed = "nothing bounds its recovery" if total is None else f"its recovery may take {total} s"
        shorten = (
            "shorten the longest: tolerationSeconds of not-ready and unreachable (300 where none is stated), "
            "terminationGracePeriodSeconds, the startup probe"
        )
        if subject.maker is not None:
            shorten = (
                f"state a shorter `capacity.startSeconds`, of which a replica has {LONGEST_START} times to start, "
                "or keep two replicas or more in the core"
            )
        yield Fault(f"{allowed} ({found}), and the promise is {RECOVERY_S} s", shorten)


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        private_data,
        data_region,
        container_user,
        container_limits,
        image_digest,
        rbac_wildcards,
        recovery_budget,
        model_server,
        spare_replica,
    )
}
"""The rules by name."""


def violations(subjects: Iterable[Subject]) -> list[Violation]:
    """All that is wrong with these objects and with what the operator makes of them, object by object."""
    return [
        Violation(name, subject.title, fault.reason, fault.mend)
        for declared in subjects
        for subject in with_made(declared)
        for name, rule in RULES.items()
        for fault in rule(subject)
    ]


def sites_of(document: Any) -> dict[str, Site]:
    """The sites of a stack file's `switchboard:sites`; what isn't a site there is left out: rules refuse then."""
    return {
        str(site["name"]): Site(str(site.get("role")), str(site.get("region")), "embedded" in site)
        for site in (document if isinstance(document, list) else [])
        if isinstance(site, Mapping) and "name" in site
    }


def _parts(subject: Subject) -> Iterator[tuple[str, Any]]:
    """The object, its pods and claims, each with its name for a message; object and pods once if they say the same."""
    template = pod_template(subject.manifest)
    if template is None or subject.kind == "Pod":
        yield "it", subject.manifest
    elif _about_data(template) == _about_data(subject.manifest):
        yield "it", template
    else:
        yield "it", subject.manifest
        yield "its pod template", template
    for claim in items(subject.manifest, "spec", "volumeClaimTemplates"):
        if label(claim, labels.DATA_CLASS) is not None:  # a claim without a class is of its workload's
            yield f"its claim template {text(claim, 'metadata', 'name')}", claim


def _about_data(part: Any) -> tuple[Any, Any]:
    return label(part, labels.DATA_CLASS), annotation(part, labels.DATA_REGIONS)


def _data_class(value: Any) -> DataClass | None:
    return DataClass(value) if isinstance(value, str) and value in set(DataClass) else None
