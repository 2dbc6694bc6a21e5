"""One ModelServer as the operator has it in memory, and what is decided for it at a tick: no effects in here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from operators.facts import Deployment, Pod
from operators.scaling import policy, victims
from operators.scaling.values import Capacity, Decision, Observation, State
from operators.signals.capacity import LEAST_RPS, NO_FIT, STARTS_KEPT, Fit, p95_start_s
from operators.signals.values import Key, Seen, Traffic
from switchboard import podspec, quantities, workload
from switchboard.api.model_server import MODEL_SERVERS, MOST_DECISIONS, LastDecision, Spec, Status
from switchboard.api.scaling import MOST_REPLICAS, Mode, Scaling
from switchboard.kube import Object

SETTLE_S = 4.0
"""Until gateways have left a replica out and Prometheus has seen that nothing is in it any more."""
DRAIN_DEADLINE_S = 30.0
TICKS_APART_S = 10.0
"""A longer time between two steps is none that has passed: the clock was set, or nobody looked."""
SETTLED_S = 15.0
"""After a start: its processor time has left the windows of the rates."""
PULL_S = 300.0
"""A start may take so much longer than the startup probe allows: for a node, for the image. One that took even longer
was none: the replica has become ready anew."""
MOST_CORES = 1.0
"""A replica answers in one process; what its limit has beyond that serves its other threads."""


class Marks(NamedTuple):
    """Digests of what is to be applied: its budget changes with its Deployment only."""

    deployment: str
    claim: str


@dataclass(slots=True)
class Server:
    """A ModelServer: what is wanted, what is remembered, what was decided last."""

    name: str
    object: Object
    spec: Spec | None
    problem: str | None = None
    state: State | None = None
    fit: Fit = NO_FIT
    measured: int = 0
    """How many replicas the last measurement was of."""
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=STARTS_KEPT))
    counted: set[str] = field(default_factory=set)
    target: int | None = None
    """How many replicas are wanted; None until it is known what there is."""
    told: int | None = None
    """The `replicas` that the Deployment is known to have been told, by whomever."""
    telling: int | None = None
    """What it is being told, or was told without an answer: not to be taken for somebody else's doing."""
    decision: Decision | None = None
    changes: deque[LastDecision] = field(default_factory=lambda: deque(maxlen=MOST_DECISIONS))
    choosing: bool = False
    """Replicas are to go: the next look asks what is in each."""
    view_from: float | None = None
    """From when on its history is known, or enough has been seen without; None until it is asked for."""
    share: float = 1.0
    """Its part of what its service is asked for, at the last tick."""
    answers: tuple[str, float] | None = None
    """Who has answered of late, and since when, if that isn't yet said in its status."""
    stepped_at: float = -math.inf
    drains: dict[str, float] = field(default_factory=dict)
    """For how many seconds this process has seen a replica on its way out, by its uid."""
    requested: tuple[int | None, ...] = ()
    """`spec.replicas` as it was followed last, or passed over; empty until the first step."""
    seen: tuple[Seen, Traffic, bool, Step | None] | None = None
    """The last look, what it says of this server, whether all gateways are in it, and what followed."""
    shadowed: int | None = None
    """What it would have by now, in the mode `shadow`."""
    status: Status | None = None
    said_at: float = -math.inf
    """When its status was written last, by the monotonic clock."""
    told_status: Status | None = None
    """As the API server has it, whoever wrote it."""
    load: str | None = None
    """The load that was said last, at `load_at`."""
    load_at: float = -math.inf
    marks: Marks | None = None
    """What its objects should be; None until it is asked for."""
    applied: str | None = None
    """The digest of the template that this process has applied last, `template_generation` what it gave."""
    template_generation: int = 0
    verified: int | None = None
    """The generation of the Deployment that is known to be as it should."""
    refused: str | None = None
    """What the API server said to the last change that it refused."""
    retry_at: float = 0.0
    """Before that (by the monotonic clock), objects that were refused aren't applied again."""
    busy: bool = False

    def forget(self) -> None:
        """All that another leader may have made untrue, and the history, in which there is a gap."""
        self.state = self.target = self.told = self.telling = self.decision = self.view_from = self.seen = (
            None
        )
        self.applied = self.verified = self.refused = self.shadowed = None
        self.choosing = False
        self.retry_at = 0.0
        self.stepped_at = -math.inf
        self.drains, self.requested = {}, ()
        self.template_generation = 0
        self.status, self.load = self.told_status, None
        self.changes.clear()
        self.changes.extend(self.status.last_decisions if self.status is not None else ())

    def reference(self) -> Object:
        """What its Events are about."""
        return {
            "apiVersion": MODEL_SERVERS.api_version,
            "kind": MODEL_SERVERS.kind,
            "metadata": self.object["metadata"],
        }

    @property
    def generation(self) -> int:
        return int(self.object["metadata"].get("generation", 0))

    @property
    def key(self) -> Key:
        assert self.spec is not None  # noqa: S101 - only servers that can be read are asked for
        place = self.spec.placement
        return Key(self.spec.fleet_of(self.name), place.tier, place.region)

    def capacity(self) -> Capacity:
        """What a replica can take: stated, else measured; where neither is known yet, what is in them counts alone."""
        assert self.spec is not None  # noqa: S101
        stated = self.spec.capacity
        rps = stated.requests_per_second or self.fit.rps(self.cores()) or math.inf
        return Capacity(
            rps=rps,
            concurrency=stated.concurrency,
            start_s=p95_start_s(self.starts, float(stated.start_seconds)),
        )

    def cores(self) -> float:
        assert self.spec is not None  # noqa: S101
        asks = self.spec.resources
        limit = float(quantities.parse(asks.cpu_limit or podspec.usual_cpu_limit(asks.cpu)))
        return min(limit, MOST_CORES)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for a server now: from `before` to `target` replicas. `replicas`: what its Deployment is to be
    told, None for nothing. `passed_over`: the number that somebody has set just now where the traffic decides."""

    decision: Decision
    before: int
    target: int
    replicas: int | None = None
    drain: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    held: str | None = None
    passed_over: int | None = None

    @property
    def acts(self) -> bool:
        return self.replicas is not None or bool(self.drain or self.restore)


def step(
    server: Server,
    traffic: Traffic,
    deployment: Deployment,
    pods: list[Pod],
    in_flight: Mapping[str, float],
    now: float,
    *,
    whole: bool,
) -> Step:
    """The decision for `server` at `now` and what follows from it; the server remembers.

    `whole`: the signals are of all gateways. Else, and before its history is known, nothing goes down.
    """
    spec = server.spec
    assert spec is not None  # noqa: S101
    _measure(server, traffic, pods, now)
    if deployment.replicas == server.telling:
        server.told, server.telling = server.telling, None
    if server.target is None or server.told != deployment.replicas:
        # Just begun, or somebody else has set the number: from what there is.
        server.target, server.told = _kept(deployment, pods), deployment.replicas
    _note_drains(server, pods, now)
    capacity, ready = server.capacity(), sum(one.ready for one in pods)
    unsure = _unsure(server, traffic, capacity, ready, whole=whole)
    scaling = spec.scaling if unsure is None else _up_only(spec.scaling)
    mode = spec.scaling.mode
    seen = Observation(
        # Who would have acted on it decides from the number that there would be.
        current=server.shadowed if mode is Mode.SHADOW and server.shadowed is not None else server.target,
        ready=ready,
        rate=traffic.rate,
        in_service=traffic.in_service,
        queued=traffic.queued,
        latest_rate=traffic.latest_rate,
        partial=not whole,
    )
    state = server.state or policy.begin(now, key=server.name)
    decision, server.state = policy.decide(scaling, capacity, seen, state, now)
    if unsure is not None and not spec.scaling.pause.down:
        decision = _explained(decision, unsure)
    server.decision = decision
    server.shadowed = decision.wanted if mode is Mode.SHADOW else None
    requested = _requested(server, spec)
    target = decision.wanted if mode is Mode.ACTIVE else server.target if requested is None else requested
    held = None
    if target < min(server.target, deployment.replicas) and deployment.rolling:
        held = "a rollout is under way: nothing is taken away before it is through"
        target = min(server.target, deployment.replicas)
    else:
        server.requested = (spec.replicas,)
    made = _carry_out(server, decision, target, deployment, pods, in_flight, held)
    server.target = target
    if mode is Mode.ACTIVE and held is None and requested not in (None, target):
        return replace(made, passed_over=requested)
    return made


def _requested(server: Server, spec: Spec) -> int | None:
    """The number that somebody has set since it was followed or passed over; None where nobody has.

    A mode that is switched to changes no number: what a person set long ago may be far from what the traffic needs.
    """
    known = server.told_status
    before = server.requested or (known.requested_replicas if known is not None else spec.replicas,)
    return spec.replicas if (spec.replicas,) != before else None


def _note_drains(server: Server, pods: list[Pod], now: float) -> None:
    """The time that marks carry is another's clock, and may be set: what counts is how long they have been seen."""
    passed = now - server.stepped_at if 0 <= now - server.stepped_at <= TICKS_APART_S else 0.0
    server.stepped_at = now
    server.drains = {
        one.uid: server.drains[one.uid] + passed if one.uid in server.drains else 0.0
        for one in pods
        if one.draining
    }


