"""Kubernetes manifests as plain values with holes: what a preview doesn't know yet is `UNKNOWN`.

A rule decides by what is known; what isn't is judged by the same rule at `pulumi up`, where nothing is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Manifest = Mapping[str, Any]


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False

    def __deepcopy__(self, _: object) -> _Unknown:
        return self


UNKNOWN: Final = _Unknown()
"""A value that isn't known before the update."""

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **{
        kind: ("spec", "template")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
    },
}
"""Where a kind of workload has its pod."""

WORKLOADS = frozenset(_TEMPLATES)


@dataclass(frozen=True)
class Container:
    """A container of a pod; `role` is `container`, `init container` or `ephemeral container`."""

    role: str
    spec: Manifest

    @property
    def title(self) -> str:
        return f"{self.role} {text(self.spec, 'name') or '(unnamed)'}"


def get(value: Any, *path: str) -> Any:
    """What is at `path`: None where nothing is, UNKNOWN where that can't be said yet."""
    for key in path:
        if value is UNKNOWN:
            return UNKNOWN
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def has_unknown(value: Any) -> bool:
    """Whether `value` is, or holds, what isn't known yet."""
    if isinstance(value, Mapping):
        return any(map(has_unknown, value.values()))
    return any(map(has_unknown, value)) if isinstance(value, list | tuple) else value is UNKNOWN


def text(value: Any, *path: str) -> str | None:
    """The string at `path`; None where there is none, or it isn't known."""
    found = get(value, *path)
    return found if isinstance(found, str) else None


def items(value: Any, *path: str) -> list[Any]:
    """The list at `path`, as far as it is known."""
    found = get(value, *path)
    return list(found) if isinstance(found, list | tuple) else []


def label(value: Any, key: str) -> Any:
    """A label of an object or a pod template."""
    return get(value, "metadata", "labels", key)


def annotation(value: Any, key: str) -> Any:
    """An annotation of an object or a pod template."""
    return get(value, "metadata", "annotations", key)


def pod_template(manifest: Manifest) -> Manifest | None:
    """A workload's pod: its metadata and spec; None for other kinds, and where it isn't known yet."""
    path = _TEMPLATES.get(text(manifest, "kind") or "")
    if path is None:
        return None
    found = get(manifest, *path)
    return found if isinstance(found, Mapping) else None


def pod_spec(manifest: Manifest) -> Manifest | None:
    """The pod spec of a workload, where it has one that is known."""
    found = get(pod_template(manifest), "spec")
    return found if isinstance(found, Mapping) else None


def bound_to(spec: Any, key: str) -> Any:
    """The values of a node's label `key` of which a pod's node must have one; None where it may have any.

    A pod's own labels place it nowhere: only its `nodeSelector` and required node affinity do.
    """
    required = get(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    selected = get(spec, "nodeSelector", key)
    if selected is UNKNOWN or has_unknown(required):
        return UNKNOWN
    # Of several terms one has to hold, of a term's expressions all.
    terms = [_values(term, key) for term in items(required, "nodeSelectorTerms")]
    known = [found for found in terms if found is not None]
    bound = frozenset().union(*known) if known and len(known) == len(terms) else None
    if not isinstance(selected, str):
        return bound
    return frozenset({selected}) if bound is None else bound & {selected}


def _values(term: Any, key: str) -> frozenset[str] | None:
    found = [
        frozenset(value for value in items(one, "values") if isinstance(value, str))
        for one in items(term, "matchExpressions")
        if get(one, "key") == key and get(one, "operator") == "In"
    ]
    return frozenset.intersection(*found) if found else None


def containers(spec: Manifest) -> Iterator[Container]:
    """All containers of a pod, of every sort."""
    for role, key in (
        ("container", "containers"),
        ("init container", "initContainers"),
        ("ephemeral container", "ephemeralContainers"),
    ):
        for found in items(spec, key):
            if isinstance(found, Mapping):
                yield Container(role, found)
