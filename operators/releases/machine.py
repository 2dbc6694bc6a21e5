"""What comes next in a release: pure functions of what was asked for, what was said last and what is known, with the
time passed in.

    Pending > Preparing > Shadow > Canary > Promoting > Warm > Settling > Promoted
                  |          |        |         |        |
                  +----------+--------+---------+--------+--> RolledBack, Inconclusive

All that a release remembers is its status, so whoever takes over goes on from there. Traffic goes back before anybody
else is told; it goes to the candidate for good after the registry was told, so that what starts anew starts with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operators.canary import plan
from operators.canary.values import Judgement, Standing, Verdict, by_kind
from operators.releases.comparing import metrics_of
from operators.releases.values import Facts, Running, Told, Wanted
from switchboard.api.model_release import Compared, Kind, MetricName, Order, Phase, Spec, Status, Step, Turn

DRAIN_S = 10.0
"""From the last request that is sent to an arm until it may go: longer than any gateway waits for an answer."""
TROUBLE_S = 20.0
"""A candidate whose replicas fail for so long doesn't start, or has stopped to serve."""
MOST_TURNS = 64
USUAL_STEPS = (10, 25, 50)
"""Where nothing is known of the traffic."""
LOOKS_S = 60.0
"""Requests/s are those of some seconds. A release that could see nothing by them looks so long whether it stays so."""
LOOKS = f"too little may be seen of the traffic to judge by: it is looked at for {LOOKS_S:.0f} s"
"""One sentence, whatever is missing, so that there is one clock."""
SILENT = "Prometheus doesn't say what is known of the champion"
_SERVED = (Phase.PROMOTING, Phase.CANARY, Phase.SHADOW)
"""Phases in which harm that is shown ends it."""


@dataclass(frozen=True, slots=True)
class Next:
    """A phase to go to, and why."""

    phase: Phase
    sentence: str
    changes: dict[str, Any]


def advance(spec: Spec, status: Status, facts: Facts, now: float) -> Status:
    """The status at `now` (seconds since the epoch); where nothing is new it is the same object."""
    found = _next(spec, status, facts, now)
    judged = _judged(status, facts.judgement)
    if found is None:
        return status if judged == status else judged
    at = datetime.fromtimestamp(now, UTC)
    changes = {"phase": found.phase, "phase_at": at, "sentence": found.sentence[:1024], **found.changes}
    made = judged.model_copy(update=changes)
    turn = Turn(at=at, phase=made.phase, weight=made.weight, sentence=made.sentence)
    return made.model_copy(update={"turns": (*made.turns, turn)[-MOST_TURNS:]})


def wanted(spec: Spec, status: Status, facts: Facts, now: float) -> Wanted:
    """What is to be there for a release with this status."""
    phase, full = status.phase, max(1, facts.champion.wanted)
    old, new = status.champion_version, spec.version
    if phase in (Phase.PENDING, Phase.REFUSED):
        return Wanted()
    if phase in (Phase.PREPARING, Phase.SHADOW):
        first = status.steps[0].weight if status.steps else 100
        if not spec.shadow.mirrors:
            return Wanted(size(full, first), None, old)
        # What is mirrored is load as well; and who is compared is of one size.
        return Wanted(size(full, max(first, spec.shadow.percent)), size(full, spec.shadow.percent), old)
    if phase is Phase.CANARY:
        ahead = status.steps[min(status.step, len(status.steps) - 1)].weight
        return Wanted(size(full, max(ahead, status.weight)), None, old)
    if phase in (Phase.PROMOTING, Phase.WARM):
        return Wanted(full, None, old, Told.PROMOTED)
    if phase is Phase.SETTLING:
        return Wanted(full, None, new, Told.PROMOTED)
    if phase is Phase.PROMOTED:
        return Wanted(None, None, new, Told.PROMOTED)
    tell = Told.RETURNED if was_promoted(status) else Told.ABORTED
    return Wanted(1 if _since(status, now) < DRAIN_S else None, None, old, tell)


def size(full: int, weight: int) -> int:
    """How many replicas take `weight` percent of what `full` take."""
    return max(1, math.ceil(full * weight / 100))


def was_promoted(status: Status) -> bool:
    """Whether the registry may have been told that the candidate is the champion."""
    return any(turn.phase in (Phase.PROMOTING, Phase.WARM) for turn in status.turns)


