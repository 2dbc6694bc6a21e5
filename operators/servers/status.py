"""What is said of a ModelServer in its status: pure functions of what is known.

`Ready`: does what was asked for serve? `ScalingActive`: is the traffic known? `AbleToScale`: can its number be changed?
`ScalingLimited`: do bounds hold it back? (The last three are a HorizontalPodAutoscaler's.) Messages hold no number that
changes by itself, so that nothing is written while nothing changes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from operators.facts import Deployment, Pod, Trouble
from operators.scaling.values import Decision
from operators.servers.server import Server, Step
from operators.signals.values import Seen, Traffic
from switchboard import workload
from switchboard.api.conditions import Condition, Flag, put
from switchboard.api.model_server import Status
from switchboard.api.scaling import MOST_REPLICAS, Mode

LOAD_STEP = 0.1
LOAD_PERIOD_S = 30.0
MISSED_S = 5.0
"""A scrape or two that are missed aren't worth a word."""
SLOW_STARTS = 3
"""Not serving after so many of its start times, a replica is said to be slow."""

State = tuple[str, Flag, str, str]
"""A condition: type, status, reason, message."""


def status(
    server: Server,
    step: Step | None,
    deployment: Deployment | None,
    pods: Sequence[Pod],
    seen: Seen,
    traffic: Traffic,
    now: float,
    *,
    whole: bool,
) -> Status:
    """The status of `server` at `now`; where nothing has changed it is the one before, the same object."""
    before = server.status or Status()
    ready = sum(one.ready for one in pods)
    states = [
        _ready(server, deployment, pods, ready, now),
        _active(server, seen, traffic, now, whole=whole),
        _able(server, step, deployment),
        _limited(step.decision if step is not None else server.decision),
    ]
    conditions: tuple[Condition, ...] = before.conditions
    when = datetime.fromtimestamp(int(now), UTC)
    for kind, flag, reason, message in states:
        conditions = put(
            conditions, kind, flag, reason, message[:1000], generation=server.generation, now=when
        )
    spec = server.spec
    values: dict[str, Any] = {
        "observed_generation": server.generation,
        "mode": spec.scaling.mode if spec is not None else before.mode,
        "revision": server.applied or before.revision,
        "replicas": min(MOST_REPLICAS, len(pods)),
        "ready_replicas": min(MOST_REPLICAS, ready),
        "desired_replicas": server.target if server.target is not None else before.desired_replicas,
        "requested_replicas": server.requested[0] if server.requested else before.requested_replicas,
        "selector": _selector(server) or before.selector,
        "load": _load(server, traffic, ready, before.load, now),
        "last_decisions": tuple(server.changes),
        "conditions": conditions,
    }
    # There are thousands at each tick: a comparison is cheaper than another object.
    return before if all(getattr(before, key) == value for key, value in values.items()) else Status(**values)


def counts_only(before: Status | None, after: Status) -> bool:
    """Whether nothing else is new than how many replicas there are and serve."""
    if before is None:
        return False
    counts = {"replicas": after.replicas, "ready_replicas": after.ready_replicas}
    return before.model_copy(update=counts) == after


def _selector(server: Server) -> str | None:
    if server.spec is None:
        return None
    return ",".join(f"{key}={value}" for key, value in workload.selector(server.name, server.spec).items())


def _ready(
    server: Server, deployment: Deployment | None, pods: Sequence[Pod], ready: int, now: float
) -> State:
    if server.spec is None:
        return "Ready", "False", "InvalidSpec", server.problem or "its spec can't be read"
    if server.refused is not None and deployment is None:
        return "Ready", "False", "Refused", server.refused
    if deployment is None:
        return "Ready", "False", "ReplicasStarting", "its Deployment is being made"
    if server.marks is not None and deployment.applied != server.marks.deployment:
        if server.refused is not None:
            return "Ready", "False", "Refused", server.refused
        return "Ready", "False", "RollingOut", "what its spec asks for is being applied"
    trouble = _worst(server, deployment, pods, now)
    target = server.target if server.target is not None else deployment.replicas
    if target == 0 and deployment.replicas == 0:
        return "Ready", "True", "ScaledToZero", "the first request starts a replica"
    least = min(target, max(1, server.spec.scaling.min_replicas))
    if deployment.stuck and trouble is None:
        trouble = Trouble("RolloutStuck", "the new template hasn't become ready in its time")
    if ready < least:
        if trouble is not None:
            return "Ready", "False", trouble.reason, trouble.message
        return "Ready", "False", "ReplicasStarting", f"fewer than {least} replicas serve"
    if deployment.observed_generation < server.template_generation or _replacing(deployment):
        if trouble is not None:
            return "Ready", "False", trouble.reason, trouble.message
        return "Ready", "False", "RollingOut", "replicas are being replaced; the old ones serve"
    return "Ready", "True", "ReplicasReady", "" if trouble is None else f"{trouble.reason}: {trouble.message}"


