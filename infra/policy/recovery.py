"""How long a workload may take to be back when its node is lost, by what its manifest allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.policy.manifest import (
    UNKNOWN,
    Manifest,
    bound_to,
    get,
    has_unknown,
    items,
    pod_spec,
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
        + terminationGracePeriodSeconds (StatefulSet, Recreate: the old pod has to go first)
        + startup (× replicas, where a StatefulSet starts them in turn) + minReadySeconds

        startup = Σ sidecars' startup budgets + max over containers of
            startup budget + readiness: initialDelaySeconds + periodSeconds × (successThreshold - 1)
        startup budget = initialDelaySeconds + periodSeconds × failureThreshold of the startup probe, else of the
            liveness probe, which ends a container that isn't up by then; nothing bounds one without both: it counts 0

    A pod that is bound to edge nodes (by its required affinity: its own labels say nothing) has no other node to go
    to: it goes on, or is back with its node, and only its start counts. Not counted, since no manifest bounds them:
    init containers that end, pulls of images, and volumes that a lost node holds. A StatefulSet's pod on a lost node
    is only replaced when the node is declared out of service or removed.
    None for other kinds, and where a part isn't known before the update.
    """
    kind, spec = text(manifest, "kind"), pod_spec(manifest)
    if kind not in _KINDS or spec is None:
        return None
    try:
        start = _startup(spec)
        in_turn = _known(get(manifest, "spec", "podManagementPolicy")) != "Parallel"
        if kind == "StatefulSet" and in_turn:
            start *= _seconds(manifest, "spec", "replicas", default=1)
        parts: dict[str, int | None] = {}
        if _known(bound_to(spec, labels.TIER)) != {"edge"}:
            parts["node grace"] = NODE_GRACE_S
            parts["toleration"] = _toleration(spec)
            recreated = _known(get(manifest, "spec", "strategy", "type")) == "Recreate"
            if kind == "StatefulSet" or recreated:
                parts["termination"] = _seconds(
                    spec, "terminationGracePeriodSeconds", default=DEFAULT_TERMINATION_S
                )
        parts["startup"] = start
        parts["minReadySeconds"] = _seconds(manifest, "spec", "minReadySeconds", default=0)
    except _NotYetKnown:
        return None
    return Budget(parts)


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
