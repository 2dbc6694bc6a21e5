"""The probes of one pod's running containers: which are asked when, and what follows from a verdict."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from infra.local.node import podspec
from infra.local.node.probes import Prober
from infra.local.node.records import Container, Problem
from switchboard.kube import Object

if TYPE_CHECKING:
    from infra.local.node.pod_worker import PodWorker

ProbeKind = Literal["startup", "readiness", "liveness"]

_FIELDS: dict[ProbeKind, str] = {
    "startup": "startupProbe",
    "readiness": "readinessProbe",
    "liveness": "livenessProbe",
}
_FAILED: dict[ProbeKind, str] = {
    "startup": "StartupFailed",
    "readiness": "ReadinessFailed",
    "liveness": "LivenessFailed",
}


def grace_s(pod: Object, one: Object, because: Problem) -> float:
    """Of a container that is stopped although its pod goes on: that of the probe which failed, else the pod's."""
    for kind, field in _FIELDS.items():
        given = (one.get(field) or {}).get("terminationGracePeriodSeconds")
        if because.reason == _FAILED[kind] and given is not None:
            return float(given)
    return podspec.grace_s(pod)


class ContainerProbes:
    """One task a probe, from when its container's run has begun until it ends."""

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker
        self._probers: dict[str, list[asyncio.Task[None]]] = {}

    def begin(self, container: Container, one: Object) -> None:
        """Probe a run that has begun; without probes it is ready now."""
        if not one.get("startupProbe"):
            container.started = True
        if not one.get("readinessProbe"):
            container.ready = container.started
        self._probe(container, one)

    def stop(self, name: str) -> None:
        for task in self._probers.pop(name, []):
            task.cancel()

    def stop_all(self) -> None:
        for name in list(self._probers):
            self.stop(name)

    def _probe(self, container: Container, one: Object) -> None:
        kinds: list[ProbeKind] = [kind for kind, field in _FIELDS.items() if one.get(field)]
        if not container.started:
            kinds = ["startup"]
        for kind in kinds:
            if kind != "startup" or not container.started:
                self._start(container, one, kind)

    def _start(self, container: Container, one: Object, kind: ProbeKind) -> None:
        worker, id = self._worker, container.run_id or ""

        async def execute(argv: list[str], timeout_s: float) -> Any:
            return await worker.context.runtime.exec(id, argv, timeout_s)

        prober = Prober(
            kind=kind,
            probe=one[_FIELDS[kind]],
            one=one,
            pod_ip=worker.record.ip or "",
            execute=execute,
            on_verdict=partial(self._verdict, container, one, kind, id),
            on_failure=partial(self._unhealthy, container.name, kind),
            known=container.ready if kind == "readiness" else None,
        )
        ran_s = (datetime.now(UTC) - container.started_at).total_seconds() if container.started_at else 0.0
        task = asyncio.create_task(prober.run(ran_s))
        self._probers.setdefault(container.name, []).append(task)

    def _unhealthy(self, name: str, kind: ProbeKind, message: str) -> None:
        self._worker.event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {message}", name)

    def _verdict(
        self, container: Container, one: Object, kind: ProbeKind, id: str, ok: bool, message: str
    ) -> None:
        if container.run_id != id or container.phase != "running":
            return
        worker = self._worker
        if kind == "readiness":
            container.ready = ok
        elif ok and kind == "startup":
            container.started = True
            container.ready = container.ready or not one.get("readinessProbe")
            self._probe(container, one)
        elif not ok:
            why = f"Container {container.name} failed {kind} probe, will be restarted"
            container.stop_because = Problem(reason=_FAILED[kind], message=why)
        worker.save()
        worker.wake()
