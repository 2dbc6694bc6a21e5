"""A pod's status as a kubelet reports it: phase, conditions and container statuses from what is known of its runs.

Pure: the manifest, the record and the time go in, the `status` object comes out (only the fields that a kubelet
owns; the scheduler's and the API server's stay as they are).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from infra.local.node import podspec
from infra.local.node.records import Condition, Container, Ended, PodRecord, Problem, show_time
from switchboard.kube import Object

Flag = Literal["True", "False"]
CREATING = Problem(reason="ContainerCreating")
INITIALIZING = Problem(reason="PodInitializing")


def phase(record: PodRecord) -> str:
    """Pending, Running, Succeeded or Failed."""
    if record.outcome is not None:
        return record.outcome
    mains = [c for c in record.containers.values() if c.kind == "main"]
    if any(c.phase == "running" for c in mains):
        return "Running"
    if not record.initialized:
        return "Pending"
    if any(c.phase == "waiting" and c.previous is None for c in mains):
        return "Pending"
    return "Running"


def _terminated(ended: Ended) -> Object:
    shown: Object = {
        "containerID": f"switchboard://{ended.run_id}",
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": show_time(ended.started_at) if ended.started_at else None,
        "finishedAt": show_time(ended.finished_at),
    }
    if ended.signal:
        shown["signal"] = ended.signal
    if ended.message:
        shown["message"] = ended.message
    return {"terminated": shown}


def _waiting(problem: Problem) -> Object:
    return {"waiting": problem.model_dump(exclude_defaults=True)}


def _state(container: Container, record: PodRecord, over: bool) -> tuple[Object, Object]:
    """`state` and `lastState`."""
    previous = _terminated(container.previous) if container.previous else {}
    if container.phase == "running" and container.started_at is not None:
        return {"running": {"startedAt": show_time(container.started_at)}}, previous
    if container.phase == "exited" and container.ended is not None:
        if container.problem is None or over:
            return _terminated(container.ended), previous
        return _waiting(container.problem), _terminated(container.ended)
    if container.problem is not None:
        return _waiting(container.problem), previous
    waits_for_init = not record.initialized and any(c.kind != "main" for c in record.containers.values())
    return _waiting(INITIALIZING if waits_for_init else CREATING), previous


def container_status(one: Object, container: Container, record: PodRecord, *, over: bool) -> Object:
    """One entry of `containerStatuses` or `initContainerStatuses`."""
    state, last = _state(container, record, over)
    running = container.phase == "running"
    done = container.kind == "init" and container.succeeded
    status: Object = {
        "name": container.name,
        "image": one["image"],
        "imageID": f"switchboard://{one['image']}" if container.run_id else "",
        "ready": (running and container.started and container.ready) or done,
        "restartCount": container.attempt,
        "started": running and container.started,
        "state": state,
        "lastState": last,
    }
    if container.run_id:
        status["containerID"] = f"switchboard://{container.run_id}"
    return status


def _condition(kind: str, value: bool, reason: str = "", message: str = "") -> Object:
    # A null takes a field away in a merge patch, so that a condition that comes true loses its old reason.
    return {
        "type": kind,
        "status": "True" if value else "False",
        "reason": reason or None,
        "message": message or None,
    }


def _readiness(pod: Object, record: PodRecord, current: str, ending: bool) -> list[Object]:
    names = [
        c.name
        for c in record.containers.values()
        if c.kind != "init" and not (c.phase == "running" and c.started and c.ready)
    ]
    if current == "Succeeded":
        return [_condition(kind, False, "PodCompleted") for kind in ("ContainersReady", "Ready")]
    if current == "Failed":
        return [_condition(kind, False, "PodFailed") for kind in ("ContainersReady", "Ready")]
    why = f"containers with unready status: [{' '.join(names)}]"
    unready = [_condition(kind, False, "ContainersNotReady", why) for kind in ("ContainersReady", "Ready")]
    if names or current != "Running":
        return unready
    if ending:
        return [
            _condition("ContainersReady", False, "PodTerminating", "the pod is being terminated"),
            _condition("Ready", False, "PodTerminating", "the pod is being terminated"),
        ]
    given = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or []}
    gates = [g["conditionType"] for g in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if given.get(gate) != "True"]
    message = f"corresponding condition of pod readiness gate is not True: {', '.join(closed)}"
    ready = (
        _condition("Ready", False, "ReadinessGatesNotReady", message) if closed else _condition("Ready", True)
    )
    return [_condition("ContainersReady", True), ready]


def conditions(
    pod: Object, record: PodRecord, current: str, ending: bool, now: datetime
) -> tuple[list[Object], dict[str, Condition]]:
    """The conditions with the time of their last change, and the memory of those times."""
    inits = [c.name for c in record.containers.values() if c.kind != "main"]
    todo = [
        name for name in inits if not (record.containers[name].succeeded or record.containers[name].started)
    ]
    if record.initialized or not todo:
        initialized = _condition("Initialized", True, "PodCompleted" if current == "Succeeded" else "")
    else:
        initialized = _condition(
            "Initialized",
            False,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(todo)}]",
        )
    found = [
        _condition("PodReadyToStartContainers", record.sandbox is not None and record.outcome is None),
        initialized,
        *_readiness(pod, record, current, ending),
        _condition("PodScheduled", True),
    ]
    memory: dict[str, Condition] = {}
    for condition in found:
        known = record.conditions.get(condition["type"])
        flag: Flag = condition["status"]
        if known is None or known.status != flag:
            known = Condition(status=flag, since=now)
        memory[condition["type"]] = known
        condition["lastTransitionTime"] = show_time(known.since)
        if generation := pod["metadata"].get("generation"):
            condition["observedGeneration"] = generation
    return found, memory


def pod_status(pod: Object, record: PodRecord, *, host_ip: str, ending: bool, now: datetime) -> Object:
    """The whole status; remembers the conditions' times in the record."""
    current = phase(record)
    over = record.outcome is not None or ending
    found, record.conditions = conditions(pod, record, current, ending, now)
    shown: dict[str, list[Object]] = {"init": [], "main": []}
    for kind, one in podspec.all_containers(pod):
        container = record.containers[one["name"]]
        shown["main" if kind == "main" else "init"].append(
            container_status(one, container, record, over=over)
        )
    status: Object = {
        "phase": current,
        "conditions": found,
        "startTime": show_time(record.started_at),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "containerStatuses": shown["main"],
    }
    if shown["init"]:
        status["initContainerStatuses"] = shown["init"]
    if record.ip is not None:
        status["podIP"] = record.ip
        status["podIPs"] = [{"ip": record.ip}]
    if record.failure is not None:
        status |= {"reason": record.failure.reason, "message": record.failure.message}
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    return status


def same(wanted: Any, seen: Any) -> bool:
    """Whether a merge of `wanted` into `seen` would change nothing (None: absent; conditions match by type)."""
    if isinstance(wanted, Mapping):
        return isinstance(seen, Mapping) and all(same(value, seen.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(seen, list):
            return not wanted and seen is None
        if wanted and isinstance(wanted[0], Mapping) and "type" in wanted[0]:
            by_type = {item.get("type"): item for item in seen}
            return all(same(item, by_type.get(item["type"])) for item in wanted)
        return len(wanted) == len(seen) and all(same(a, b) for a, b in zip(wanted, seen, strict=True))
    if wanted is None or wanted == "" or wanted is False:
        return not seen
    return bool(wanted == seen)
