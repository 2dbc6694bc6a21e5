"""Manifests of the behaviours, in few words: pods of shell scripts, and what wraps them."""

from __future__ import annotations

from typing import Any

from switchboard.kinds import Kind
from switchboard.kube import Object

IMAGE = "debian:bookworm"
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}

CRON_JOBS = Kind("batch/v1", "cronjobs", "CronJob")
CONTROLLER_REVISIONS = Kind("apps/v1", "controllerrevisions", "ControllerRevision")
BUDGETS = Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
QUOTAS = Kind("v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES = Kind("v1", "limitranges", "LimitRange")
PRIORITY_CLASSES = Kind("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False)
REPLICATION_CONTROLLERS = Kind("v1", "replicationcontrollers", "ReplicationController")
RUNTIME_CLASSES = Kind("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", namespaced=False)
TOKEN_REVIEWS = Kind("authentication.k8s.io/v1", "tokenreviews", "TokenReview", namespaced=False)

FOREVER = "trap 'exit 0' TERM; sleep inf & wait"
"""A program that ends at once when it is asked to."""


def sh(script: str, name: str = "main", **more: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def pod(name: str, *containers: Object | str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A pod; a container that is only a script is `main`. It ends within a second where it has to."""
    whole = [sh(one) if isinstance(one, str) else one for one in containers]
    return {
        "metadata": {"name": name, "labels": labels or {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": whole, **spec},
    }


def template(app: str, *containers: Object | str, **spec: Any) -> Object:
    """A pod template whose pods carry the label `app`."""
    made = pod("", *(containers or (FOREVER,)), labels={"app": app}, **{"restartPolicy": "Always", **spec})
    del made["metadata"]["name"]
    return made


def workload(name: str, replicas: int, *containers: Object | str, **spec: Any) -> Object:
    """A Deployment, ReplicaSet, StatefulSet: its name, its selector `app`, its replicas. `pod` is for the template."""
    inner = spec.pop("pod", {})
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, *containers, **inner),
            **spec,
        },
    }


def job(name: str, *containers: Object | str, **spec: Any) -> Object:
    """A Job whose pods are not restarted in place unless `restart` says so."""
    inner = {"restartPolicy": spec.pop("restart", "Never"), **spec.pop("pod", {})}
    return {"metadata": {"name": name}, "spec": {"template": template(name, *containers, **inner), **spec}}


def claim(name: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, **spec},
    }


def http_server(name: str = "main", **more: Any) -> Object:
    """A container that serves its working directory at the pod's address, port 8080, within a fifth of a second."""
    code = (
        "import http.server as h, os, signal, sys; signal.signal(15, lambda *_: os._exit(0)); "
        "h.ThreadingHTTPServer((os.environ['POD_IP'], 8080), h.SimpleHTTPRequestHandler).serve_forever()"
    )
    return {
        "name": name,
        "image": IMAGE,
        "command": ["python3", "-S", "-c", code],
        "env": [POD_IP, *more.pop("env", [])],
        "ports": [{"name": "http", "containerPort": 8080}],
        **more,
    }


def mount(name: str, path: str, **more: Any) -> Object:
    return {"name": name, "mountPath": path, **more}


def condition(obj: Object, kind: str) -> str:
    """The status of a condition: `True`, `False`, `Unknown`, or nothing where there is none."""
    found = (obj.get("status") or {}).get("conditions") or []
    return next((str(c["status"]) for c in found if c["type"] == kind), "")


def ready(obj: Object) -> bool:
    return condition(obj, "Ready") == "True"


def phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase", ""))


def over(obj: Object) -> bool:
    return phase(obj) in ("Succeeded", "Failed")


def status_of(obj: Object, name: str = "main") -> Object:
    """The status of a container, of whichever kind."""
    status = obj["status"]
    listed = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    return next(one for one in listed if one["name"] == name)


def terminated(obj: Object, name: str = "main") -> Object:
    """How a container's run ended: its state, or the run before where it runs again. Empty where neither is."""
    one = status_of(obj, name)
    return one["state"].get("terminated") or one.get("lastState", {}).get("terminated") or {}


def waiting(obj: Object, name: str = "main") -> str:
    """Why a container waits; empty where it doesn't."""
    return str(status_of(obj, name)["state"].get("waiting", {}).get("reason", ""))
