"""A run as a whole, and the comparison: the same each time, faults where they are said, figures that add up."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operators.scaling import Capacity
from operators.scaling.history import History
from operators.simulator import compare, scenarios, traffic
from operators.simulator.compare import Job, policy
from operators.simulator.metrics import Metrics
from operators.simulator.plant import Replica, Second
from operators.simulator.rivals import Bounds
from operators.simulator.rivals.base import Replicas
from operators.simulator.run import Faults, Run, constant, least_constant, reversals, simulate
from operators.simulator.switchboard import Switchboard
from switchboard.api.scaling import Scaling
from switchboard.errors import SwitchboardError

SHORT = traffic.steps((100, 120), (300, 240), (100, 240))


def a_run(**more: object) -> Run:
    fields = {
        "arrivals": traffic.draw(SHORT, 1, gamma_shape=None),
        "replica": Replica(),
        "start_s": 5,
        "bounds": Bounds(1, 30),
        "initial": 4,
        "seed": 1,
    }
    return Run(**{**fields, **more})  # type: ignore[arg-type]


class Fixed:
    """Wants these numbers from these seconds on, and notes what it is told."""

    every_s = 1

    def __init__(self, *wanted: tuple[int, int]) -> None:
        self.wanted = wanted
        self.seen: list[tuple[int, int, int, float | None]] = []
        self.restarts = 0

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        self.seen.append((now, replicas.ready, replicas.size, metrics.rate(now, 1)))
        return next((count for since, count in reversed(self.wanted) if now >= since), replicas.size)

    def restart(self) -> None:
        self.restarts += 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [([], 0), ([4, 4], 0), ([4, 6, 6, 9], 0), ([4, 6, 5, 4], 1), ([4, 3, 4, 3], 2), ([4, 6, 5, 6, 5], 3)],
)
def test_reversals(wanted: list[int], expected: int) -> None:
    assert reversals(wanted) == expected


def test_replicas_are_paid_for_from_their_creation_to_the_end_of_their_drain() -> None:
    fixed = Fixed((60, 6), (300, 4))
    found = simulate(a_run(), fixed)
    starting = next(now for now, ready, _, _ in fixed.seen if ready == 6) - 60
    assert 4 <= starting <= 8, "5 s, give or take a tenth, and whole seconds"
    assert found.replica_h * 3600 == pytest.approx(4 * 600 + 2 * 240 + 2 * Replica().drain_s, abs=4)
    assert (found.peak, found.reversals) == (6, 1)


def test_samples_come_late_and_not_at_all_in_a_gap() -> None:
    fixed = Fixed()
    run = a_run(faults=Faults(gaps=((50, 60),), restarts=(10, 20)), metric_delay_s=2)
    simulate(run, fixed)
    rates = {now: rate for now, _, _, rate in fixed.seen}
    per_second = run.arrivals.per_second()
    assert [rates[1], rates[2]] == [None, None]
    assert rates[40] == per_second[37]
    assert {rates[now] for now in range(53, 63)} == {None}
    assert rates[63] == per_second[60]
    assert fixed.restarts == 2


def test_a_cap_holds_back_what_is_asked_for_until_it_ends() -> None:
    fixed = Fixed((10, 10))
    found = simulate(a_run(faults=Faults(caps=((0, 300, 5),))), fixed)
    ready = found.ready
    assert ready[:300].max() == 5
    assert ready[310] == 10
    assert found.wanted[20] == 10


def test_the_least_constant_count() -> None:
    run = a_run()
    least = least_constant(run)
    assert constant(run, least) == 0
    assert constant(run, least - 1) > 0


@pytest.mark.parametrize("name", compare.POLICIES)
def test_the_same_run_gives_the_same_figures(name: str) -> None:
    run = a_run()
    one, other = (simulate(run, policy(name, run)) for _ in range(2))
    assert (one.violation_s, one.replica_h, one.reversals) == (
        other.violation_s,
        other.replica_h,
        other.reversals,
    )
    assert np.array_equal(one.wanted, other.wanted)
    assert one.wanted.max() > 4, "it follows a step of 3x"


def test_switchboard_settles_a_step_and_turns_once() -> None:
    scenario = next(one for one in scenarios.standard() if one.name == "step")
    for start in scenarios.STARTS_S:
        run = scenario.run(start, 0)
        found = simulate(run, policy("switchboard", run))
        assert found.reversals <= 1
        assert found.peak <= 1.3 * least_constant(run)
        most = int(found.wanted[900:].argmax())
        assert most <= 15, "the decision that settles it, in seconds after the step"


def test_after_a_restart_it_knows_the_traffic_from_prometheus() -> None:
    """The history is what it was, and nothing goes down for the time of the stabilisation."""
    histories: list[History] = []

    class Watched(Switchboard):
        def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
            wanted = super().decide(now, metrics, replicas)
            if now == 5030 and self._state is not None:
                histories.append(self._state.history)
            return wanted

    run = a_run(arrivals=traffic.draw(traffic.bursty(100, 400, 7200, 3), 3), start_s=180.0)
    for restarts in ((), (5000,)):
        found = Watched(Scaling(max_replicas=30), Capacity(rps=40, concurrency=4, start_s=180))
        outcome = simulate(replace(run, faults=Faults(restarts=restarts)), found)
    assert outcome.wanted[5000:5180].min() >= outcome.wanted[4999]
    kept, again = histories
    assert len(kept.rates) - len(again.rates) <= 1
    for of in ("rates", "levels"):
        one, other = (np.quantile(getattr(which, of)[-400:], [0.1, 0.5, 0.9]) for which in (kept, again))
        assert other == pytest.approx(one, rel=0.2), of


@pytest.mark.parametrize("name", compare.POLICIES)
def test_nobody_takes_replicas_away_because_of_a_restart(name: str) -> None:
    """Within a fall to a third. Each has its own way to be careful then; the shortest, Knative's, lasts a minute."""
    run = a_run(arrivals=traffic.draw(traffic.steps((300, 600), (100, 300)), 1, gamma_shape=None), initial=12)
    run = replace(run, faults=Faults(restarts=(620,)))
    wanted = simulate(run, policy(name, run)).wanted
    assert wanted[618] > 4
    assert wanted[619:680].min() >= wanted[618]


