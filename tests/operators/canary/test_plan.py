"""What is said of a release before it begins: it is what the judge will do, and refuses what can come to nothing."""

from __future__ import annotations

import math

import pytest

from operators.canary.plan import (
    NOT_MIRRORED,
    WEIGHTS,
    Mirrored,
    Plan,
    Step,
    Traffic,
    allowed_failures,
    blind,
    plan,
    weigh,
    worst_case,
)
from operators.canary.simulation.run import run
from operators.canary.simulation.world import BASE, SCENARIOS, Setting
from operators.canary.values import METRICS

TENTH = [Step(0.1, math.inf)]


def planned(
    rps: float, *, steps: list[Step] | None = None, within_s: float = 1800, allowed: float = math.inf
) -> Plan:
    return plan(Traffic(rps, BASE, 10, 2), steps or TENTH, within_s, allowed)


@pytest.mark.parametrize(("rps", "about_min"), [(100, 6), (400, 2)])
def test_a_candidate_that_is_as_good_is_promoted_about_when_it_says(rps: float, about_min: float) -> None:
    """By the judge itself, on made-up releases."""
    (same,) = (one for one in SCENARIOS if one.name == "same")
    promote_s = planned(rps).promote_s
    assert promote_s is not None and promote_s / 60 == pytest.approx(about_min, abs=1.5)
    outcome = run(same, Setting(200, rps, horizon_s=1800)).judges["switchboard"]
    assert outcome.figures()["median_minutes"] == pytest.approx(promote_s / 60, rel=0.35)


def test_what_it_calls_the_smallest_harm_is_seen_in_time_and_less_is_not() -> None:
    failed = next(one for one in planned(100, within_s=600).metrics if one.metric.name == "failed")
    assert failed.harm is not None and BASE["failed"] < failed.harm < 4 * BASE["failed"]
    longer = next(one for one in planned(100, within_s=1800).metrics if one.metric.name == "failed")
    assert longer.harm is not None and longer.harm < failed.harm


def test_every_metric_can_be_seen_at_a_bank_s_traffic() -> None:
    found = planned(50, steps=[Step(0.1, 60), Step(0.25, 60), Step(0.5, 60)])
    assert found.refusal is None
    assert [one.metric for one in found.metrics] == list(METRICS)
    assert all(one.harm is not None and one.safe_s is not None for one in found.metrics)
    assert found.promote_s is not None and found.promote_s <= 300, "the aim: five minutes at 50 requests/s"


@pytest.mark.parametrize(
    ("rps", "allowed", "says"),
    [
        (
            0.5,
            math.inf,
            "requests failed: 0.5 % more than the champion's 0.5 % can't be excluded within 30 min",
        ),
        (0.0, math.inf, "can't be excluded"),
        (100, 5.0, "weight 0.1: a candidate that fails every request would cost"),
    ],
)
def test_one_that_can_come_to_nothing_is_refused(rps: float, allowed: float, says: str) -> None:
    assert says in (planned(rps, allowed=allowed).refusal or "")


@pytest.mark.parametrize("rps", [0.0, 0.5, 3.0, 5.0, 100.0])
@pytest.mark.parametrize("within_s", [120.0, 1800.0])
def test_what_is_blind_is_what_a_plan_refuses(rps: float, within_s: float) -> None:
    traffic, steps = Traffic(rps, BASE, 10, 2), [Step(0.1, 60), Step(0.5, 60)]
    assert blind(traffic, steps, within_s) == plan(traffic, steps, within_s, math.inf).refusal


@pytest.mark.parametrize("rps", [1.0, 30.0, 1000.0])
def test_weights_rise_from_what_the_worst_candidate_may_cost(rps: float) -> None:
    traffic = Traffic(rps, BASE, 10, 2)
    for allowed in (allowed_failures(rps), 10.0, 0.0):
        weights = [one.weight for one in weigh(traffic, allowed)]
        assert weights == sorted(set(weights)) and weights[-1] == WEIGHTS[-1]
        assert worst_case(traffic, weights[0]) <= allowed or weights[0] == WEIGHTS[0]


def test_what_a_month_leaves() -> None:
    assert allowed_failures(100, 0.9999, 0.05) == pytest.approx(100 * 30 * 86_400 * 1e-4 * 0.05)


def disagreed(of: Plan) -> float | None:
    return next(one.safe_s for one in of.metrics if one.metric.name == "disagreed")


def test_whether_they_answer_alike_is_seen_by_what_is_mirrored_whatever_the_steps_are() -> None:
    traffic = Traffic(50, BASE, 10, 2)
    small, large = ([Step(weight, 60), Step(0.5, 60)] for weight in (0.01, 0.1))
    for steps in (small, large):
        found = plan(traffic, steps, 1800, math.inf)
        assert found.refusal is None
        assert (disagreed(found) or math.inf) <= found.mirrored_s == 30
        assert found.promote_s is not None and found.promote_s >= found.mirrored_s + 60
    few = plan(traffic, small, 1800, math.inf, mirrored=Mirrored(0.01, 30))
    assert disagreed(few) == few.mirrored_s > 150


def test_without_mirrored_requests_nobody_judges_by_answers() -> None:
    found = plan(Traffic(50, BASE, 10, 2), [Step(0.1, 60)], 1800, math.inf, mirrored=NOT_MIRRORED)
    assert found.mirrored_s == 0
    assert "disagreed" not in {one.metric.name for one in found.metrics}
    assert found.refusal is None


def test_what_mirrored_requests_show_counts_for_the_other_metrics_too() -> None:
    traffic, steps = Traffic(50, BASE, 10, 2), [Step(0.01, 1800)]
    much, none = (
        plan(traffic, steps, 1800, math.inf, mirrored=one) for one in (Mirrored(0.5, 600), NOT_MIRRORED)
    )
    failed = [
        next(one.safe_s for one in found.metrics if one.metric.name == "failed") for found in (much, none)
    ]
    assert failed[0] is not None and failed[0] <= 600
    assert failed[1] is None
