"""What the operator makes of the ModelServers that a stack declares, for whoever judges what will run.

By the operator's own functions (`switchboard.workload`), so what is judged is what will be. A Deployment is shown with
the fewest replicas that its scaling lets it have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard import workload
from switchboard.api.model_server import Spec
from switchboard.api.scaling import Mode
from switchboard.kinds import DEPLOYMENTS, MODEL_SERVERS, PERSISTENT_VOLUME_CLAIMS, POD_DISRUPTION_BUDGETS

Manifest = dict[str, Any]


def is_model_server(manifest: Mapping[str, Any]) -> bool:
    return (manifest.get("apiVersion"), manifest.get("kind")) == (
        MODEL_SERVERS.api_version,
        MODEL_SERVERS.kind,
    )


def least(spec: Spec) -> int:
    """The fewest replicas that it may come to have: in the modes `shadow` and `paused` the number is a person's."""
    scaling = spec.scaling
    if scaling.mode is Mode.ACTIVE or spec.replicas is None:
        return scaling.min_replicas
    return spec.replicas


def manifests(server: Mapping[str, Any]) -> list[Manifest]:
    """The objects that the operator makes of a ModelServer.

    Raises:
        ValueError: nothing can be made of its spec (a pydantic `ValidationError`).
    """
    spec = Spec.model_validate(server["spec"])
    found = {**server, "metadata": {"namespace": "default", **server["metadata"]}}
    deployment = workload.deployment(found, spec)
    deployment["spec"]["replicas"] = least(spec)
    return [
        {"apiVersion": kind.api_version, "kind": kind.kind, **made}
        for kind, made in (
            (DEPLOYMENTS, deployment),
            (PERSISTENT_VOLUME_CLAIMS, workload.claim(found, spec)),
            (POD_DISRUPTION_BUDGETS, workload.budget(found, spec)),
        )
    ]
