"""The judge and the rules of others on made-up releases, and the rules' own hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from operators.canary.simulation import rivals
from operators.canary.simulation.outcome import Outcome
from operators.canary.simulation.run import JUDGES, chosen, run
from operators.canary.simulation.world import BASE, SCENARIOS, Setting, World
from operators.canary.values import METRICS
from switchboard.errors import SwitchboardError

SETTING = Setting(300)


def minutes(rates: list[float], requests: float = 1000.0) -> tuple[np.ndarray, np.ndarray]:
    counts = np.array([rates]) * requests
    return counts, np.full(counts.shape, requests)


@pytest.mark.parametrize(
    ("rates", "aborted", "promoted", "at"),
    [
        ([0.02] * 10, True, False, 5),
        ([0.005] * 10, False, True, 5),
        ([0.02, 0.005] * 5, True, False, 9),
        ([0.005, 0.02] * 5, False, True, 9),
        ([0.01] * 10, False, True, 5),
        ([0.02, 0.005] * 2, False, False, 4),
    ],
    ids=["all fail", "all pass", "the fifth that fails", "the fifth that passes", "just 99 %", "neither"],
)
def test_a_fixed_threshold(rates: list[float], aborted: bool, promoted: bool, at: float) -> None:
    found = rivals.threshold({"failed": minutes(rates)})
    assert (found.aborted[0], found.promoted[0], found.minutes[0]) == (aborted, promoted, at)


def test_a_check_without_requests_fails() -> None:
    found = rivals.threshold({"failed": minutes([0.0] * 6, requests=0.0)})
    assert found.aborted[0]


@pytest.mark.parametrize(
    ("candidate", "champion", "aborted"),
    [
        ([0.02] * 9 + [0.021], [0.01] * 9 + [0.011], True),
        ([0.01, 0.012] * 5, [0.01, 0.012] * 5, False),
        ([0.005] * 10, [0.01] * 10, False),
    ],
    ids=["twice as many", "the same", "fewer"],
)
def test_mann_whitney(candidate: list[float], champion: list[float], aborted: bool) -> None:
    same = {name: minutes([0.01] * 10) for name in rivals.COMPARED}
    found = rivals.mann_whitney({**same, "failed": minutes(candidate)}, {**same, "failed": minutes(champion)})
    assert (found.aborted[0], found.promoted[0], found.minutes[0]) == (aborted, not aborted, 10)


def test_an_outcome_is_one_of_three() -> None:
    found = Outcome.of(np.array([3.0, 7.0, math.inf, 5.0]), np.array([4.0, 6.0, math.inf, 5.0]), 60)
    assert found.aborted.tolist() == [True, False, False, True]
    assert found.promoted.tolist() == [False, True, False, False]
    assert found.minutes.tolist() == [3, 6, 60, 5]
    assert found.figures() == {"abort_rate": 0.5, "promote_rate": 0.25, "median_minutes": 5.5}


def test_the_same_seed_is_the_same_world_and_rates_are_those_that_are_said() -> None:
    (same,) = chosen(["same"])
    one, other = (next(World(same, SETTING).blocks()) for _ in range(2))
    assert one is not None and other is not None
    for metric in METRICS:
        assert np.array_equal(one[0][metric.name][0], other[0][metric.name][0])
    before = World(same, Setting(2000)).before()
    for name, rate in BASE.items():
        events, of = before[name]
        assert events.sum() / of.sum() == pytest.approx(rate, rel=0.1), name


@pytest.mark.parametrize("scenario", ["same", "same+shared-incident", "same+gaps"])
def test_the_same_model_is_promoted(scenario: str) -> None:
    figures = run(chosen([scenario])[0], SETTING).judges["switchboard"].figures()
    assert figures["abort_rate"] <= 0.02, "1 % at most, by 10,000 releases"
    assert figures["promote_rate"] >= 0.95


@pytest.mark.parametrize(
    ("scenario", "least", "minutes"),
    [
        ("errors-2x", 0.9, 6.5),
        ("errors-4x", 0.95, 1.5),
        ("slower-20%", 0.95, 4),
        ("leak", 0.95, 6),
        ("handoffs-1.5x", 0.3, 60),  # pods may differ so much by themselves: often it stays open
    ],
)
def test_harm_is_shown_and_seldom_promoted(scenario: str, least: float, minutes: float) -> None:
    figures = run(chosen([scenario])[0], SETTING).judges["switchboard"].figures()
    assert figures["abort_rate"] >= least
    assert figures["promote_rate"] <= 0.06
    assert figures["median_minutes"] <= minutes


def test_a_cell_is_told_as_programs_expect_it() -> None:
    document = run(chosen(["errors-4x"])[0], Setting(20, horizon_s=600)).document()
    assert document["scenario"] == "errors-4x"
    judges = document["judges"]
    assert isinstance(judges, dict) and tuple(judges) == JUDGES
    assert all(set(one) == {"abort_rate", "promote_rate", "median_minutes"} for one in judges.values())


def test_scenarios_are_chosen_by_name() -> None:
    assert [one.name for one in chosen([])] == [one.name for one in SCENARIOS]
    with pytest.raises(SwitchboardError, match="no scenario 'worse'; there are same, "):
        chosen(["worse"])