def _carry_out(
    server: Server,
    decision: Decision,
    target: int,
    deployment: Deployment,
    pods: list[Pod],
    in_flight: Mapping[str, float],
    held: str | None,
) -> Step:
    deployed = deployment.replicas
    before = server.target if server.target is not None else deployed
    if held is not None:
        return Step(decision, before, target, target if target > deployed else None, held=held)
    draining = any(one.draining for one in pods)
    if target >= deployed and not draining:
        server.choosing = False
        return Step(decision, before, target, target if target != deployed else None)
    busy = sum(one.is_sent_requests for one in pods)
    spare = len(pods) - target
    choose = spare > len(pods) - busy and target < deployed
    if choose and not server.choosing:
        server.choosing = True  # which ones is decided at the next tick, by what is in them
        return Step(decision, before, target)
    plan = victims.plan(
        [
            victims.Replica(
                one.name,
                one.zone,
                one.ready,
                one.created,
                in_flight.get(one.name),
                server.drains.get(one.uid),
            )
            for one in pods
        ],
        target,
        deadline_s=DRAIN_DEADLINE_S,
        settle_s=SETTLE_S,
    )
    if deployment.rolling:
        # Its controller takes old replicas away, those that are drained first; those that are new are to stay.
        return Step(decision, before, target, target if target > deployed else None, restore=plan.restore)
    server.choosing = bool(plan.drain) or (draining and target < deployed)
    replicas = max(target, min(deployed, len(pods) - len(plan.remove)))
    return Step(
        decision,
        before,
        target,
        replicas if replicas != deployed else None,
        plan.drain,
        plan.restore,
        plan.remove if replicas < deployed else (),
    )


