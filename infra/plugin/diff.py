"""What a change of inputs means: nothing, an update, or a replacement (and in which order).

New inputs are compared with the old ones (which a refresh has brought in line with the live object, see
`infra.plugin.state`), so nothing is asked of the API server. What forces a replacement is a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from infra.plugin.naming import is_autonamed
from infra.plugin.paths import Path, covers, format_path, parse_path
from infra.plugin.wire import UNKNOWN, Properties, to_kubernetes

ANY_VERSION = "*"

IDENTITY = ("metadata.name", "metadata.namespace")
_WORKLOAD = ("spec.selector",)
_STATEFUL_SET = (
    "spec.selector",
    "spec.serviceName",
    "spec.podManagementPolicy",
    "spec.volumeClaimTemplates",
    "spec.revisionHistoryLimit",
)
_JOB = (
    "spec.selector",
    "spec.template",
    "spec.completions",
    "spec.parallelism",
    "spec.completionMode",
    "spec.manualSelector",
)
_DATA = ("data", "binaryData", "stringData")
_VOLUME_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip

REPLACES: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps", "Deployment"): _WORKLOAD,
    ("apps", "DaemonSet"): _WORKLOAD,
    ("apps", "ReplicaSet"): _WORKLOAD,
    ("apps", "StatefulSet"): _STATEFUL_SET,
    ("batch", "Job"): _JOB,
    ("", "PersistentVolumeClaim"): (
        "spec.accessModes",
        "spec.storageClassName",
        "spec.selector",
        "spec.volumeName",
        "spec.volumeMode",
        "spec.dataSource",
        "spec.dataSourceRef",
    ),
    ("", "PersistentVolume"): ("spec.volumeMode", *(f"spec.{source}" for source in _VOLUME_SOURCES)),
    ("", "Pod"): ("spec",),
    ("", "ConfigMap"): ("data", "binaryData"),
    ("", "Secret"): ("type", "data", "stringData"),
    ("", "Service"): ("spec.clusterIP", "spec.clusterIPs"),
    ("", "ResourceQuota"): ("spec.scopes",),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("storage.k8s.io", "StorageClass"): (
        "parameters",
        "provisioner",
        "reclaimPolicy",
        "volumeBindingMode",
    ),
    ("scheduling.k8s.io", "PriorityClass"): ("value", "preemptionPolicy"),
}
"""What can't be changed in place, by API group and kind, beside an object's identity (group, kind, name, namespace).

A CustomResourceDefinition isn't here, as with the official plugin: a new one would take all its objects along, so the
server's refusal is the better answer.
"""

KEEPS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): ("spec.activeDeadlineSeconds", "spec.tolerations", "spec.schedulingGates")
}
"""Exceptions inside `REPLACES`: what can be changed in place after all."""


class Change(Enum):
    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True)
class Options:
    """What the provider's configuration says about replacements."""

    mutable_config_maps: bool = False
    mutable_secrets: bool = False


@dataclass(frozen=True)
class Difference:
    """The changes by property path; those in `replaces` can't be made in place."""

    changes: dict[str, Change]
    replaces: tuple[str, ...] = ()
    delete_before_replace: bool = False


def compare(
    old: Properties,
    new: Properties,
    *,
    ignore: Iterable[str] = (),
    patch: bool = False,
    options: Options = Options(),
) -> Difference:
    """What changes from inputs `old` to inputs `new` (`patch`: of a `…Patch` resource).

    Raises:
        ValueError: a path in `ignore` isn't one.
    """
    before, after = _comparable(old), _comparable(new)
    ignored = [parse_path(text) for text in ignore]
    changes = {
        path: change
        for path, change in _changes((), before, after)
        if not any(covers(pattern, path) for pattern in ignored)
    }
    patterns, exceptions = _rules(before, after, patch, options)
    replaces = tuple(
        format_path(path)
        for path in changes
        if any(covers(p, path) or covers(path, p) for p in patterns)
        and not any(covers(p, path) for p in exceptions)
    )
    return Difference(
        changes={format_path(path): change for path, change in changes.items()},
        replaces=replaces,
        delete_before_replace=bool(replaces) and not is_autonamed(after) and _same_place(before, after),
    )


def _comparable(properties: Properties) -> Properties:
    plain = to_kubernetes({key: value for key, value in properties.items() if not key.startswith("__")})
    plain.pop("status", None)
    return plain


def _rules(
    before: Properties, after: Properties, patch: bool, options: Options
) -> tuple[list[Path], list[Path]]:
    group, kind = _group(after), after.get("kind")
    identity = [parse_path(text) for text in IDENTITY]
    if before and (_group(before), before.get("kind")) != (group, kind):
        identity += [("apiVersion",), ("kind",)]
    if patch or not isinstance(kind, str):
        return identity, []
    rules = REPLACES.get((group, kind), ())
    mutable = {"ConfigMap": options.mutable_config_maps, "Secret": options.mutable_secrets}
    if group == "" and mutable.get(kind) and before.get("immutable") is not True:
        rules = tuple(rule for rule in rules if rule not in _DATA)
    keeps = KEEPS.get((group, kind), ())
    return identity + [parse_path(text) for text in rules], [parse_path(text) for text in keeps]


def _group(obj: Properties) -> str:
    version = obj.get("apiVersion")
    return version.rpartition("/")[0] if isinstance(version, str) else ""


def _same_place(before: Properties, after: Properties) -> bool:
    """Whether the new object would take the old one's name, so that the old one must go first."""
    one, other = before.get("metadata") or {}, after.get("metadata") or {}
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return all(one.get(key) == other.get(key) for key in ("name", "namespace"))


def _changes(path: Path, old: Any, new: Any) -> Iterable[tuple[Path, Change]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = (*path, key)
            if key not in new:
                yield inner, Change.DELETE
            elif key not in old:
                yield inner, Change.ADD
            else:
                yield from _changes(inner, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        for i in range(max(len(old), len(new))):
            if i >= len(new):
                yield (*path, i), Change.DELETE
            elif i >= len(old):
                yield (*path, i), Change.ADD
            else:
                yield from _changes((*path, i), old[i], new[i])
    elif old is UNKNOWN or new is UNKNOWN or not same_value(path, old, new):
        yield path, Change.UPDATE


_QUANTITY_PARENTS = frozenset({"requests", "limits", "capacity", "hard", "allocatable", "overhead"})
_QUANTITY_KEYS = frozenset({"sizeLimit", "divisor"})
_SUFFIXES: dict[str, int | Decimal] = {
    "": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": 10**3, "M": 10**6, "G": 10**9,
    "T": 10**12, "P": 10**15, "E": 10**18, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
    "Ei": 2**60,
}  # fmt: skip


def same_value(path: Path, old: Any, new: Any) -> bool:
    """Whether two leaves mean the same to the API server (`1000m` and `1` where a quantity stands)."""
    if type(old) is bool or type(new) is bool:
        return old is new
    if old == new:
        return True
    is_quantity = path and (path[-1] in _QUANTITY_KEYS or (len(path) > 1 and path[-2] in _QUANTITY_PARENTS))
    if not is_quantity:
        return False
    one, other = quantity(old), quantity(new)
    return one is not None and one == other


def quantity(value: Any) -> Decimal | None:
    """The number that a Kubernetes quantity stands for; None where it isn't one."""
    text = str(value) if isinstance(value, str | int | float) else ""
    digits = text.rstrip("numkMGTPEi")
    factor = _SUFFIXES.get(text[len(digits) :])
    try:
        return Decimal(digits) * factor if factor is not None else None
    except ArithmeticError:
        return None
