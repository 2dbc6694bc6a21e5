"""Profiles by hand-worked numbers, and by what must hold of any."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.profile import LONGEST_S, Profile, Span, read_trace, staged, traced

PEAK = staged([(20, 0, 60), (100, 60, 180), (20, 60, 60)])


@pytest.mark.parametrize(
    ("second", "rate"),
    [
        (-1, 0),
        (0, 20),
        (59, 20),
        (60, 20),
        (90, 60),
        (120, 100),
        (299, 100),
        (330, 60),
        (419, 20),
        (420, 0),
        (999, 0),
    ],
)
def test_the_rate_at_a_time(second: float, rate: float) -> None:
    assert PEAK.rate(second) == rate


def test_what_is_due_is_what_is_below_the_line() -> None:
    assert PEAK.requests() == 60 * 20 + 60 * 60 + 180 * 100 + 60 * 60 + 60 * 20
    assert PEAK.requests(30, 90) == 30 * 20 + 30 * 40
    assert PEAK.requests(500, 600) == 0
    assert PEAK.most_rps == 100


def test_changes_are_when_the_rate_is_on_its_way() -> None:
    assert PEAK.changes() == (Span(60, 120), Span(300, 360))
    steps = staged([(20, 0, 60), (100, 0, 60), (20, 30, 0), (50, 30, 0)])
    assert steps.changes() == (Span(60, 60), Span(120, 180))
    assert (steps.rate(59.9), steps.rate(60)) == (20, 100)


def test_before_the_first_stage_there_is_nobody() -> None:
    assert staged([(20, 10, 5)]).points == ((0, 0), (10, 20), (15, 20))


@pytest.mark.parametrize(
    ("points", "says"),
    [
        pytest.param(((0, 1),), "two points", id="one point"),
        pytest.param(((1, 1), (2, 1)), "the first at 0", id="begins later"),
        pytest.param(((0, 1), (5, 1), (4, 1)), "in order", id="goes back"),
        pytest.param(((0, 1), (0, 2)), "takes up to", id="no length"),
        pytest.param(((0, 1), (LONGEST_S + 1, 1)), "takes up to", id="too long"),
        pytest.param(((0, 1), (5, -1)), "from 0 to", id="negative"),
        pytest.param(((0, 1), (5, 1e9)), "from 0 to", id="more than anybody has"),
        pytest.param(((0, 1), (5, float("nan"))), "must be finite", id="no number"),
        pytest.param(((0, 1), (float("nan"), 1)), "must be finite", id="no time"),
        pytest.param(((0, 0), (5, 0)), "without a request", id="nobody"),
    ],
)
def test_profiles_that_cannot_be(points: tuple[tuple[float, float], ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Profile(points)


STAGES = st.lists(
    st.tuples(st.floats(0, 1000), st.floats(0, 1000), st.floats(1, 1000)), min_size=1, max_size=10
).filter(lambda stages: any(rate > 0 for rate, _, _ in stages))


@given(STAGES)
def test_any_stages(stages: list[tuple[float, float, float]]) -> None:
    profile = staged(stages)
    assert profile.length_s == pytest.approx(sum(over + held for _, over, held in stages))
    assert profile.most_rps == max(rate for rate, _, _ in stages)
    cut = profile.length_s / 3
    whole = profile.requests(0, cut) + profile.requests(cut)
    assert whole == pytest.approx(profile.requests())
    assert 0 <= profile.rate(cut) <= profile.most_rps * (1 + 1e-9)
    for span in profile.changes():
        assert 0 <= span.begin_s <= span.end_s <= profile.length_s


def test_a_trace_keeps_its_shape() -> None:
    made = traced([(600, 50), (1200, 200), (1800, 100)], seconds=60, peak_rps=80)
    assert made.points == ((0, 20), (30, 80), (60, 40))


@pytest.mark.parametrize(
    "rows", [[], [(0, 1)], [(0, 1), (0, 2)], [(5, 1), (0, 2)], [(0, 0), (5, 0)], [(0, float("inf")), (5, 1)]]
)
def test_traces_that_cannot_be(rows: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="trace"):
        traced(rows, seconds=60, peak_rps=10)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column requests_per_s and no column time_s"),
        ("time_s,rate\n0,1\n", "no column requests_per_s"),
        ("time_s,requests_per_s\n0,1\n1,many\n", "line 3 has no two numbers"),
        ("time_s,requests_per_s\n0\n", "line 2 has no two numbers"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_trace(file)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("time_s,more,requests_per_s\n0,x,1.5\n600,y,2\n")
    assert read_trace(file) == [(0, 1.5), (600, 2)]
