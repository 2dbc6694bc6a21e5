"""What the operator writes of a ModelServer: its objects, its number of replicas, which of them go, its status.

Two field managers: `switchboard-operator` owns what `switchboard.workload` makes, `switchboard-scaler` the number of
replicas and nothing else. A new Deployment gets its number with its template, since without one it would have one
replica; from the first change of scale on it is the scaler's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from operators.facts import APPLIED, SCALER, made
from operators.servers.server import Marks, Server, Step
from operators.view import View
from switchboard import labels, workload
from switchboard.api.model_server import MODEL_SERVERS, Spec, Status
from switchboard.kinds import POD_DISRUPTION_BUDGETS
from switchboard.kube import (
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    Kind,
    Kube,
    Object,
)

MANAGER = "switchboard-operator"
DRAINING_COST, REMOVED_FIRST = -100, -1000


class Superseded(Exception):
    """Another one may lead by now: nothing is written any more."""


class Gone(Exception):
    """The ModelServer isn't there any more, or is another one by now."""


def digest(body: Object) -> str:
    """Of what is to be applied: the same for the same."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def first_replicas(spec: Spec) -> int:
    """With how many replicas a new Deployment begins: one at least, which shows that it works."""
    scaling = spec.scaling
    least = max(1, scaling.min_replicas)
    return min(max(least, spec.replicas if spec.replicas is not None else least), scaling.max_replicas)


def made_again(server: Server, spec: Spec) -> int:
    """With how many replicas a Deployment begins that isn't there: as many as were wanted, if it was before."""
    wanted = server.target
    if wanted is None and server.told_status is not None:
        wanted = server.told_status.desired_replicas or None  # 0 is also what is said before there is one
    return first_replicas(spec) if wanted is None else min(wanted, spec.scaling.max_replicas)


def _namespace(server: Server) -> str:
    return str(server.object["metadata"]["namespace"])


def _another(error: ApiError) -> bool:
    """What was to be changed isn't there, or is another one of that name: a uid can't change."""
    return error.conflict or (error.status == 422 and "metadata.uid" in error.message)


