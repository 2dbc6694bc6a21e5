"""How many replicas: one pure function, `decide`, read from top to bottom.

What arrives, what waits and what is at work each ask for a number of replicas; the largest counts. The server's own
history may raise it. Then constraints: a band and a window against turning, pace, schedules, bounds, pauses. Nothing
known never means less: without signals the number stays, or goes up to the fallback.
"""

from __future__ import annotations

import math
from dataclasses import replace
from zlib import crc32

import numpy as np

from operators.scaling import constraints, history
from operators.scaling.values import Capacity, Decision, Move, Observation, State
from switchboard.api.scaling import Mode, Reason, Scaling

BURST_SIGMAS = 1.8
"""Room for bursts, in standard deviations of the Poisson count within the time that a request may wait: the rule of
square-root staffing (Halfin and Whitt, 1981)."""

STEP_SIGMAS = 3.0
"""How far below the last tick's rate its lower bound is, in standard deviations of a Poisson count."""

MOST_FOR_DRAIN = 1.05
"""A backlog asks for at most so much more than the arrivals: what is started for it comes after many gave up."""

SHORT_S = 120.0
"""Where requests have waited for so long though all replicas serve, those take less than is said."""

SIGNAL_GONE_S = 3600.0
"""A signal that was known is missed for so long; until then nothing goes down without it."""

PARTIAL = "not all gateways are in the view"

TICKS_APART_S = 30.0
"""After a longer silence of the caller's clock, or a step back, what was remembered is no unbroken view."""


def replicas_for(rate: history.Rates, capacity: Capacity, utilization: float) -> history.Rates:
    """Replicas (a fraction) for arrival rates in requests/s: room for bursts, and never above `utilization`."""
    burst = BURST_SIGMAS * np.sqrt(rate / capacity.wait_s)
    return np.asarray(np.maximum(rate + burst, rate / utilization) / capacity.rps)


def begin(now: float, known: history.History = history.EMPTY, *, key: str = "") -> State:
    """The state of an operator that has just started; `known` is the history, where Prometheus has it.

    `key` (a server's name) says when in ten seconds its forecast is made, so that not all are made at once.
    """
    offset_s = crc32(key.encode()) % 1000 * history.BUCKET_S / 1000
    return _begin(now, known, offset_s)


def recall(scaling: Scaling, capacity: Capacity, state: State, known: history.History) -> State:
    """With the history that is known by now, and the headroom that follows from it."""
    return replace(state, history=known, headroom=_headroom(scaling, capacity.trusted(), known))


def _begin(now: float, known: history.History, offset_s: float) -> State:
    bucket = (_bucket(now, offset_s), 0.0, 0)
    return State(
        at=now, since=now, busy_at=now, known_at=now, history=known, bucket=bucket, offset_s=offset_s
    )


def decide(
    scaling: Scaling, capacity: Capacity, seen: Observation, state: State, now: float
) -> tuple[Decision, State]:
    """The decision at `now` (seconds since the epoch), and the state to come with next time.

    In the modes `shadow` and `paused` the caller doesn't carry it out; in `paused` it says that nothing changes.
    """
    told, seen, capacity = seen, seen.trusted(), capacity.trusted()
    window_s = constraints.stabilization_s(scaling, capacity.start_s)
    state = _observe(
        scaling, capacity, seen, _resume(state, now), now, doubtful=seen is not told or seen.partial
    )
    raw = {} if seen.rate is None else _needs(scaling, capacity, seen, seen.rate, state, now)
    if not raw:
        decision = _unknown(scaling, seen, state, now)
        return decision, _remember(scaling, decision, state, now)

    raw["headroom"] = state.headroom
    because: Reason = max(raw, key=lambda one: raw[one])
    needed = raw[because]
    state = replace(state, highest=constraints.remember(state.highest, now, needed, window_s))
    kept = max(state.highest[0][1], needed)
    moves: list[Move] = []

    wanted = constraints.step(seen.current, needed, kept, scaling.tolerance)
    if wanted == seen.current and math.ceil(needed) < wanted:
        why = f"{kept:.1f} in the last {window_s:g} s, and steps of {scaling.tolerance:.0%} or less aren't taken"
        moves.append(Move("stabilization", math.ceil(needed), wanted, why))
    if wanted < seen.current and (doubt := _uncertain(scaling, seen, state, window_s, now)):
        moves.append(Move("view", wanted, seen.current, doubt))
        wanted = seen.current
    wanted = _constrain(scaling, seen, state, now, wanted, moves)
    decision = Decision(now, seen.current, wanted, because, raw, seen, tuple(moves))
    return decision, _remember(scaling, decision, state, now)


