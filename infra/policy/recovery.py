"""How long a workload may take to be back when its node is lost, by what its manifest allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra import netpol
from infra.policy.manifest import (
    UNKNOWN,
    Manifest,
    bound_to,
    get,
    has_unknown,
    items,
    pod_spec,
    pod_template,
    text,
)
from switchboard import labels

RECOVERY_S = 300
"""The promise: a lost site, and so a lost node, is recovered from within 5 min."""

NODE_GRACE_S = 50
"""Until the control plane calls a silent node lost: the controller manager's `--node-monitor-grace-period` since
Kubernetes 1.32 (40 s before)."""

DEFAULT_TOLERATION_S = 300
"""What the admission plugin DefaultTolerationSeconds gives a pod that says nothing."""

DEFAULT_TERMINATION_S = 30

_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_KINDS = ("Deployment", "StatefulSet", "ReplicaSet")


@dataclass(frozen=True)
class Budget:
    """The parts of a recovery, in seconds and in the order in which they pass; None: nothing bounds it."""

    parts: Mapping[str, int | None]

    @property
    def total_s(self) -> int | None:
        known = [part for part in self.parts.values() if part is not None]
        return sum(known) if len(known) == len(self.parts) else None

    def __str__(self) -> str:
        return " + ".join(
            f"{name} {'for ever' if seconds is None else seconds}"
            for name, seconds in self.parts.items()
            if seconds != 0
        )


class _NotYetKnown(Exception):
    pass


def budget(manifest: Manifest) -> Budget | None:
    """The longest that a Deployment, StatefulSet or ReplicaSet may take to be back when a node of it is lost.

        node grace 50 + max(tolerationSeconds of not-ready, unreachable; 300 where none is stated)
        + terminationGracePeriodSeconds (Recreate: the old pod has to go first)
        + startup + minReadySeconds

        startup = Σ sidecars' startup budgets + max over containers of
            startup budget + readiness: initialDelaySeconds + periodSeconds × (successThreshold - 1)
        startup budget = initialDelaySeconds + periodSeconds × failureThreshold of the startup probe, else of the
            liveness probe, which ends a container that isn't up by then; nothing bounds one without both: it counts 0

    A pod that is bound to edge nodes (by its required affinity: its own labels say nothing) has no other node to go
    to: it goes on, or is back with its node, and only its start counts. Not counted, since no manifest bounds them:
    init containers that end, pulls of images, and volumes that a lost node holds.

    A StatefulSet's pod on a lost node is replaced when a person has declared the node out of service or removed it, and
    not before, since there must never be two of one name. So a StatefulSet is back when the others do without it (see
    `alone`): after the node grace, when the control plane takes the pods of a silent node for unready, and Services and
    gateways leave them out. One that has no others isn't back by itself. (A model server's Deployment is replaced, and
    its gateways leave lost replicas out as well: the rule asks `served_by_others` before its budget.)

    None for other kinds, and where a part isn't known before the update.
    """
    kind, spec = text(manifest, "kind"), pod_spec(manifest)
    if kind not in _KINDS or spec is None:
        return None
    try:
        if kind == "StatefulSet":
            return Budget(
                {"node grace": NODE_GRACE_S, "a person's help": None if _alone(manifest, spec) else 0}
            )
        parts: dict[str, int | None] = {}
        if _known(bound_to(spec, labels.TIER)) != {"edge"}:
            parts["node grace"] = NODE_GRACE_S
            parts["toleration"] = _toleration(spec)
            if _known(get(manifest, "spec", "strategy", "type")) == "Recreate":
                parts["termination"] = _seconds(
                    spec, "terminationGracePeriodSeconds", default=DEFAULT_TERMINATION_S
                )
        parts["startup"] = _startup(spec)
        parts["minReadySeconds"] = _seconds(manifest, "spec", "minReadySeconds", default=0)
    except _NotYetKnown:
        return None
    return Budget(parts)


def alone(manifest: Manifest) -> str:
    """Why nobody does a StatefulSet's work while one of its nodes is lost; empty where the other replicas do, for other
    kinds, and where that isn't known before the update.

    The others have to be spread over nodes or zones. A rule that only prefers it counts (`ScheduleAnyway`): a volume
    binds its pod to a place, and a strict rule may leave such a pod nowhere to run.
    """
    spec = pod_spec(manifest)
    if text(manifest, "kind") != "StatefulSet" or spec is None:
        return ""
    try:
        return _alone(manifest, spec)
    except _NotYetKnown:
        return ""


def served_by_others(manifest: Manifest) -> bool:
    """Whether the other replicas of a workload do its work while one of its nodes is lost, as `alone` has it."""
    spec = pod_spec(manifest)
    try:
        return spec is not None and not _alone(manifest, spec)
    except _NotYetKnown:
        return False


def _alone(manifest: Manifest, spec: Manifest) -> str:
    replicas = _seconds(manifest, "spec", "replicas", default=1)
    if replicas == 0:
        return ""
    if _known(bound_to(spec, labels.TIER)) == {"edge"}:
        return "its replicas are all on the edge's node"
    if replicas == 1:
        return "it has no other replica"
    about = _known(get(pod_template(manifest), "metadata", "labels"))
    apart = any(
        get(rule, "topologyKey") in (labels.HOSTNAME, labels.ZONE)
        and _seconds(rule, "maxSkew", default=1) < replicas
        and _selects(get(rule, "labelSelector"), about)
        for rule in _spreading(spec)
    )
    return "" if apart else "its replicas aren't spread over nodes or zones, and may all be on that one"


def _selects(selector: Any, about: Any) -> bool:
    """Whether a label selector is for pods of these labels; none is for no pods, nor is one that Kubernetes refuses."""
    try:
        return isinstance(selector, Mapping) and netpol.selects(selector, about or {})
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _spreading(spec: Manifest) -> list[Any]:
    """The rules that keep a workload's pods apart, strict and soft ones."""
    _known(get(spec, "topologySpreadConstraints"))
    _known(get(spec, "affinity", "podAntiAffinity"))
    required, preferred = (
        items(spec, "affinity", "podAntiAffinity", f"{how}DuringSchedulingIgnoredDuringExecution")
        for how in ("required", "preferred")
    )
    terms = [get(one, "podAffinityTerm") for one in preferred]
    return [*items(spec, "topologySpreadConstraints"), *required, *terms]