class Workloads:
    """Writes for one ModelServer at a time. Each call raises ApiError or Unreachable, as `Kube` does, or Superseded."""

    def __init__(
        self,
        kube: Kube,
        view: View,
        *,
        on_write: Callable[[], None] = lambda: None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._kube, self._view, self._on_write, self._may_write = kube, view, on_write, may_write

    def outdated(self, server: Server) -> bool:
        """Whether something of it isn't as it should be, or not known to be."""
        if server.spec is None:
            return False
        marks = self._marks_of(server, server.spec)
        claim = self._view.claims.get(server.name)
        return (
            self._deployment_outdated(server, marks.deployment)
            or claim is None
            or claim.applied != marks.claim
            or server.name not in self._view.budgets
        )

    def _deployment_outdated(self, server: Server, mark: str) -> bool:
        found = self._view.deployments.get(server.name)
        return found is None or found.generation != server.verified or server.applied != mark

    @staticmethod
    def _marks_of(server: Server, spec: Spec) -> Marks:
        if server.marks is None:
            server.marks = Marks(
                digest(workload.deployment(server.object, spec)), digest(workload.claim(server.object, spec))
            )
        return server.marks

    async def ensure(self, server: Server) -> None:
        """Claim, budget and Deployment as the ModelServer's spec says; what is refused of one hinders no other.

        Raises:
            Gone: the ModelServer isn't there any more; nothing is made for it.
        """
        spec, name = server.spec, server.name
        if spec is None:
            return
        if name not in self._view.deployments:
            server.verified = None
            await self._still_there(server)
            if (there := await self._kube.get_or_none(DEPLOYMENTS, name, _namespace(server))) is not None:
                self._view.told(name, there)  # not in the view, but there: its number is to stay
        refused: ApiError | None = None
        for kind, body, views in (
            (PERSISTENT_VOLUME_CLAIMS, workload.claim(server.object, spec), self._view.claims),
            (POD_DISRUPTION_BUDGETS, workload.budget(server.object, spec), self._view.budgets),
        ):
            known = views.get(name)
            if known is not None and known.applied == digest(body):
                continue
            try:
                answer = await self._apply(kind, body)
            except ApiError as error:
                refused = refused or error
            else:
                views[name] = made(answer)
        await self._ensure_deployment(server)
        if refused is not None:
            raise refused

    async def _ensure_deployment(self, server: Server) -> None:
        """As the spec says by now: it may have changed meanwhile."""
        spec = server.spec
        assert spec is not None  # noqa: S101
        mark = self._marks_of(server, spec).deployment
        if not self._deployment_outdated(server, mark):
            return
        found = self._view.deployments.get(server.name)
        body = workload.deployment(server.object, spec)
        if found is None or not found.scaled_by_us:
            body["spec"]["replicas"] = found.replicas if found is not None else made_again(server, spec)
        before = found.generation if found is not None else 0
        answer = await self._apply(DEPLOYMENTS, body, mark)
        now = self._view.told(server.name, answer)
        if now.generation != before:
            server.template_generation = now.generation
        server.applied, server.verified = mark, now.generation

    def _begin(self) -> None:
        """Before each write: several follow each other, and another one may lead by now."""
        if not self._may_write():
            raise Superseded("another one may lead by now")
        self._on_write()

    async def _still_there(self, server: Server) -> None:
        found = await self._kube.get_or_none(MODEL_SERVERS, server.name, _namespace(server))
        meta = (found or {}).get("metadata") or {}
        if meta.get("uid") != server.object["metadata"]["uid"] or meta.get("deletionTimestamp"):
            raise Gone(server.name)

    async def _apply(self, kind: Kind, body: Object, mark: str | None = None) -> Object:
        meta = body["metadata"]
        notes = {**(meta.get("annotations") or {}), APPLIED: mark or digest(body)}
        self._begin()
        return await self._kube.apply(
            kind, {**body, "metadata": {**meta, "annotations": notes}}, field_manager=MANAGER
        )

    async def carry_out(self, server: Server, step: Step, now: float) -> None:
        """Let replicas back, mark those that are to go, and tell the Deployment its number: first where it rises, since
        customers wait for it whatever is refused of a pod; last where it falls, since marks say which ones go."""
        namespace = _namespace(server)
        since = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pods = self._view.pods[server.name]
        found, rising, falling = self._view.deployments.get(server.name), None, step.replicas
        if found is not None and step.replicas is not None and step.replicas > found.replicas:
            rising, falling = step.replicas, None
        if rising is not None:
            await self.scale(server, rising)
        for name in step.restore:
            await self._mark(pods, name, namespace, None, None)
        for name in step.drain:
            await self._mark(pods, name, namespace, since, DRAINING_COST)
        for name in step.remove:
            if (pod := pods.get(name)) is not None and pod.ready:
                await self._mark(pods, name, namespace, since, REMOVED_FIRST, keep_time=True)
        if falling is not None:
            await self.scale(server, falling)

    async def scale(self, server: Server, replicas: int) -> None:
        found = self._view.deployments.get(server.name)
        if found is None:
            return
        meta = {"name": server.name, "namespace": _namespace(server), "uid": found.uid}
        self._begin()
        server.telling = replicas  # which stays where there is no answer
        try:
            answer = await self._kube.apply(
                DEPLOYMENTS, {"metadata": meta, "spec": {"replicas": replicas}}, field_manager=SCALER
            )
        except ApiError as error:
            server.telling = None
            if _another(error):  # or none: what is there has to be looked at
                self._view.deployments.pop(server.name, None)
            raise
        server.told, server.telling = replicas, None
        now = self._view.told(server.name, answer)
        if server.verified == found.generation:
            server.verified = now.generation

    async def _mark(
        self,
        pods: dict[str, Any],
        name: str,
        namespace: str,
        since: str | None,
        cost: int | None,
        *,
        keep_time: bool = False,
    ) -> None:
        pod = pods.get(name)
        if pod is None:
            return
        notes: dict[str, str | None] = {labels.DELETION_COST: None if cost is None else str(cost)}
        if not keep_time:
            notes[labels.DRAINING] = since
        self._begin()
        try:
            await self._kube.patch(
                PODS, name, {"metadata": {"uid": pod.uid, "annotations": notes}}, namespace
            )
        except ApiError as error:
            if not (error.not_found or _another(error)):  # else it has gone by itself
                raise

    async def write_status(self, server: Server, status: Status) -> None:
        """Apply the status.

        Who writes a status can't say of which object: one that was made anew meanwhile gets it, and its own at the next
        tick (`Registry.put` sees that it isn't).

        Raises:
            Gone: there is no such ModelServer any more.
        """
        meta = server.object["metadata"]
        body = {
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self._begin()
        try:
            await self._kube.apply(MODEL_SERVERS, body, field_manager=MANAGER, subresource="status")
        except ApiError as error:
            if error.not_found:
                raise Gone(server.name) from None
            raise
        server.status = status
