"""The Pulumi program of the benchmark: the objects of `objects.json` beside it, by the typed SDK."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

CLASSES = {
    "ConfigMap": k8s.core.v1.ConfigMap,
    "Secret": k8s.core.v1.Secret,
    "ServiceAccount": k8s.core.v1.ServiceAccount,
    "Role": k8s.rbac.v1.Role,
    "Service": k8s.core.v1.Service,
    "Deployment": k8s.apps.v1.Deployment,
}


def main() -> None:
    want = json.loads(Path(__file__).with_name("objects.json").read_text())
    provider = k8s.Provider("cluster", kubeconfig=want["kubeconfig"])
    options = pulumi.ResourceOptions(provider=provider)
    for obj in want["objects"]:
        fields = {
            re.sub("([A-Z])", r"_\1", key).lower(): obj[key]
            for key in obj
            if key not in ("apiVersion", "kind")
        }
        CLASSES[obj["kind"]](obj["metadata"]["name"], **fields, opts=options)


main()