def _needs(
    scaling: Scaling, capacity: Capacity, seen: Observation, rate: float, state: State, now: float
) -> dict[Reason, float]:
    """What each signal asks for, in replicas; nothing where no signal can be measured against a capacity."""
    queued = seen.queued or 0.0
    at_work = (
        None if seen.in_service is None else seen.in_service / capacity.concurrency / scaling.utilization
    )
    if math.isinf(capacity.rps):
        # What is at work counts alone. While something waits none can be spared, and twice of what serves is enough.
        if at_work is None or math.isinf(capacity.concurrency):
            return {}
        needs: dict[Reason, float] = {"in-flight": at_work}
        if queued:
            waiting = at_work + queued / capacity.concurrency
            needs["queue"] = max(1.0, min(waiting, 2.0 * seen.ready), seen.current)
        return needs
    rate = _arriving(seen, rate)
    arrivals = max(rate + BURST_SIGMAS * math.sqrt(rate / capacity.wait_s), rate / scaling.utilization)
    needs = {"rate": arrivals / capacity.rps}
    if at_work is not None:
        # Replicas that work off what waited are full, whatever arrives: they are needed, but no more for that.
        backlog = now - state.waited_at <= scaling.up_window_seconds and now - state.short_since < SHORT_S
        needs["in-flight"] = min(at_work, seen.current) if backlog else at_work
    if queued:
        draining = (rate + queued / scaling.drain_seconds) / capacity.rps
        needs["queue"] = max(1.0, min(draining, MOST_FOR_DRAIN * needs["rate"]))
    return needs


def _arriving(seen: Observation, rate: float) -> float:
    """Requests/s: the window's mean, or what the last tick alone is sure to show of a step up (a lower bound)."""
    if seen.latest_rate is None:
        return rate
    return max(rate, seen.latest_rate - STEP_SIGMAS * math.sqrt(seen.latest_rate / seen.tick_s))


def _uncertain(scaling: Scaling, seen: Observation, state: State, window_s: float, now: float) -> str | None:
    """Why less can't be taken for true yet."""
    if seen.partial:
        return PARTIAL
    if now - state.since < window_s:
        return f"known for {now - state.since:.0f} s only"
    # An end of all traffic looks as a gap does. Who wants none of idle replicas has said how long that takes.
    silent_s, believed_s = now - state.busy_at, scaling.idle_seconds or constraints.MOST_STABILIZATION_S
    if 0 < silent_s < believed_s:
        return f"no requests for {silent_s:.0f} s only"
    return None


def _constrain(
    scaling: Scaling, seen: Observation, state: State, now: float, wanted: int, moves: list[Move]
) -> int:
    """Pace, schedules, bounds and pauses, in this order: what a person has set comes last."""

    def move(constraint: str, value: int, why: str) -> None:
        nonlocal wanted
        if value != wanted:
            moves.append(Move(constraint, wanted, value, why))
            wanted = value

    pace = scaling.up if wanted > seen.current else scaling.down
    if pace is not None:
        most = f"at most {pace.replicas} or {pace.percent} % in {pace.period_seconds} s"
        move("pace", constraints.paced(seen.current, wanted, pace, state.changes, now), most)
    least, schedule = constraints.scheduled(scaling.schedules, now)
    if wanted < least:
        move("schedule", least, f"{schedule} has at least {least}")
    if scaling.min_replicas == 0 and wanted == 0 and _kept_warm(scaling, seen, state, now):
        since = (
            "idleSeconds isn't set"
            if scaling.idle_seconds is None
            else f"idle for less than {scaling.idle_seconds} s"
        )
        move("idle", 1, since)
    if wanted < scaling.min_replicas:
        move("bounds", scaling.min_replicas, f"minReplicas is {scaling.min_replicas}")
    if wanted > scaling.max_replicas:
        move("bounds", scaling.max_replicas, f"maxReplicas is {scaling.max_replicas}")
    if (wanted > seen.current and scaling.pause.up) or (wanted < seen.current and scaling.pause.down):
        move("pause", seen.current, f"no steps {'up' if wanted > seen.current else 'down'}")
    if scaling.mode is Mode.PAUSED:
        move("mode", seen.current, "paused")
    return wanted


