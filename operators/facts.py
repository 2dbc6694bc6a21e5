"""What the operator keeps of the objects that it watches: small values, since there may be 20,000 pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from switchboard import labels
from switchboard.kube import Object
from switchboard.pods import serves

NAME = labels.NAME
APPLIED = f"{labels.DOMAIN}/applied"
"""An annotation on what the operator made: the digest of what it applied."""
SCALER = "switchboard-scaler"
"""The field manager of `spec.replicas`, and of nothing else."""

_FAILING = {
    "CrashLoopBackOff",
    "Error",
    "RunContainerError",
    "CreateContainerConfigError",
    "CreateContainerError",
}
_UNPULLED = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod doesn't serve: a reason of a condition, and what Kubernetes says."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a model server; times in seconds since the epoch. `zone` is its node's where there are no zones;
    `draining`: gateways leave it out."""

    name: str
    uid: str
    zone: str
    created: float
    ready: bool
    ready_at: float | None
    restarts: int
    draining: bool
    trouble: Trouble | None = None
    ip: str | None = None

    @property
    def is_sent_requests(self) -> bool:
        """By gateways that know of it by now."""
        return self.ready and not self.draining


@dataclass(frozen=True, slots=True)
class Deployment:
    """The state of a model server's Deployment."""

    uid: str
    version: int
    generation: int
    observed_generation: int
    replicas: int
    total: int
    updated: int
    ready: int
    applied: str | None
    scaled_by_us: bool
    failure: str | None = None
    stuck: bool = False

    @property
    def rolling(self) -> bool:
        """A new template is on its way: not all replicas have it, or old ones are still there."""
        return (
            self.observed_generation < self.generation
            or self.updated < min(self.replicas, self.total)
            or self.total > max(self.updated, self.replicas)
        )


@dataclass(frozen=True, slots=True)
class Made:
    """Of a claim or a budget: whether it is what was applied."""

    uid: str
    applied: str | None


def seconds(text: str | None) -> float | None:
    """Seconds since the epoch of a time as the API has it; None where it isn't one."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
    except ValueError:
        return None


def owner_of(obj: Object) -> str | None:
    """The name of the ModelServer that an object belongs to, by its label."""
    return (obj["metadata"].get("labels") or {}).get(NAME)


def replica(obj: Object) -> bool:
    """Whether a pod is one of a Deployment: another's may have the same labels."""
    return any(one.get("kind") == "ReplicaSet" for one in obj["metadata"].get("ownerReferences") or ())


def pod(obj: Object) -> Pod | None:
    """The facts of a pod; None where it is on its way out or has ended, as ReplicaSets don't count it either."""
    meta, status = obj["metadata"], obj.get("status") or {}
    if meta.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    notes, own = meta.get("annotations") or {}, meta.get("labels") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready = serves(obj)
    containers = status.get("containerStatuses") or ()
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        zone=own.get(labels.ZONE) or obj["spec"].get("nodeName") or "",
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        ready=ready,
        ready_at=seconds(conditions["Ready"].get("lastTransitionTime")) if ready else None,
        restarts=sum(one.get("restartCount", 0) for one in containers),
        draining=labels.DRAINING in notes,
        trouble=None if ready else _trouble(conditions, containers),
        ip=status.get("podIP"),
    )


def deployment(obj: Object) -> Deployment:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    failure = conditions.get("ReplicaFailure", {})
    return Deployment(
        uid=meta["uid"],
        version=_number(meta.get("resourceVersion")),
        generation=meta.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        replicas=spec.get("replicas", 1),
        total=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        applied=(meta.get("annotations") or {}).get(APPLIED),
        scaled_by_us=any(
            one.get("manager") == SCALER and "f:replicas" in (one.get("fieldsV1") or {}).get("f:spec", {})
            for one in meta.get("managedFields") or ()
        ),
        failure=_short(failure.get("message")) if failure.get("status") == "True" else None,
        stuck=conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded",
    )


def made(obj: Object) -> Made:
    meta = obj["metadata"]
    return Made(meta["uid"], (meta.get("annotations") or {}).get(APPLIED))


def stub(obj: Object) -> Object:
    """What an informer keeps of an object whose facts are elsewhere."""
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("namespace", "name", "resourceVersion") if key in meta}
    return {"metadata": {**kept, "labels": {NAME: owner_of(obj)}}}


def _trouble(conditions: dict[str, Any], containers: Any) -> Trouble | None:
    """The first thing that keeps a pod from serving, if it is one that waiting won't mend by itself."""
    for one in containers:
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _UNPULLED:
            return Trouble(
                "ImagePullFailed", _short(waiting.get("message") or f"{one.get('image')}: {reason}") or ""
            )
        if reason in _FAILING:
            ended = ((one.get("lastState") or {}).get("terminated") or {}).get("reason")
            said = waiting.get("message") or reason
            return Trouble("ReplicasFailing", _short(f"{said} ({ended})" if ended else said) or "")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble("Unschedulable", _short(scheduled.get("message")) or "")
    return None


def _number(text: Any) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        return 0


def _short(text: str | None) -> str | None:
    return text[:300] if text else None
