"""Pods for the tests, in few words."""

from __future__ import annotations

from typing import Any

from switchboard.kube import Object


def container(name: str = "main", *command: str, **more: Any) -> Object:
    return {"name": name, "image": "debian:bookworm", "command": list(command or ("sleep", "inf")), **more}


def pod(*containers: Object, init: list[Object] | None = None, name: str = "p", **spec: Any) -> Object:
    """A pod as the API server would send it, bound to a node."""
    body: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-of-{name}",
            "resourceVersion": "5",
            "generation": 1,
            "labels": {"app": "a"},
            "annotations": {"note": 'say "hi"'},
        },
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": "default",
            "containers": list(containers) or [container()],
            **spec,
        },
        "status": {"phase": "Pending"},
    }
    if init:
        body["spec"]["initContainers"] = init
    return body
