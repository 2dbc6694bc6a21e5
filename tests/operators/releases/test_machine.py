"""The way of a release: what follows from what, as a table, and what may never be, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.canary.plan import Traffic
from operators.canary.values import Standing, Verdict
from operators.releases import machine
from operators.releases.machine import DRAIN_S, TROUBLE_S
from operators.releases.values import Checked, Running, Told, Wanted
from switchboard.api.model_release import Order, Phase, Shadow
from tests.operators.releases.way import Way, verdict


def test_the_usual_way() -> None:
    way = Way()
    for _ in range(40):
        way.after(
            60.0, judgement=verdict(Verdict.PROMOTE if way.status.phase is Phase.CANARY else Verdict.CONTINUE)
        )
    assert [(turn.phase, turn.weight) for turn in way.status.turns] == [
        (Phase.PREPARING, 0),
        (Phase.SHADOW, 0),
        (Phase.CANARY, 10),
        (Phase.CANARY, 50),
        (Phase.PROMOTING, 50),
        (Phase.WARM, 100),
        (Phase.SETTLING, 100),
        (Phase.SETTLING, 0),
        (Phase.PROMOTED, 0),
    ]
    assert way.status.champion_version == 7
    assert way.status.progress == "2/2"
    assert way.wanted == Wanted(None, None, 8, Told.PROMOTED)


def test_requests_are_mirrored_in_the_shadow_only() -> None:
    way = Way(shadow=Shadow(percent=40, seconds=30))
    assert {
        phase: way.to(phase).status.mirror for phase in (Phase.PREPARING, Phase.SHADOW, Phase.CANARY)
    } == {
        Phase.PREPARING: 0,
        Phase.SHADOW: 40,
        Phase.CANARY: 0,
    }


def test_a_shadow_lasts_until_answers_were_compared() -> None:
    way = Way().to(Phase.SHADOW)
    assert way.wanted == Wanted(2, 2, 7), "of the size of what is mirrored, both"
    for answers in (Standing.UNKNOWN, Standing.OPEN):
        assert way.after(60.0, judgement=verdict(Verdict.CONTINUE, answers)) is Phase.SHADOW
    assert way.after(1.0, judgement=None) is Phase.SHADOW
    assert way.after(1.0, judgement=verdict(Verdict.CONTINUE)) is Phase.CANARY
    early = Way().to(Phase.SHADOW)
    assert early.after(29.0, judgement=verdict(Verdict.CONTINUE)) is Phase.SHADOW
    slow = Way(within_seconds=600).to(Phase.SHADOW)
    assert slow.after(600.0, judgement=verdict(Verdict.CONTINUE, Standing.OPEN)) is Phase.INCONCLUSIVE


def test_without_shadow_no_baseline_is_started() -> None:
    way = Way(shadow=Shadow(seconds=0)).to(Phase.PREPARING)
    assert way.wanted.baseline is None
    way.facts = replace(way.facts, baseline=None)
    assert way.after(1.0) is Phase.CANARY


STAYS: list[tuple[str, Phase, dict[str, Any]]] = [
    ("the champion has no pinned version yet", Phase.PREPARING, {"champion": Running(10, 10, current=False)}),
    ("the champion isn't whole", Phase.PREPARING, {"champion": Running(10, 9, current=True)}),
    ("there is no candidate yet", Phase.PREPARING, {"candidate": None}),
    ("the candidate doesn't serve", Phase.PREPARING, {"candidate": Running(1, 0, current=True)}),
    ("the baseline doesn't serve", Phase.PREPARING, {"baseline": Running(2, 1, current=True)}),
    ("the candidate hasn't all its size", Phase.PROMOTING, {"candidate": Running(10, 9, current=True)}),
    ("the registry isn't told", Phase.PROMOTING, {"told": None}),
    ("the service's own replicas are old", Phase.SETTLING, {"settled": False}),
]


@pytest.mark.parametrize(("why", "phase", "facts"), STAYS, ids=[f"{p}: {w}" for w, p, _ in STAYS])
def test_it_waits(why: str, phase: Phase, facts: dict[str, Any]) -> None:
    way = Way().to(phase)
    assert way.after(5.0, judgement=None, **facts) is phase, why


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"problem": "there is no ModelServer chat here"}, "there is no ModelServer chat here"),
    ({"checked": Checked("chat-intent", 7, "version 8 is not there")}, "version 8 is not there"),
]


@pytest.mark.parametrize(("facts", "sentence"), REFUSED)
def test_what_cant_be_released_is_refused_at_once(facts: dict[str, Any], sentence: str) -> None:
    way = Way()
    assert way.after(0.0, **facts) is Phase.REFUSED
    assert way.status.sentence == sentence
    assert way.wanted == Wanted()


WAITS: list[tuple[dict[str, Any], str]] = [
    ({"waits_for": "chat-7"}, "it waits for chat-7"),
    ({"checked": None}, "the registry doesn't say yet"),
]


@pytest.mark.parametrize(("facts", "sentence"), WAITS)
def test_nothing_is_started_before_its_turn(facts: dict[str, Any], sentence: str) -> None:
    way = Way()
    assert way.after(0.0, **facts) is Phase.PENDING
    assert way.status.sentence.startswith(sentence)
    said = way.status
    way.after(60.0)
    assert way.status is said, "it is said once"
    assert way.wanted == Wanted()


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.CANARY, Phase.PROMOTING])
def test_harm_takes_the_traffic_back_at_once(phase: Phase) -> None:
    way = Way(paused=False).to(phase)
    assert way.after(0.5, judgement=verdict(Verdict.ABORT)) is Phase.ROLLED_BACK
    assert (way.status.weight, way.status.mirror) == (0, 0)
    assert way.status.sentence == "the judge says Abort"
    assert way.status.verdict == "Abort"


def test_a_pause_stops_steps_and_promotion_but_no_abort() -> None:
    way = Way().to(Phase.CANARY)
    way.spec = way.spec.model_copy(update={"paused": True, "within_seconds": 100_000})
    for _ in range(5):
        assert way.after(60.0, judgement=verdict(Verdict.PROMOTE)) is Phase.CANARY
    assert way.status.step == 1
    assert way.after(60.0, judgement=verdict(Verdict.ABORT)) is Phase.ROLLED_BACK


def test_each_step_is_gone_before_a_promotion() -> None:
    way = Way().to(Phase.CANARY)
    assert way.after(1.0, judgement=verdict(Verdict.PROMOTE)) is Phase.CANARY
    assert way.status.weight == 10
    way.after(60.0)
    assert way.status.weight == 50
    assert way.after(1.0) is Phase.PROMOTING


def test_a_step_waits_for_its_replicas() -> None:
    way = Way().to(Phase.CANARY)
    assert way.wanted.candidate == 5, "the next step's are started ahead"
    way.after(60.0, judgement=verdict(Verdict.CONTINUE), candidate=Running(5, 4, current=True))
    assert way.status.weight == 10
    way.after(1.0, candidate=Running(5, 5, current=True))
    assert way.status.weight == 50


def test_without_a_verdict_in_time_it_is_inconclusive() -> None:
    way = Way(within_seconds=600).to(Phase.CANARY)
    assert way.after(100.0, judgement=verdict(Verdict.CONTINUE)) is Phase.CANARY
    assert way.after(600.0) is Phase.INCONCLUSIVE
    assert way.status.weight == 0
    assert way.status.sentence == "no verdict within 600 s: the judge says Continue"
    assert way.wanted.tell is Told.ABORTED


def test_a_candidate_that_fails_to_start() -> None:
    way = Way().to(Phase.PREPARING)
    failing = Running(1, 0, current=True, trouble="back-off restarting failed container")
    assert way.after(TROUBLE_S - 1, candidate=failing) is Phase.PREPARING
    assert way.after(1.0) is Phase.ROLLED_BACK
    assert way.status.sentence == "version 8 doesn't start: back-off restarting failed container"


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.CANARY, Phase.PROMOTING])
def test_a_candidate_that_stops_to_serve(phase: Phase) -> None:
    way = Way().to(phase)
    gone = Running(5, 0, current=True, trouble="back-off restarting failed container")
    good = verdict(Verdict.CONTINUE)
    assert way.after(1.0, candidate=gone, failing_s=TROUBLE_S - 1, judgement=good) is phase
    assert way.after(1.0, failing_s=TROUBLE_S) is Phase.ROLLED_BACK
    assert "hasn't served for 20 s, in which the champion did: back-off" in way.status.sentence


def test_a_candidate_that_takes_too_long_to_start() -> None:
    way = Way().to(Phase.PREPARING)
    assert way.after(239.0, candidate=Running(1, 0, current=True), start_s=120.0) is Phase.PREPARING
    assert way.after(1.0) is Phase.ROLLED_BACK


ORDERS: list[tuple[Phase, Order, Phase]] = [
    (Phase.PENDING, Order.ABORT, Phase.ROLLED_BACK),
    (Phase.PREPARING, Order.ABORT, Phase.ROLLED_BACK),
    (Phase.SHADOW, Order.PROMOTE, Phase.PROMOTING),
    (Phase.CANARY, Order.PROMOTE, Phase.PROMOTING),
    (Phase.CANARY, Order.ABORT, Phase.ROLLED_BACK),
    (Phase.WARM, Order.ROLLBACK, Phase.ROLLED_BACK),
    (Phase.SETTLING, Order.ROLLBACK, Phase.SETTLING),
]


@pytest.mark.parametrize(("phase", "order", "then"), ORDERS)
def test_by_hand(phase: Phase, order: Order, then: Phase) -> None:
    way = Way().to(phase)
    waiting = {"waits_for": "another"} if phase is Phase.PENDING else {}
    assert way.after(0.1, order, judgement=None, settled=False, **waiting) is then


def test_a_promotion_that_is_taken_back_is_told_so() -> None:
    way = Way().to(Phase.WARM)
    way.after(1.0, Order.ROLLBACK)
    assert way.wanted == Wanted(1, None, 7, Told.RETURNED)
    way.now += DRAIN_S
    assert way.wanted == Wanted(None, None, 7, Told.RETURNED)


def test_a_release_that_is_deleted() -> None:
    early = Way().to(Phase.CANARY)
    assert early.after(0.1, deleted=True, judgement=None) is Phase.ROLLED_BACK
    late = Way().to(Phase.WARM)
    assert late.after(0.1, deleted=True) is Phase.SETTLING, "it was promoted: nobody asks for the old version"
    back = Way().to(Phase.WARM)
    assert back.after(0.1, order=Order.ROLLBACK, deleted=True) is Phase.ROLLED_BACK, "here somebody does"


def test_a_server_that_is_gone_or_paused_ends_it() -> None:
    for phase in (Phase.PREPARING, Phase.SHADOW, Phase.CANARY):
        way = Way().to(phase)
        assert way.after(1.0, problem="there is no ModelServer chat here") is Phase.ROLLED_BACK
        assert way.status.sentence == "there is no ModelServer chat here"
    late = Way().to(Phase.PROMOTING)
    late.facts = replace(late.facts, told=None)
    assert late.after(1.0, problem="there is no ModelServer chat here") is Phase.PROMOTING


def test_steps_are_chosen_by_the_error_budget() -> None:
    way = Way(steps=())
    way.facts = replace(way.facts, traffic=Traffic(100.0, {"failed": 0.001}, 10, 1))
    way.after(0.0)
    weights = [step.weight for step in way.status.steps]
    assert weights == sorted(set(weights))
    assert weights[0] <= 10
    assert weights[-1] == 50
    quiet = Way(steps=())
    quiet.after(0.0)
    assert [step.weight for step in quiet.status.steps] == list(machine.USUAL_STEPS)


@pytest.mark.parametrize(
    ("full", "weight", "replicas"), [(10, 10, 1), (10, 11, 2), (1, 1, 1), (3, 50, 2), (7, 100, 7), (0, 50, 1)]
)
def test_sizes(full: int, weight: int, replicas: int) -> None:
    assert machine.size(full, weight) == replicas


def test_nothing_new_is_the_same_object() -> None:
    way = Way().to(Phase.CANARY)
    before = way.status
    way.after(0.5, judgement=None)
    assert way.status is before


RUNNING = st.builds(
    Running, st.integers(0, 20), st.integers(0, 20), st.booleans(), st.sampled_from([None, "it fails"])
)
MOVES: st.SearchStrategy[Callable[[Way], Any]] = st.one_of(
    st.builds(
        lambda seconds, judged, candidate, champion, told, settled, deleted: (
            lambda way: way.after(
                seconds,
                judgement=None if judged is None else verdict(judged),
                candidate=candidate,
                champion=champion,
                told=told,
                settled=settled,
                deleted=deleted,
            )
        ),
        st.floats(0, 400),
        st.sampled_from([None, *Verdict]),
        RUNNING,
        RUNNING,
        st.sampled_from([None, *Told]),
        st.booleans(),
        st.sampled_from([False] * 9 + [True]),
    ),
    st.sampled_from(Order).map(lambda order: lambda way: way.after(1.0, order)),
)


@given(st.lists(MOVES, max_size=40))
def test_what_never_happens(moves: list[Callable[[Way], Any]]) -> None:
    way = Way()
    over: Phase | None = None
    for move in moves:
        before = way.status
        move(way)
        now, facts = way.status, way.facts
        if now.weight > before.weight:
            assert now.phase in (Phase.CANARY, Phase.WARM)
            assert facts.candidate is not None
            assert facts.candidate.ready >= machine.size(facts.champion.wanted, now.weight)
        if now.phase in (Phase.PENDING, Phase.PREPARING, Phase.SHADOW) or now.phase.over:
            assert now.weight == 0
        if now.weight == 100:
            assert now.phase in (Phase.WARM, Phase.SETTLING)
        if now.phase is Phase.WARM and before.phase is not Phase.WARM:
            assert facts.told is Told.PROMOTED, "the registry knows first"
        if now.mirror:
            assert now.phase is Phase.SHADOW
        if now.phase is Phase.PROMOTED and before.phase is not Phase.PROMOTED:
            assert before.weight == 0
        assert over is None or now.phase is over, "what is over stays so"
        over = now.phase if now.phase.over else None
        want = way.wanted
        if now.weight > 0:
            assert want.candidate is not None, "whoever gets requests is there"