def _replacing(deployment: Deployment) -> bool:
    return (
        deployment.updated < deployment.total or deployment.total > deployment.replicas + deployment.updated
    )


def _worst(server: Server, deployment: Deployment, pods: Sequence[Pod], now: float) -> Trouble | None:
    """What keeps most of those that don't serve from it."""
    if deployment.failure is not None:
        quota = "quota" in deployment.failure
        return Trouble("QuotaExceeded" if quota else "ReplicasRefused", deployment.failure)
    reasons = Counter(one.trouble.reason for one in pods if one.trouble is not None)
    if reasons:
        reason, _ = reasons.most_common(1)[0]
        return next(one.trouble for one in pods if one.trouble is not None and one.trouble.reason == reason)
    start_s = server.capacity().start_s
    if any(not one.ready and now - one.created > SLOW_STARTS * start_s for one in pods):
        return Trouble(
            "ReplicasNotReady", "a replica doesn't get ready in its time: see its log and its probes"
        )
    return None


def _active(server: Server, seen: Seen, traffic: Traffic, now: float, *, whole: bool) -> State:
    spec = server.spec
    if spec is not None and spec.scaling.mode is Mode.PAUSED:
        return "ScalingActive", "False", "Paused", "spec.scaling.mode is paused"
    if traffic.rate is None:
        known_at = server.state.known_at if server.state is not None else -math.inf
        before = _said(server)
        if before is not None and 0 <= now - known_at < MISSED_S:
            return before
        return "ScalingActive", "False", "NoSignals", "nothing is known of its traffic: nothing is taken away"
    if not whole:
        reason, message = "SeenInPart", "not all gateways are in the view: nothing is taken away"
    elif seen.source == "gateways":
        reason = "GatewaysAnswer"
        message = "Prometheus doesn't answer or doesn't see all gateways: these are asked"
    else:
        reason, message = "PrometheusAnswers", ""
    before = _said(server)
    if before is not None and before[1] == "True" and not _lasts(server, before[2], reason, now):
        return before
    return "ScalingActive", "True", reason, message


def _said(server: Server) -> State | None:
    """What its status says of its signals."""
    conditions = (server.status or Status()).conditions
    return next(
        (
            (one.type, one.status, one.reason, one.message)
            for one in conditions
            if one.type == "ScalingActive"
        ),
        None,
    )


def _lasts(server: Server, before: str, reason: str, now: float) -> bool:
    """Whether who answers now is who did, or has for a while: a Prometheus that misses every other tick would have all
    statuses written at each."""
    if reason == before:
        server.answers = None
        return True
    if server.answers is None or server.answers[0] != reason:
        server.answers = (reason, now)
    return not 0 <= now - server.answers[1] < MISSED_S


def _able(server: Server, step: Step | None, deployment: Deployment | None) -> State:
    if server.problem is not None:
        return "AbleToScale", "False", "InvalidSpec", server.problem
    if server.refused is not None:
        return "AbleToScale", "False", "Refused", server.refused
    if step is not None and step.held is not None:
        return "AbleToScale", "False", "RollingOut", step.held
    if deployment is not None and deployment.failure is not None:
        return "AbleToScale", "False", "ReplicasRefused", deployment.failure
    if server.spec is not None and server.spec.scaling.mode is Mode.SHADOW:
        return "AbleToScale", "False", "Shadow", "decisions are recorded and not carried out"
    return "AbleToScale", "True", "Succeeded", ""


def _limited(decision: Decision | None) -> State:
    moves = [move for move in decision.moves if move.constraint == "bounds"] if decision is not None else []
    if not moves:
        return "ScalingLimited", "False", "WithinBounds", ""
    last = moves[-1]
    reason = "TooManyReplicas" if last.after < last.before else "TooFewReplicas"
    return "ScalingLimited", "True", reason, last.why


def _load(server: Server, traffic: Traffic, ready: int, before: str | None, now: float) -> str | None:
    """The share of the capacity that is in use, in tenths; said again when it has changed by as much, not too often."""
    said = server.load or before
    load = _share(server, traffic, ready)
    if load is None:
        return said
    known = _number(said)
    changed = known is None or abs(load - known / 100) >= LOAD_STEP
    if changed and not 0 <= now - server.load_at < LOAD_PERIOD_S:
        server.load, server.load_at = f"{round(load / LOAD_STEP) * LOAD_STEP:.0%}", now
        return server.load
    return said


def _share(server: Server, traffic: Traffic, ready: int) -> float | None:
    if traffic.rate is None or not ready or server.spec is None:
        return None
    capacity = server.capacity()
    if math.isfinite(capacity.rps):
        return traffic.rate / (ready * capacity.rps)
    if traffic.in_service is not None:
        return traffic.in_service / (ready * capacity.concurrency)
    return None


def _number(said: str | None) -> float | None:
    try:
        return float((said or "").rstrip("%"))
    except ValueError:
        return None
