"""How many replicas: one pure function, `decide`, read from top to bottom.

What arrives, what waits and what is at work each ask for a number of replicas; the largest counts. The server's own
history may raise it. Then constraints: a band and a window against turning, pace, schedules, bounds, pauses. Nothing
known never means less: without signals the number stays, or goes up to the fallback.
"""

from __future__ import annotations

import math
from dataclasses import replace

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

TICKS_APART_S = 30.0
"""After a longer silence of the caller's clock, or a step back, what was remembered is no unbroken view."""


def replicas_for(rate: history.Rates, capacity: Capacity, utilization: float) -> history.Rates:
    """Replicas (a fraction) for arrival rates in requests/s: room for bursts, and never above `utilization`."""
    burst = BURST_SIGMAS * np.sqrt(rate / capacity.wait_s)
    return np.asarray(np.maximum(rate + burst, rate / utilization) / capacity.rps)


def begin(now: float, known: history.History = history.EMPTY) -> State:
    """The state of an operator that has just started; `known` is the history, where Prometheus has it."""
    return State(at=now, since=now, busy_at=now, known_at=now, history=known, bucket=(_bucket(now), 0.0, 0))


def decide(
    scaling: Scaling, capacity: Capacity, seen: Observation, state: State, now: float
) -> tuple[Decision, State]:
    """The decision at `now` (seconds since the epoch), and the state to come with next time.

    In the modes `shadow` and `paused` the caller doesn't carry it out; in `paused` it says that nothing changes.
    """
    seen = seen.trusted()
    window_s = constraints.stabilization_s(scaling, capacity.start_s)
    state = _observe(scaling, capacity, seen, _resume(state, now), now)
    if seen.rate is None:
        decision = _unknown(scaling, seen, state, now)
        return decision, _remember(decision, state, now)

    raw = _needs(scaling, capacity, seen, _arriving(seen, seen.rate))
    if now - state.waited_at <= scaling.up_window_seconds:
        raw.pop("in-flight", None)  # replicas that work off what waited are full, whatever arrives
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
    if wanted < seen.current and now - state.since < window_s:
        moves.append(Move("view", wanted, seen.current, f"known for {now - state.since:.0f} s only"))
        wanted = seen.current
    wanted = _constrain(scaling, seen, state, now, wanted, moves)
    decision = Decision(now, seen.current, wanted, because, raw, seen, tuple(moves))
    return decision, _remember(decision, state, now)


def _arriving(seen: Observation, rate: float) -> float:
    """Requests/s: the window's mean, or what the last tick alone is sure to show of a step up (a lower bound)."""
    if seen.latest_rate is None:
        return rate
    return max(rate, seen.latest_rate - STEP_SIGMAS * math.sqrt(seen.latest_rate / seen.tick_s))


def _needs(scaling: Scaling, capacity: Capacity, seen: Observation, rate: float) -> dict[Reason, float]:
    """What each signal asks for, in replicas."""
    arrivals = float(replicas_for(np.asarray(rate), capacity, scaling.utilization))
    needs: dict[Reason, float] = {"rate": arrivals}
    queued = seen.queued or 0.0
    if seen.in_service is not None:
        needs["in-flight"] = seen.in_service / (capacity.concurrency * scaling.utilization)
    if queued:
        draining = (rate + queued / scaling.drain_seconds) / capacity.rps
        needs["queue"] = max(1.0, min(draining, MOST_FOR_DRAIN * arrivals))
    return needs


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
    if scaling.min_replicas == 0 and wanted == 0 and not _idle(scaling, state, now):
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


def _idle(scaling: Scaling, state: State, now: float) -> bool:
    return scaling.idle_seconds is not None and now - state.busy_at >= scaling.idle_seconds


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
    return replace(begin(now, state.history), headroom=state.headroom)


def _observe(scaling: Scaling, capacity: Capacity, seen: Observation, state: State, now: float) -> State:
    """The state with this tick's signals in it."""
    number = _bucket(now)
    started, total, count = state.bucket
    if number != started:
        known = state.history
        missed = min(number - started - 1, round(scaling.headroom.history_seconds / history.BUCKET_S))
        for rate in (total / count if count else math.nan, *[math.nan] * missed):
            known = known.add(
                rate, level_s=scaling.headroom.level_seconds, keep_s=scaling.headroom.history_seconds
            )
        state = replace(state, history=known, headroom=_headroom(scaling, capacity, known))
        total, count = 0.0, 0
    busy = any(signal for signal in (seen.rate, seen.in_service, seen.queued))
    state = replace(state, at=now, busy_at=now if busy else state.busy_at)
    if seen.rate is None:
        # What wasn't seen may have been more than what was.
        return replace(state, since=now, bucket=(number, total, count))
    return replace(
        state,
        known_at=now,
        waited_at=now if seen.queued else state.waited_at,
        bucket=(number, total + seen.rate, count + 1),
    )


def _headroom(scaling: Scaling, capacity: Capacity, known: history.History) -> float:
    return history.headroom(
        known,
        horizon_s=capacity.start_s + scaling.up_window_seconds,
        price=scaling.headroom.price,
        replicas_for=lambda rates: replicas_for(rates, capacity, scaling.utilization),
    )


def _remember(decision: Decision, state: State, now: float) -> State:
    if not decision.changes:
        return state
    recent = [one for one in state.changes if one[0] > now - 3600]
    return replace(state, changes=(*recent, (now, decision.wanted - decision.current))[-256:])


def _bucket(now: float) -> int:
    return int(now // history.BUCKET_S)
