"""What to do next for a pod: the whole decision, a function of what is known and the time.

    not prepared      → prepare it (address, volumes)
    init containers   → one after the other; a sidecar counts as done once it has started, and is kept running
    main containers   → in their order, each when the one before has been started and its postStart hook is done;
                        one that ended is started again as the restart policy says, after its back-off
    all over          → stop the sidecars, last one first, then finish
    has to end        → stop main containers together, then the sidecars, last one first, then finish

`decide` names the steps that can be taken now and when to look again; the pod's worker takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.local.node.podspec import should_restart
from infra.local.node.records import Container, Problem


@dataclass(frozen=True)
class BackOff:
    """Waits between the restarts of a container that ends again and again.

    The first restart is at once, the next after `first_s`, then twice as long each time up to `most_s`; a run of
    twice `most_s` or longer starts anew. The kubelet has 10 s and 5 min, to spare an image registry and a shared
    node; here a pull costs nothing, a node has few pods, and waiting is what a person at a laptop sees.
    """

    first_s: float = 1.0
    most_s: float = 60.0

    def next(self, delay_s: float, ran_s: float) -> tuple[float, float]:
        """How long to wait now, after a run of `ran_s`, and the `delay_s` to come with next time (0 at first)."""
        if ran_s >= 2 * self.most_s:
            return 0.0, self.first_s
        return delay_s, min(self.most_s, max(self.first_s, 2 * delay_s))


@dataclass(frozen=True)
class Prepare:
    """Give the pod its address and its volumes."""


@dataclass(frozen=True)
class Start:
    """Start a container."""

    name: str


@dataclass(frozen=True)
class Stop:
    """Stop a running container, gracefully."""

    name: str
    because: Problem


@dataclass(frozen=True)
class Finish:
    """Nothing of the pod runs, and nothing will: `failed` says how it ended."""

    failed: bool


Action = Prepare | Start | Stop | Finish

POD_ENDS = Problem(reason="Killing", message="the pod ends")


@dataclass(frozen=True)
class Situation:
    """What `decide` looks at; `containers` in the order of the manifest, init containers first."""

    policy: str
    containers: Sequence[Container]
    prepared: bool
    initialized: bool = False
    prepare_at: float = 0.0
    refused: bool = False
    ending: bool = False


@dataclass
class Decision:
    """Steps to take now, and the time at which to look again if nothing happens before."""

    actions: list[Action] = field(default_factory=list)
    wake_at: float | None = None
    initialized: bool = False

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(at, self.wake_at)


def decide(now: float, s: Situation) -> Decision:
    """The next steps of a pod."""
    decision = Decision(initialized=s.initialized)
    if s.ending:
        _wind_down(s, decision, failed=not _all_succeeded(s))
        return decision
    if s.refused:
        return decision
    if not s.prepared:
        if now >= s.prepare_at:
            decision.actions.append(Prepare())
        else:
            decision.wake(s.prepare_at)
        return decision
    for container in s.containers:
        if container.phase == "running" and container.stop_because and not container.busy:
            decision.actions.append(Stop(container.name, container.stop_because))
    if not s.initialized:
        outcome = _initialize(now, s, decision)
        if outcome == "failed":
            _wind_down(s, decision, failed=True)
        if outcome != "done":
            return decision
        decision.initialized = True
    mains = [c for c in s.containers if c.kind == "main"]
    if all(c.phase == "exited" and not _again(s.policy, c) for c in mains):
        _wind_down(s, decision, failed=not _all_succeeded(s))
        return decision
    for container in s.containers:
        if container.kind == "sidecar":
            _keep_running(now, s.policy, container, decision)
    for container in mains:
        if (container.busy and container.stop_because is None) or _keep_running(
            now, s.policy, container, decision
        ):
            break  # the next ones have their turn when this one is started, or can't be
    return decision


def _initialize(now: float, s: Situation, decision: Decision) -> str:
    inits = [c for c in s.containers if c.kind == "init"]
    if any(c.phase == "exited" and not c.succeeded and not _again(s.policy, c) for c in inits):
        return "failed"
    for container in s.containers:
        if container.kind == "main":
            break
        if container.kind == "sidecar":
            _keep_running(now, s.policy, container, decision)
            if not (container.phase == "running" and container.started):
                return "wait"
        elif not container.succeeded:
            _keep_running(now, s.policy, container, decision)
            return "wait"
    return "done"


def _again(policy: str, container: Container) -> bool:
    return container.ended is None or should_restart(policy, container.kind, container.ended.exit_code)


def _keep_running(now: float, policy: str, container: Container, decision: Decision) -> bool:
    """Start it where it should run and doesn't; True where it is to be started now."""
    if container.busy or container.phase == "running":
        return False
    if container.phase == "exited" and not _again(policy, container):
        return False
    if now < container.retry_at:
        decision.wake(container.retry_at)
        return False
    decision.actions.append(Start(container.name))
    return True


def _all_succeeded(s: Situation) -> bool:
    return all(c.succeeded for c in s.containers if c.kind == "main")


def _wind_down(s: Situation, decision: Decision, *, failed: bool) -> None:
    """Main (and init) containers end together, then the sidecars one by one, the last one first."""
    others = [c for c in s.containers if c.kind != "sidecar" and (c.phase == "running" or c.busy)]
    sidecars = [c for c in s.containers if c.kind == "sidecar" and (c.phase == "running" or c.busy)]
    for container in others or sidecars[-1:]:
        if not container.busy:
            decision.actions.append(Stop(container.name, container.stop_because or POD_ENDS))
    if not others and not sidecars:
        decision.actions.append(Finish(failed))
