"""A release on its way, for tests of what follows from what: everything is known and good unless a test says else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from operators.canary.values import METRICS, Count, Finding, Judgement, Standing, Verdict
from operators.releases import machine
from operators.releases.values import Checked, Facts, Running, Told, Wanted
from switchboard.api.model_release import Order, Phase, Shadow, Spec, Status, Step

NOW = 1_790_000_000.0
GOOD = Facts(
    service="chat",
    champion=Running(10, 10, current=True),
    candidate=Running(10, 10, current=True),
    baseline=Running(10, 10, current=True),
    checked=Checked("chat-intent", 7),
    told=Told.PROMOTED,
    settled=True,
)


DISAGREED = next(one for one in METRICS if one.name == "disagreed")


def verdict(which: Verdict, answers: Standing = Standing.SAFE) -> Judgement:
    finding = Finding(DISAGREED, answers, Count(0, 500), Count(0, 500), 0.0, 0.0)
    return Judgement(which, f"the judge says {which}", (finding,), 60.0)


def spec(**changes: Any) -> Spec:
    steps = (Step(weight=10), Step(weight=50))
    return Spec(**{"server": "chat", "version": 8, "steps": steps, "shadow": Shadow(seconds=30), **changes})


class Way:
    """A release as it goes on; `after` lets time pass."""

    def __init__(self, **changes: Any) -> None:
        self.spec, self.facts, self.now, self.status = spec(**changes), GOOD, NOW, Status()

    def after(self, seconds: float = 0.0, /, order: Order | None = None, **facts: Any) -> Phase:
        self.now += seconds
        self.facts = replace(self.facts, **facts)
        if order is not None:
            self.spec = self.spec.model_copy(update={"order": order})
        self.status = machine.advance(self.spec, self.status, self.facts, self.now)
        return self.status.phase

    def to(self, phase: Phase) -> Way:
        """By the usual way: everything is ready and good."""
        for _ in range(40):
            if self.status.phase is phase:
                return self
            good = self.status.phase is Phase.CANARY
            self.after(60.0, judgement=verdict(Verdict.PROMOTE if good else Verdict.CONTINUE))
        raise AssertionError(f"never {phase}: {self.status}")

    @property
    def wanted(self) -> Wanted:
        return machine.wanted(self.spec, self.status, self.facts, self.now)