def _kept_warm(scaling: Scaling, seen: Observation, state: State, now: float) -> bool:
    """Whether one replica is kept. Where none is, none is started before the first request: not for a new leader."""
    if scaling.idle_seconds is None:
        return True
    if seen.current == 0:
        return _busy(seen)
    return now - state.busy_at < scaling.idle_seconds


def _busy(seen: Observation) -> bool:
    return any(signal for signal in (seen.rate, seen.in_service, seen.queued))


def _unknown(scaling: Scaling, seen: Observation, state: State, now: float) -> Decision:
    """Nothing is known: what there is stays; after a time, at least the fallback. Bounds hold, but only upwards."""
    moves: list[Move] = []
    silent_s = now - state.known_at
    wanted, fallback = seen.current, scaling.fallback_replicas
    if fallback is not None and silent_s >= scaling.fallback_after_seconds and fallback > wanted:
        moves.append(Move("fallback", wanted, fallback, f"no signals for {silent_s:.0f} s"))
        wanted = fallback
    limited = _constrain(scaling, seen, state, now, wanted, moves)
    if limited < seen.current:
        moves.append(Move("unknown", limited, seen.current, "nothing goes down unseen"))
        limited = seen.current
    return Decision(now, seen.current, limited, None, {}, seen, tuple(moves))


def _resume(state: State, now: float) -> State:
    """After a jump of the clock the view starts anew; the history of rates is kept."""
    if 0 <= now - state.at <= TICKS_APART_S:
        return state
    return replace(_begin(now, state.history, state.offset_s), headroom=state.headroom)


def _observe(
    scaling: Scaling, capacity: Capacity, seen: Observation, state: State, now: float, *, doubtful: bool
) -> State:
    """The state with this tick's signals in it; `doubtful`: some of them can't be true, or aren't all
    of it."""
    number, known, reserve = _bucket(now, state.offset_s), state.history, state.headroom
    started, total, count = state.bucket
    if number != started:
        missed = min(number - started - 1, round(scaling.headroom.history_seconds / history.BUCKET_S))
        known = known.extend(
            (total / count if count else math.nan, *[math.nan] * missed),
            level_s=scaling.headroom.level_seconds,
            keep_s=scaling.headroom.history_seconds,
        )
        reserve = _headroom(scaling, capacity, known)
        total, count = 0.0, 0
    if seen.rate is not None and not seen.partial:
        total, count = total + seen.rate, count + 1
    in_service_at = state.in_service_at if seen.in_service is None else now
    queued_at = state.queued_at if seen.queued is None else now
    gone = any(now - SIGNAL_GONE_S < at < now for at in (in_service_at, queued_at))
    return replace(
        state,
        at=now,
        # What wasn't seen may have been more than what was.
        since=now if seen.rate is None or doubtful or gone else state.since,
        busy_at=now if seen.rate or seen.in_service or seen.queued else state.busy_at,
        known_at=now if seen.rate is not None else state.known_at,
        waited_at=now if seen.rate is not None and seen.queued else state.waited_at,
        short_since=min(state.short_since, now) if seen.queued and seen.ready >= seen.current else math.inf,
        in_service_at=in_service_at,
        queued_at=queued_at,
        history=known,
        bucket=(number, total, count),
        headroom=reserve,
    )


def _headroom(scaling: Scaling, capacity: Capacity, known: history.History) -> float:
    return history.headroom(
        known,
        horizon_s=capacity.start_s + scaling.up_window_seconds,
        price=scaling.headroom.price,
        replicas_for=lambda rates: replicas_for(rates, capacity, scaling.utilization),
    )


def _remember(scaling: Scaling, decision: Decision, state: State, now: float) -> State:
    """What was decided counts from now on; for a pace, as long as its period."""
    if not decision.changes:
        return state
    longest_s = max((pace.period_seconds for pace in (scaling.up, scaling.down) if pace), default=0)
    recent = [one for one in state.changes if one[0] > now - longest_s]
    changes = (*recent, (now, decision.wanted - decision.current)) if longest_s else ()
    return replace(state, changes=changes, short_since=math.inf)


def _bucket(now: float, offset_s: float) -> int:
    return int((now - offset_s) // history.BUCKET_S)
