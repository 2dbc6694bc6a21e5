"""What a run's figures say, and when they aren't good enough."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from loadtests.cli import app
from loadtests.expected import FIELDS, wrong_with
from loadtests.figures import (
    Request,
    Sent,
    breaches,
    by_second,
    figures,
    percentile,
    seconds_of,
    table,
)
from loadtests.questions import QUESTIONS
from switchboard.errors import SwitchboardError

TIMES = st.lists(st.floats(0, 100), min_size=1, max_size=200).map(sorted)


@given(TIMES, st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(
    ordered: list[float], percent: float
) -> None:
    found = percentile(ordered, percent)
    assert found in ordered
    assert sum(value <= found for value in ordered) * 100 >= percent * len(ordered) - 1e-9
    assert percentile(ordered, 100) == ordered[-1]


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentiles_of_a_hundred(percent: float, value: float) -> None:
    assert percentile([float(one) for one in range(1, 101)], percent) == value


def test_figures_of_a_run() -> None:
    requests = [
        *(Request(second + part / 10, 0.010, None) for second in range(3) for part in range(10)),
        Request(3.0, 0.010, "503 overloaded"),
        Request(4.0, 0.400, None),
    ]
    found = figures(requests, 5.0)
    assert (found.total, found.failed, found.rate_rps) == (32, 1, 6.4)
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (10, 400, 400)
    assert (found.seconds, found.seconds_within_level) == (5, 3)
    assert found.failures == {"503 overloaded": 1}
    assert dict(table(found))["failed"] == "1"


def test_each_second_is_counted() -> None:
    requests = [
        Request(10.1, 0.01, None),
        Request(10.9, 0.31, None),
        Request(12.5, 0.01, "503"),
    ]
    assert by_second(requests) == [(10, 2, 1, 0), (12, 1, 0, 1)]
    assert figures(requests, 3.0).first_s == 10.1
    assert by_second([]) == []


def test_a_run_without_requests_has_no_times() -> None:
    found = figures([], 5.0)
    assert (found.total, found.p99_ms) == (0, None)
    assert breaches(found, max_failed=0, p99_s=0.3) == ["no request was made"]
    assert dict(table(found))


@pytest.mark.parametrize(
    ("failed", "seconds", "max_failed", "p99_s", "broken"),
    [
        (0, 0.1, 0, 0.3, 0),
        (1, 0.1, 0, 0.3, 1),
        (1, 0.1, 1, 0.3, 0),
        (0, 0.5, 0, 0.3, 1),
        (0, 0.5, 0, None, 0),
        (5, 0.5, 0, 0.3, 2),
        (0, 0.3, 0, 0.3, 0),
    ],
)
def test_breaches(failed: int, seconds: float, max_failed: int, p99_s: float | None, broken: int) -> None:
    requests = [Request(0.0, seconds, "no" if number < failed else None) for number in range(100)]
    assert len(breaches(figures(requests, 1.0), max_failed=max_failed, p99_s=p99_s)) == broken


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("60s", 60), ("5m", 300), ("1.5h", 5400), ("2", 2), (" 1s ", 1)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "0s", "-1s", "1d", "1 s", "1e9s", "nan", "inf", "٣s"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds_of(text)


def test_what_was_due_and_how_late_it_was_sent() -> None:
    late = [Request(float(number), 0.01, None, late_s=number / 1000) for number in range(1, 101)]
    found = figures([*late, Request(101.0, 0.2, None, first="503")], 101.0, Sent(105, 3), 0.5)
    assert (found.offered, found.dropped, found.total, found.retried) == (105, 3, 101, 1)
    assert (found.late_p50_ms, found.late_p99_ms, found.late_max_ms) == (50, 99, 100)
    assert found.began_s == 0.5
    assert dict(table(found))["failed at the first try"] == "1"


def test_of_several_processes_all_was_due() -> None:
    assert Sent.of_all([Sent(5, 1), Sent(7, 0)]) == Sent(12, 1)
    assert Sent.of_all([]) == Sent(0, 0)


@pytest.mark.parametrize(
    ("arguments", "requests", "minutes"),
    [
        ([], 29_956, None),
        (["--failures", "2", "--rate", "100"], 62_956, 62_956 / 6000),
        (["--availability", "0.999", "--confidence", "0.99"], 4_603, None),
    ],
)
def test_how_long_a_claim_takes(arguments: list[str], requests: int, minutes: float | None) -> None:
    told = CliRunner().invoke(app, ["plan", *arguments, "--output", "json"], catch_exceptions=False)
    found = json.loads(told.stdout)
    assert (found["requests"], found["minutes"]) == (requests, minutes)
    words = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False).stdout
    assert f"{requests:,} requests" in words
    assert ("min" in words) == (minutes is not None)


def test_nearly_all_is_not_all() -> None:
    arguments = ["plan", "--availability", "0.99999999999"]
    assert "99.999999999 %" in CliRunner().invoke(app, arguments, catch_exceptions=False).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--availability", "1"],
        ["--availability", "0"],
        ["--confidence", "1"],
        ["--confidence", "0"],
        ["--rate", "inf"],
    ],
)
def test_claims_that_cannot_be(arguments: list[str]) -> None:
    with pytest.raises(SwitchboardError, match="can't be"):
        CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)


GOOD = {
    "intent": "greeting",
    "confidence": 0.9,
    "answer": "Hello!",
    "language": "en",
    "model_version": "1",
    "handover": False,
}


def test_a_right_answer_has_nothing_wrong() -> None:
    assert wrong_with(GOOD, "en") is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        *({name: value for name, value in GOOD.items() if name != missing} for missing in FIELDS),
        GOOD | {"answer": " "},
        GOOD | {"answer": 1},
        GOOD | {"language": "zh"},
        GOOD | {"confidence": "high"},
    ],
)
def test_a_wrong_answer_is_seen(answer: object) -> None:
    assert wrong_with(answer, "en")


def test_there_are_questions_in_both_languages() -> None:
    assert set(QUESTIONS) == {"en", "zh"}
    assert all(len(set(questions)) == len(questions) >= 10 for questions in QUESTIONS.values())