def _kept(deployment: Deployment, pods: list[Pod]) -> int:
    """How many replicas are to stay: not those on their way out, of which the Deployment may have been told already."""
    leaving = sum(one.draining for one in pods) - max(0, len(pods) - deployment.replicas)
    return min(MOST_REPLICAS, max(0, deployment.replicas - max(0, leaving)))


def _unsure(server: Server, traffic: Traffic, capacity: Capacity, ready: int, *, whole: bool) -> str | None:
    """Why nothing may go down, whatever the signals ask for."""
    if not whole:
        return policy.PARTIAL
    if server.view_from is not None and math.isinf(server.view_from):
        return "its history isn't known yet"
    if math.isinf(capacity.rps) and (server.measured < ready or (traffic.rate or 0.0) > LEAST_RPS * ready):
        return "what a replica can take isn't known"
    return None


def _explained(decision: Decision, why: str) -> Decision:
    moves = (
        replace(move, constraint="view", why=why) if move.constraint == "pause" else move
        for move in decision.moves
    )
    return replace(decision, moves=tuple(moves))


def _up_only(scaling: Scaling) -> Scaling:
    return scaling.model_copy(update={"pause": scaling.pause.model_copy(update={"down": True})})


def _measure(server: Server, traffic: Traffic, pods: list[Pod], now: float) -> None:
    """What a replica takes for a request, and how long those took that have just begun to serve."""
    if traffic.measured is not None:
        server.measured = traffic.measured
    if traffic.measured and traffic.cpu is not None and traffic.answered is not None and _settled(pods, now):
        share = traffic.measured
        server.fit = server.fit.add(traffic.answered / share, traffic.cpu / share, now)
    assert server.spec is not None  # noqa: S101
    longest_s = workload.startup_s(server.spec) + PULL_S
    for one in pods:
        if one.ready and one.uid not in server.counted:
            server.counted.add(one.uid)
            if one.ready_at is not None and not one.restarts and one.ready_at - one.created <= longest_s:
                server.starts.append(one.ready_at - one.created)
    if len(server.counted) > 2 * len(pods) + STARTS_KEPT:
        server.counted.intersection_update(one.uid for one in pods)


def _settled(pods: list[Pod], now: float) -> bool:
    """All serve, and have done so for long enough that what their start took isn't in what is measured."""
    return all(one.ready_at is not None and now - one.ready_at > SETTLED_S for one in pods)