def chosen(spec: Spec, facts: Facts) -> tuple[Step, ...]:
    """The steps of a release: those that it states, else those that the error budget allows."""
    if spec.steps:
        return spec.steps
    if facts.traffic is None or facts.traffic.rps <= 0:
        return tuple(Step(weight=weight) for weight in USUAL_STEPS)
    allowed = plan.allowed_failures(facts.traffic.rps, part=spec.error_budget_percent / 100)
    return tuple(
        Step(weight=max(1, round(one.weight * 100)), hold_seconds=round(one.hold_s))
        for one in plan.weigh(facts.traffic, allowed)
    )


def sees_nothing(spec: Spec, facts: Facts, steps: Sequence[Step]) -> str | None:
    """Why the release would come to nothing at the traffic of now; None where it wouldn't, and where it isn't known.

    Nor is it asked where a person has decided: promoted by hand, a release waits for no verdict.
    """
    if facts.traffic is None or spec.order is Order.PROMOTE:
        return None
    planned = [plan.Step(one.weight / 100, one.hold_seconds) for one in steps]
    shadow = spec.shadow
    mirrored = plan.Mirrored(shadow.percent / 100, shadow.seconds) if shadow.mirrors else plan.NOT_MIRRORED
    why = plan.blind(facts.traffic, planned, spec.within_seconds, metrics_of(spec), mirrored)
    if why is None:
        return None
    by_hand = f"switchboard canary start {spec.version} --server {spec.server} --promote"
    return (
        f"too little would be seen at {facts.traffic.rps:.3g} requests/s: {why}; "
        f"or a person promotes it without a verdict ({by_hand})"
    )


def without_data(spec: Spec, facts: Facts) -> str | None:
    """Why the release couldn't be judged: there is no data of the champion. None where there is, or nobody has said."""
    if not facts.unseen or spec.order is Order.PROMOTE:
        return None
    judged = ", ".join(one.what for one in metrics_of(spec) if one.name in facts.unseen)
    return f"Prometheus has no data of {facts.service} for {judged}: nothing could be judged by it"