# Scenarios and traces


def test_every_scenario_runs_from_its_seed() -> None:
    for scenario in scenarios.standard():
        one, same, other = (scenario.run(60, seed) for seed in (1, 1, 2))
        assert np.array_equal(one.arrivals.counts, same.arrivals.counts), scenario.name
        assert not np.array_equal(one.arrivals.counts, other.arrivals.counts), scenario.name
        assert one.arrivals.seconds >= 5400


def test_without_the_traces_the_generators_stand_in(tmp_path: Path) -> None:
    for scenario in scenarios.standard(tmp_path):
        if not scenario.name.startswith("trace-"):
            continue
        days = [scenario.rates(seed) for seed in range(20)]
        assert all(len(day) == 86_400 and day.min() > 0 for day in days)
        assert np.mean([day.mean() for day in days]) == pytest.approx(scenarios.TRACE_MEAN, rel=0.15)
        fitted = scenarios.FITTED[scenario.name]
        spread = np.std([np.log(day[::600] / scenarios.TRACE_MEAN) for day in days])
        assert spread == pytest.approx((fitted.sigma**2 + fitted.day_swing**2 / 2) ** 0.5, rel=0.15)


def test_traces_are_read_where_they_are(tmp_path: Path) -> None:
    for name in ("large", "mid", "small"):
        write(tmp_path / f"servegen-m-{name}.csv", [(600 * i, 100 + i % 7) for i in range(2016)])
    scenario = next(one for one in scenarios.standard(tmp_path) if one.name == "trace-mid")
    rates = scenario.rates(3)
    assert len(rates) == 86_400
    assert rates.mean() == pytest.approx(scenarios.TRACE_MEAN)
    assert rates.max() / rates.min() == pytest.approx(106 / 100, rel=0.01)


