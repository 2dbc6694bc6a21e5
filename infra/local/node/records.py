"""What the agent remembers of a pod between two looks at it: its address, its containers' runs, its conditions.

A record is kept beside the pod's manifest on disk (see `checkpoint`), so that an agent that comes back goes on where
it was: same address, same restart counts, same readiness. Attributes that mean nothing after a restart are not kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.local.node.podspec import FINISHED, ContainerKind, all_containers
from infra.local.runtime.spec import ExitStatus
from switchboard.kube import Object


class Problem(BaseModel):
    """Why a container doesn't run, in the kubelet's words."""

    model_config = ConfigDict(frozen=True)

    reason: str
    message: str = ""


class Ended(BaseModel):
    """One run of a container that is over."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    exit_code: int
    signal: int | None = None
    reason: str
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime

    @classmethod
    def of(cls, run_id: str, exit: ExitStatus, message: str = "") -> Ended:
        return cls(
            run_id=run_id,
            exit_code=exit.exit_code,
            signal=exit.signal,
            reason="OOMKilled" if exit.oom_killed else ("Completed" if exit.exit_code == 0 else "Error"),
            message=message or exit.reason,
            started_at=exit.started_at,
            finished_at=exit.finished_at,
        )


class Container(BaseModel):
    """One container of a pod: its current run (number `attempt`, counted from 0) and the one before.

    `waiting`: this attempt never began. `running`: it runs. `exited`: it is over; a start would be the next attempt.
    """

    name: str
    kind: ContainerKind
    attempt: int = 0
    phase: Literal["waiting", "running", "exited"] = "waiting"
    run_id: str | None = None
    image: str | None = None
    """What the current run was started from."""
    started_at: datetime | None = None
    ended: Ended | None = None
    previous: Ended | None = None
    started: bool = False
    ready: bool = False
    problem: Problem | None = None
    delay_s: float = 0.0
    """The back-off that the next failure doubles."""

    retry_at: float = Field(default=0.0, exclude=True)
    """Not started again before this (monotonic clock)."""
    busy: bool = Field(default=False, exclude=True)
    """A start or a stop is under way."""
    stop_because: Problem | None = Field(default=None, exclude=True)
    """Set when it has to be stopped although its pod goes on (a failed liveness probe)."""
    warned_ports: set[int] = Field(default_factory=set, exclude=True)

    @property
    def succeeded(self) -> bool:
        return self.phase == "exited" and self.ended is not None and self.ended.exit_code == 0


class Condition(BaseModel):
    """When a condition of the pod last changed."""

    status: Literal["True", "False"]
    since: datetime


class Moment(BaseModel):
    """A time by a clock that nobody puts right: seconds since that boot of the machine."""

    model_config = ConfigDict(frozen=True)

    boot: str
    at_s: float


class PodRecord(BaseModel):
    """What the agent remembers of one pod."""

    ip: str | None = None
    started_at: datetime
    begun: Moment | None = None
    """The same as `started_at`, for its deadline."""
    containers: dict[str, Container]
    initialized: bool = False
    """The init containers are done (for this sandbox)."""
    sandbox: str | None = None
    """The machine's boot in which its volumes in memory were made; None before that and after a stop of the node."""
    outcome: Literal["Succeeded", "Failed"] | None = None
    """Set when the pod is over: nothing of it runs and nothing will."""
    failure: Problem | None = None
    """Why the agent ended it (the deadline), for status.reason and status.message."""
    conditions: dict[str, Condition] = Field(default_factory=dict)

    @classmethod
    def new(cls, pod: Object, now: datetime) -> PodRecord:
        """The record of a pod that this agent never saw."""
        record = cls(
            started_at=now,
            containers={c["name"]: Container(name=c["name"], kind=kind) for kind, c in all_containers(pod)},
        )
        status = pod.get("status") or {}
        if status.get("phase") in FINISHED:
            record.outcome = status["phase"]  # over before this agent knew it: never run again
        if start := status.get("startTime"):
            record.started_at = parse_time(start)
        for known in status.get("conditions") or []:
            if known["status"] in ("True", "False") and known.get("lastTransitionTime"):
                since = parse_time(known["lastTransitionTime"])
                record.conditions[known["type"]] = Condition(status=known["status"], since=since)
        return record

    def active_s(self, clock: Moment, now: datetime) -> float:
        """How long the pod has been on the node.

        By the clock of this boot since it was first asked in it. What was before that, in another boot or before there
        was a record, only the machine's clock tells.
        """
        if self.begun is None or self.begun.boot != clock.boot:
            before_s = max(0.0, (now - self.started_at).total_seconds())
            self.begun = Moment(boot=clock.boot, at_s=clock.at_s - before_s)
        return clock.at_s - self.begun.at_s

    def forget_sandbox(self) -> None:
        """The pod's processes and memory volumes are gone (machine restart, node stopped): init runs again."""
        self.sandbox = None
        self.initialized = False
        for container in self.containers.values():
            container.started = container.ready = False
            if container.kind == "init" and container.phase == "exited":
                container.previous, container.ended = container.ended, None
                container.phase = "waiting"
                container.attempt += 1


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def show_time(when: datetime) -> str:
    """As the API shows times: UTC, whole seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