def _next(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    if status.phase.over:
        return None
    if (ended := _ended(spec, status, facts)) is not None:
        return ended
    steps = {
        Phase.PENDING: _pending,
        Phase.PREPARING: _preparing,
        Phase.SHADOW: _shadow,
        Phase.CANARY: _canary,
        Phase.PROMOTING: _promoting,
        Phase.WARM: _warm,
        Phase.SETTLING: _settling,
    }
    return steps[status.phase](spec, status, facts, now)


def _ended(spec: Spec, status: Status, facts: Facts) -> Next | None:
    """What ends a release whatever its phase: harm that is shown, an order, its deletion."""
    if status.phase is Phase.SETTLING:
        return None  # the old version is going already: what goes on is what brings everybody to one version
    if status.phase is Phase.PENDING:
        if facts.deleted or spec.order in (Order.ABORT, Order.ROLLBACK):
            return _back(Phase.ROLLED_BACK, "it was called off before it began")
        return None
    if status.phase in _SERVED and facts.judgement is not None and facts.judgement.verdict is Verdict.ABORT:
        return _back(Phase.ROLLED_BACK, facts.judgement.sentence)
    if status.phase in _SERVED and facts.failing_s >= TROUBLE_S:
        trouble = facts.candidate.trouble if facts.candidate is not None else None
        return _back(
            Phase.ROLLED_BACK,
            f"version {spec.version} hasn't served for {facts.failing_s:.0f} s, in which the champion did: "
            f"{trouble or 'none of its replicas is ready'}",
        )
    if facts.problem is not None and status.phase in (Phase.PREPARING, Phase.SHADOW, Phase.CANARY):
        return _back(Phase.ROLLED_BACK, facts.problem)
    if spec.order in (Order.ABORT, Order.ROLLBACK):
        said = "aborted" if spec.order is Order.ABORT else "rolled back"
        return _back(Phase.ROLLED_BACK, f"{said} by hand{_because(spec)}")
    if facts.deleted:
        if status.phase is Phase.WARM:
            # That it is over is what is asked for, not another version for everybody.
            return Next(
                Phase.SETTLING, "the release was deleted: the old version isn't kept warm any longer", {}
            )
        return _back(Phase.ROLLED_BACK, "the release was deleted")
    return None


def _because(spec: Spec) -> str:
    return f": {spec.reason}" if spec.reason else ""


def _back(phase: Phase, sentence: str) -> Next:
    return Next(phase, sentence, {"weight": 0, "mirror": 0})


def _pending(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    if facts.problem is not None:
        return Next(Phase.REFUSED, facts.problem, {})
    if facts.waits_for is not None:
        return _say(status, f"it waits for {facts.waits_for}: there is one release of a server at a time")
    looked_s = _since(status, now) if status.sentence == LOOKS else None
    if facts.checked is None:
        if looked_s is not None:
            return None  # who has taken over asks the registry anew, and looks on as long
        return _say(status, "the registry doesn't say yet what the version is")
    if facts.checked.refusal is not None:
        return Next(Phase.REFUSED, facts.checked.refusal, {})
    if facts.held is not None:
        return _say(status, facts.held)
    steps = chosen(spec, facts)
    by_hand = spec.order is Order.PROMOTE
    if (why := sees_nothing(spec, facts, steps) or without_data(spec, facts)) is not None:
        if looked_s is None:
            return _say(status, LOOKS)
        return None if looked_s < LOOKS_S else Next(Phase.REFUSED, why, {})
    if facts.unseen is None and not by_hand:
        if status.sentence not in (LOOKS, SILENT):
            return _say(status, SILENT)
        waited_s = _since(status, now)
        late = waited_s >= spec.within_seconds
        return Next(Phase.REFUSED, f"{SILENT}, for {waited_s:.0f} s", {}) if late else None
    unknown = facts.traffic is None and not by_hand
    if unknown and looked_s is not None and looked_s < 2 * LOOKS_S:
        return None
    return Next(
        Phase.PREPARING,
        f"version {spec.version} is started beside version {facts.checked.champion}",
        {
            "service": facts.service,
            "model": facts.checked.model,
            "champion_version": facts.checked.champion,
            "steps": steps,
            "progress": f"0/{len(steps)}",
            "started_at": datetime.fromtimestamp(now, UTC),
        },
    )


def _say(status: Status, sentence: str) -> Next | None:
    """The same phase with another reason; nothing where it was said."""
    return None if status.sentence == sentence else Next(status.phase, sentence, {})


def _preparing(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    candidate, floor = facts.candidate, wanted(spec, status, facts, now)
    trouble = candidate.trouble if candidate is not None else None
    if trouble is not None and _since(status, now) >= TROUBLE_S:
        return _back(Phase.ROLLED_BACK, f"version {spec.version} doesn't start: {trouble}")
    if _since(status, now) >= 2 * facts.start_s:
        return _back(
            Phase.ROLLED_BACK,
            f"version {spec.version} isn't ready after {_since(status, now):.0f} s, in which two could have started",
        )
    if not (facts.champion.current and facts.champion.ready >= facts.champion.wanted):
        return None
    if not _serves(candidate, floor.candidate) or not _serves(facts.baseline, floor.baseline):
        return None
    if floor.baseline is not None:
        said = f"{spec.shadow.percent} % of the requests are sent to version {spec.version} as well"
        at = datetime.fromtimestamp(now, UTC)
        return Next(Phase.SHADOW, said, {"mirror": spec.shadow.percent, "compared_from": at})
    return _to_step(status, 1, now)


def _serves(running: Running | None, least: int | None) -> bool:
    """Whether at least so many replicas serve, if any are wanted."""
    return least is None or (running is not None and running.current and running.ready >= least)


def _to_step(status: Status, step: int, now: float) -> Next:
    one = status.steps[step - 1]
    changes: dict[str, Any] = {
        "mirror": 0,
        "weight": one.weight,
        "step": step,
        "progress": f"{step}/{len(status.steps)}",
    }
    if status.compared_from is None:
        changes["compared_from"] = datetime.fromtimestamp(now, UTC)
    return Next(Phase.CANARY, f"step {step} of {len(status.steps)}: {one.weight} % of the requests", changes)


def _shadow(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    if spec.order is Order.PROMOTE:
        return _promote(spec, f"promoted by hand{_because(spec)}")
    seen = _since(status, now) >= spec.shadow.seconds and _answers_known(facts.judgement)
    if spec.paused or facts.held is not None or not seen:
        return _late(spec, status, facts, now)
    return _to_step(status, 1, now)


def _answers_known(judgement: Judgement | None) -> bool:
    """Whether it is known if the candidate answers as the champion does: later nobody answers what another has."""
    found = [] if judgement is None else judgement.findings
    open_ = (Standing.OPEN, Standing.UNKNOWN)
    return any(one.metric.name == MetricName.DISAGREED and one.standing not in open_ for one in found)


def _canary(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    if spec.order is Order.PROMOTE:
        return _promote(spec, f"promoted by hand{_because(spec)}")
    if not spec.paused and facts.held is None:
        last = status.step == len(status.steps)
        if last and facts.judgement is not None and facts.judgement.verdict is Verdict.PROMOTE:
            # Not before: each step is also a load that the candidate hasn't had yet.
            return _promote(spec, facts.judgement.sentence)
        ready = _serves(facts.candidate, wanted(spec, status, facts, now).candidate)
        held = _since(status, now) >= status.steps[status.step - 1].hold_seconds
        if held and ready and not last:
            return _to_step(status, status.step + 1, now)
    return _late(spec, status, facts, now)


def _promote(spec: Spec, sentence: str) -> Next:
    return Next(Phase.PROMOTING, sentence, {"mirror": 0})


def _late(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    """Without a verdict in time it goes back, and is neither good nor bad."""
    began = status.started_at.timestamp() if status.started_at is not None else now
    if now - began < spec.within_seconds:
        return None
    judged = facts.judgement
    open_ = judged.sentence if judged is not None else "nothing was compared"
    return _back(Phase.INCONCLUSIVE, f"no verdict within {spec.within_seconds} s: {open_}")


def _promoting(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    full = wanted(spec, status, facts, now).candidate
    if not _serves(facts.candidate, full) or facts.told is not Told.PROMOTED:
        return None
    return Next(
        Phase.WARM,
        f"all requests go to version {spec.version}; version {status.champion_version} is kept warm for "
        f"{spec.keep_warm_seconds} s",
        {"weight": 100, "step": len(status.steps), "progress": f"{len(status.steps)}/{len(status.steps)}"},
    )


def _warm(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    if _since(status, now) < spec.keep_warm_seconds:
        return None
    return Next(Phase.SETTLING, f"{facts.service} itself gets version {spec.version}", {})


def _settling(spec: Spec, status: Status, facts: Facts, now: float) -> Next | None:
    """First the service's own replicas get the version, then the requests, then the arm goes."""
    if status.weight > 0:
        if not facts.settled:
            return None
        return Next(Phase.SETTLING, f"requests go to {facts.service}'s own replicas", {"weight": 0})
    if _since(status, now) < DRAIN_S:
        return None
    return Next(Phase.PROMOTED, f"version {spec.version} is served to everybody", {})


def _since(status: Status, now: float) -> float:
    """Seconds that it has been in its phase, or at its step; 0 where the clock was set back."""
    return max(0.0, now - status.phase_at.timestamp()) if status.phase_at is not None else 0.0


def _judged(status: Status, judgement: Judgement | None) -> Status:
    """With what the judge says by now, in the phases in which something is compared."""
    if judgement is None or status.phase not in _SERVED:
        return status
    compared = compared_of(judgement)
    changes: dict[str, Any] = {
        "verdict": judgement.verdict.value,
        "compared_seconds": round(judgement.seconds, 1),
        "compared": compared,
    }
    if all(getattr(status, key) == value for key, value in changes.items()):
        return status
    return status.model_copy(update=changes)


def compared_of(judgement: Judgement) -> Sequence[Compared]:
    """What both arms did, by metric."""
    return tuple(
        Compared(
            name=MetricName(one.metric.name),
            standing=one.standing.value,
            candidate_events=round(one.candidate.events, 3),
            candidate_of=round(one.candidate.of, 3),
            champion_events=round(one.champion.events, 3),
            champion_of=round(one.champion.of, 3),
            kinds=_kinds(judgement, one.metric.name),
        )
        for one in judgement.findings
    )


def _kinds(judgement: Judgement, metric: str) -> tuple[Kind, ...]:
    return tuple(
        Kind(
            kind=kind,
            candidate_events=mine.events,
            candidate_of=mine.of,
            champion_events=theirs.events,
            champion_of=theirs.of,
        )
        for kind, (mine, theirs) in sorted(by_kind(judgement.kinds, metric).items())
    )
