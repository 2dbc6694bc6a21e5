"""The ModelServers that are the arms of a release: pure functions of the one that is released to.

An arm is that ModelServer again, with one version of the model and the numbers that the release says. It is sized by
its own traffic, never below what its next step needs: what the ModelServer has for schedules, idle times and fallbacks
is about a service's traffic, and an arm has a part of it.
"""

from __future__ import annotations

from switchboard import labels, workload
from switchboard.api.model_release import MODEL_RELEASES, arm_of
from switchboard.api.model_server import Arm, Spec
from switchboard.api.scaling import Mode, Pause
from switchboard.kube import Object


def problem(name: str, spec: Spec | None) -> str | None:
    """Why nothing can be released to the ModelServer `name`; None where it can."""
    if spec is None:
        return f"there is no ModelServer {name} here, or its spec can't be read"
    if spec.arm is not None:
        return f"ModelServer {name} is an arm of a release itself"
    if spec.placement.tier != "core":
        return f"ModelServer {name} is an edge's: release to the core's, the edges of its service follow"
    if spec.model.alias is None:
        return f"ModelServer {name} states version {spec.model.version} in spec.model: let it follow an alias"
    if spec.scaling.mode is not Mode.ACTIVE:
        return f"ModelServer {name} is in the mode {spec.scaling.mode}: nobody would size it for a release"
    return None


def arm(release: Object, server: Object, spec: Spec, which: Arm, version: int, least: int) -> Object:
    """The ModelServer that is `which` arm of `release`, with `least` replicas at the least."""
    meta = server["metadata"]
    most = max(spec.scaling.max_replicas, least) if which is Arm.CANDIDATE else least
    scaling = spec.scaling.model_copy(
        update={
            "min_replicas": least,
            "max_replicas": most,
            "pause": Pause(),
            "schedules": (),
            "idle_seconds": None,
            "fallback_replicas": None,
        }
    )
    model = spec.model.model_copy(update={"alias": None, "version": version})
    made = spec.model_copy(
        update={
            "model": model,
            "service": spec.service_of(meta["name"]),
            "arm": which,
            "replicas": None,
            "scaling": scaling,
        }
    )
    notes = workload.own_annotations(server)
    notes.pop(labels.MODEL_VERSION, None)
    own = {**(meta.get("labels") or {}), labels.RELEASE: release["metadata"]["name"]}
    return {
        "metadata": {
            "name": arm_of(meta["name"], which),
            "namespace": meta["namespace"],
            "labels": own,
            **({"annotations": notes} if notes else {}),
            "ownerReferences": [workload.owner(release, MODEL_RELEASES)],
        },
        "spec": made.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