def _known(value: Any) -> Any:
    if has_unknown(value):
        raise _NotYetKnown
    return value


def _seconds(value: object, *path: str, default: int) -> int:
    found = _known(get(value, *path))
    return int(found) if isinstance(found, int | float) else default


def _toleration(spec: Manifest) -> int | None:
    """How long pods stay on a lost node (None: for good): of several tolerations of one taint the shortest counts."""
    _known(get(spec, "tolerations"))
    longest = 0
    for taint in _LOST:
        matching = [one for one in items(spec, "tolerations") if _tolerates(one, taint)]
        if not matching:
            longest = max(longest, DEFAULT_TOLERATION_S)
            continue
        limits = [
            max(0, _seconds(one, "tolerationSeconds", default=0))
            for one in matching
            if get(one, "tolerationSeconds") is not None
        ]
        if not limits:
            return None
        longest = max(longest, min(limits))
    return longest


def _tolerates(toleration: object, taint: str) -> bool:
    """Whether a toleration is for a taint without a value and with the effect NoExecute."""
    key, operator = text(toleration, "key"), text(toleration, "operator") or "Equal"
    if get(toleration, "effect") not in (None, "", "NoExecute"):
        return False
    if not key:
        return operator == "Exists"
    return key == taint and (operator == "Exists" or not get(toleration, "value"))


def _startup(spec: Manifest) -> int:
    for key in ("initContainers", "containers"):
        if get(spec, key) is UNKNOWN:
            raise _NotYetKnown
    sidecars = sum(
        _probed(one) for one in items(spec, "initContainers") if _known(get(one, "restartPolicy")) == "Always"
    )
    return sidecars + max((_probed(one) + _readiness(one) for one in items(spec, "containers")), default=0)


def _probed(container: Manifest) -> int:
    for name in ("startupProbe", "livenessProbe"):
        probe = _known(get(container, name))
        if probe is not None:
            delay = _seconds(probe, "initialDelaySeconds", default=0)
            return delay + _seconds(probe, "periodSeconds", default=10) * _seconds(
                probe, "failureThreshold", default=3
            )
    return 0


def _readiness(container: Manifest) -> int:
    probe = _known(get(container, "readinessProbe"))
    if probe is None:
        return 0
    again = _seconds(probe, "successThreshold", default=1) - 1
    return (
        _seconds(probe, "initialDelaySeconds", default=0)
        + _seconds(probe, "periodSeconds", default=10) * again
    )
