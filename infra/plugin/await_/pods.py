"""Why a pod isn't ready, in words a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.plugin.await_.rule import condition, is_condition
from switchboard.kube import Object

_STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pod. `container` is set where its log may tell more, `previous` if of its last run."""

    pod: str
    reason: str
    container: str | None = None
    previous: bool = False

    def __str__(self) -> str:
        where = f": container {self.container}" if self.container else ""
        return f"pod {self.pod}{where}: {self.reason}"


def troubles(pods: Iterable[Object]) -> list[Trouble]:
    """What keeps pods from being ready, the newest pods first; ready, finished and leaving pods have none."""
    newest = sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)
    return [trouble for pod in newest if (trouble := trouble_of(pod)) is not None]


def trouble_of(pod: Object) -> Trouble | None:
    """What keeps a pod from being ready; None where nothing does, or it is only starting."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return None
    if is_condition(pod, "Ready"):
        return None
    for container in _containers(status):
        if (found := _container_trouble(name, container)) is not None:
            return found
    scheduled = condition(pod, "PodScheduled")
    if status.get("phase") == "Pending" and scheduled is not None and scheduled.get("status") == "False":
        return Trouble(
            name, f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}".rstrip(": ")
        )
    if status.get("phase") == "Failed":
        return Trouble(name, f"{status.get('reason', 'Failed')}: {status.get('message', '')}".rstrip(": "))
    for container in status.get("containerStatuses") or []:
        if not container.get("ready") and "running" in (container.get("state") or {}):
            return Trouble(name, "running, but not ready (its readiness probe fails)", container["name"])
    return None


def _containers(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _container_trouble(pod: str, container: dict[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    ended = (container.get("lastState") or {}).get("terminated")
    if "waiting" in state:
        waiting = state["waiting"]
        if waiting.get("reason", "ContainerCreating") in _STARTING:
            return None
        parts = [waiting["reason"]]
        if waiting.get("message"):
            parts.append(waiting["message"])
        if ended:
            parts.append(_ending(ended))
        return Trouble(pod, ": ".join(parts), container["name"], previous=ended is not None)
    ending = state.get("terminated")
    if ending and ending.get("exitCode"):
        return Trouble(pod, _ending(ending), container["name"])
    return None


def _ending(ended: dict[str, Any]) -> str:
    why = ended.get("reason")
    text = f"exit code {ended.get('exitCode')}" + (f" ({why})" if why and why != "Error" else "")
    message = (ended.get("message") or "").strip().splitlines()
    return f"{text}: {message[-1]}" if message else text
