"""The objects of the benchmark, and their plain server-side applies.

A mix as a platform's stack has it; what an object is follows from its number. Nothing in it makes the cluster's
controllers work for long, and a Service says that it isn't to be waited for, since a plain apply waits for nothing.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

from infra.plugin.kinds import BUILT_IN
from switchboard.kube import Kube, Object

_APPLY = "application/apply-patch+yaml"
_MIX = (
    ("v1", "ConfigMap", 4),
    ("v1", "Secret", 2),
    ("v1", "ServiceAccount", 1),
    ("rbac.authorization.k8s.io/v1", "Role", 1),
    ("v1", "Service", 1),
    ("apps/v1", "Deployment", 1),
)
_KINDS = [(version, kind) for version, kind, share in _MIX for _ in range(share)]


def make(number: int, namespace: str, generation: int) -> Object:
    """Object `number`; `generation` is in a label of it, so that another one is an update."""
    version, kind = _KINDS[number % len(_KINDS)]
    meta: Object = {
        "name": f"{kind.lower()}-{number}",
        "namespace": namespace,
        "labels": {"app": "bench", "generation": str(generation)},
    }
    if kind == "Service":
        meta["annotations"] = {"pulumi.com/skipAwait": "true"}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **_fields(kind, number)}


def _fields(kind: str, number: int) -> dict[str, Any]:
    labels = {"app": f"bench-{number}"}
    match kind:
        case "ConfigMap":
            return {"data": {f"key-{i}": f"value {i} of object {number}" for i in range(8)}}
        case "Secret":
            return {"data": {"password": base64.b64encode(f"secret of {number}".encode()).decode()}}
        case "ServiceAccount":
            return {"automountServiceAccountToken": False}
        case "Role":
            return {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]}
        case "Service":
            return {
                "spec": {"selector": labels, "clusterIP": "None", "ports": [{"name": "http", "port": 80}]}
            }
    container = {
        "name": "app",
        "image": "busybox:1",
        "env": [{"name": "NUMBER", "value": str(number)}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "16Mi"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}}


def make_all(count: int, namespace: str, generation: int) -> list[Object]:
    return [make(number, namespace, generation) for number in range(count)]


async def apply_all(kube: Kube, objects: list[Object], at_once: int) -> float:
    """Apply them, `at_once` at a time as Pulumi does; the wall time in seconds."""
    left = iter(objects)
    started_s = time.monotonic()
    await asyncio.gather(*(_apply_some(kube, left) for _ in range(at_once)))
    return time.monotonic() - started_s


async def _apply_some(kube: Kube, left: Iterator[Object]) -> None:
    for obj in left:
        kind = BUILT_IN[obj["apiVersion"], obj["kind"]]
        path = kind.path(obj["metadata"]["namespace"], obj["metadata"]["name"])
        params = {"fieldManager": "bench"}
        await kube.request("PATCH", path, params=params, body=obj, content_type=_APPLY)