def write(
    path: Path, rows: list[tuple[object, object]], head: tuple[str, str] = ("time_s", "requests_per_s")
) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def test_a_users_trace_is_taken_step_by_step_or_by_lines(tmp_path: Path) -> None:
    fine = scenarios.from_trace(write(tmp_path / "fine.csv", [(100, 10), (105, 50), (110, 20)]))
    assert fine.rates(0).tolist() == [*[10] * 5, *[50] * 5, 20]
    assert (fine.name, fine.gamma_shape) == ("fine", None)
    coarse = scenarios.from_trace(write(tmp_path / "coarse.csv", [(0, 0), (60, 60), (120, 0)]))
    assert coarse.rates(0)[[0, 30, 60, 90]].tolist() == [0, 30, 60, 30]
    assert coarse.gamma_shape is not None


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(0, 1)], "1 rows; a trace has at least two"),
        ([(0, 1), ("x", 2)], "line 3: not two numbers"),
        ([(0, 1), (0, 2)], "line 3: time_s 0 doesn't come after"),
        ([(0, 1), (10, -2)], "line 3: requests_per_s -2"),
        ([(0, 1), (10, "nan")], "line 3: requests_per_s nan"),
        ([(0, 1), (10, "1e9")], "line 3: requests_per_s 1e9"),
        ([(0, 1), ("inf", 2)], "line 3: time_s inf"),
        ([(0, 1), (15 * 86_400, 2)], "longer than 14 days"),
        ([(0, 1), (10,)], "line 3: not two numbers"),
    ],
)
def test_a_trace_that_is_none(tmp_path: Path, rows: list[tuple[object, object]], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        scenarios.from_trace(write(tmp_path / "t.csv", rows))


def test_a_trace_without_its_columns(tmp_path: Path) -> None:
    with pytest.raises(SwitchboardError, match="no column requests_per_s"):
        scenarios.from_trace(write(tmp_path / "t.csv", [(0, 1), (1, 2)], head=("time_s", "rps")))
    with pytest.raises(SwitchboardError, match="No such file"):
        scenarios.from_trace(tmp_path / "none.csv")


# The comparison


def test_cells_add_up(tmp_path: Path) -> None:
    trace = write(tmp_path / "mine.csv", [(0, 100), (5, 100), (100, 400), (105, 400), (600, 100), (605, 100)])
    todo = compare.jobs(["mine"], [5, 60], 2, trace=trace)
    assert [(job.scenario, job.seed, job.starts_s) for job in todo] == [
        ("mine", 0, (5, 60)),
        ("mine", 1, (5, 60)),
    ]
    heard: list[int] = []
    cells = compare.compare(todo, heard.append)
    assert heard == [1, 2]
    assert cells == [cell for job in todo for cell in compare.work(job)], "also without the pool"
    assert len(cells) == 2 * 2 * len(compare.POLICIES)
    document = json.loads(json.dumps(compare.as_json(cells)))
    assert set(document["totals"]) == set(compare.POLICIES)
    for name, total in document["totals"].items():
        own = [cell for cell in document["cells"] if cell["policy"] == name]
        assert total["violation_s"] == sum(cell["violation_s"] for cell in own)
        assert total["replica_h"] == pytest.approx(sum(cell["replica_h"] for cell in own))
        assert total["peak"] == max(cell["peak"] for cell in own)
        assert total["reversals"] == sum(cell["reversals"] for cell in own)


def test_a_scenario_that_there_isn_t() -> None:
    with pytest.raises(SwitchboardError, match="no scenario 'nope'; there are step, flash-crowd"):
        compare.jobs(["nope"], [5], 1)


def test_late_samples_and_means() -> None:
    found = Metrics(delay_s=1)
    for number in range(10):
        found.add(None if number in (3, 4) else Second(number + 1, number, number, number / 10, 1.0, 1))
    assert found.rate(10, 3) == 7
    assert found.rate(6, 2) is None
    assert found.rate(7, 3) == 5
    assert found.samples(7, 3) == 1
    now = (found.in_service(10, 1), found.queued(10, 1), found.in_flight(10, 1))
    assert now == pytest.approx((0.8, 1.0, 1.8))


def test_job_with_the_generators(tmp_path: Path) -> None:
    job = Job("trace-small", 0, (60,), traces=tmp_path)
    assert compare.find(job).name == "trace-small"
