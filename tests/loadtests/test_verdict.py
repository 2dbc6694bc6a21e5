"""Verdicts: three answers to a claim, and a run that says nothing of anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loadtests.figures import Sent, figures
from loadtests.scenario import Claims, Scenario
from loadtests.verdict import (
    CODES,
    Answer,
    Finding,
    Outcome,
    Verdict,
    availability,
    capacity,
    judge,
    latency,
    out_of_level,
)
from switchboard.requests import Request

BEGUN = 1_800_000_000.0
QUICK, SLOW = 0.02, 0.5


def made(
    rates: list[tuple[int, int]],
    *,
    bad: Callable[[int, int], str | None] = lambda second, number: None,
    slow: Callable[[int, int], bool] = lambda second, number: False,
    late_s: float = 0.0,
) -> list[Request]:
    """Requests of (seconds, requests/s), one after the other; `bad` says why one failed."""
    found, second = [], 0
    for length, rate in rates:
        for _ in range(length):
            for number in range(rate):
                took = SLOW if slow(second, number) else QUICK
                at = BEGUN + second + number / max(1, rate)
                found.append(Request(at, took, bad(second, number), "1", "chat en", late_s))
            second += 1
    return found


def scenario(*stages: tuple[int, int], **claims: Any) -> Scenario:
    load = [{"rate": rate, "for": float(length)} for length, rate in stages]
    return Scenario.model_validate({"summary": "A test.", "load": load, "claims": claims})


def verdict(wanted: Scenario, requests: list[Request], sent: Sent | None = None, **more: Any) -> Verdict:
    return judge(wanted, requests, figures(requests, 1.0, sent), BEGUN, start_s=20.0, **more)


def once(second: int, *others: int) -> Callable[[int, int], str | None]:
    return lambda at, number: "503 overloaded" if number == 0 and at in (second, *others) else None


@pytest.mark.parametrize(
    ("seconds", "failed", "answer", "says"),
    [
        pytest.param(
            300, 0, Answer.HOLDS, "0 of 30,000 requests failed: at least 99.990 %", id="none of enough"
        ),
        pytest.param(299, 0, Answer.NOT_PROVEN, "it takes 29,956 with so many", id="none of too few"),
        pytest.param(300, 1, Answer.NOT_PROVEN, "it takes 47,437 with so many", id="one of too few"),
        pytest.param(480, 1, Answer.HOLDS, "1 of 48,000 requests failed", id="one of enough"),
        pytest.param(300, 12, Answer.REFUTED, "12 of 30,000 requests failed: at most 99.98", id="too many"),
    ],
)
def test_availability(seconds: int, failed: int, answer: Answer, says: str) -> None:
    bad = once(10, *(10 + 20 * number for number in range(1, failed))) if failed else once(-1)
    found = availability(made([(seconds, 100)], bad=bad), 0.9999, 0.95)
    assert found.answer is answer
    assert says in found.why


def test_requests_that_fail_together_prove_less() -> None:
    """Five of 105,130 prove it if they are apart; in one second they are one event, that may come again."""
    apart = once(100, 300, 500, 700, 900)
    together = made([(1060, 100)], bad=lambda at, number: "x" if at == 500 and number < 5 else None)
    assert availability(made([(1060, 100)], bad=apart), 0.9999, 0.95).answer is Answer.HOLDS
    found = availability(together, 0.9999, 0.95)
    assert found.answer is Answer.NOT_PROVEN
    assert "they failed together" in found.why


def test_one_bad_second_refutes_nothing() -> None:
    """Twenty of 97,000 are more than one in ten thousand; of one event in sixteen minutes nobody knows how often."""
    requests = made([(970, 100)], bad=lambda at, number: "x" if at == 500 and number < 20 else None)
    assert availability(requests, 0.9999, 0.95).answer is Answer.NOT_PROVEN
    assert availability(requests, 0.9999, 0.95).why.startswith("20 of 97,000 requests failed: at least 99.9")


def test_an_outage_refutes_what_it_spent_ten_times() -> None:
    """Twenty seconds of sixteen minutes, in which nobody had an answer."""
    requests = made([(970, 20)], bad=lambda at, number: "x" if 500 <= at < 520 else None)
    found = availability(requests, 0.9999, 0.95)
    assert found.answer is Answer.REFUTED
    assert found.why == (
        "400 of 19,400 requests failed together: more than 10 times what may, by one event that may come again"
    )


def test_what_is_lost_has_failed() -> None:
    """Sixty-two of which nobody knows: a thousandth, which makes no run invalid."""
    found = verdict(scenario((630, 100), availability=0.9999), made([(630, 100)]), Sent(63_062, 0))
    assert found.outcome is Outcome.NOT_PROVEN
    assert "62 of 63,062 requests failed (62 of them were due and weren't sent" in found.sentence


def test_a_fast_error_is_no_fast_answer() -> None:
    requests = made([(60, 100)], bad=lambda *_: "503")
    assert latency(requests, "p99", 0.3, CLAIMS).answer is Answer.REFUTED


CLAIMS = Claims(latency={"p99": 0.3})


@pytest.mark.parametrize(
    ("slow", "answer"),
    [
        (0, Answer.HOLDS),
        (4, Answer.HOLDS),
        (9, Answer.NOT_PROVEN),
        (11, Answer.NOT_PROVEN),
        (30, Answer.REFUTED),
    ],
)
def test_a_quantile_is_a_share(slow: int, answer: Answer) -> None:
    requests = made([(10, 100)], slow=lambda second, number: second * 100 + number < slow)
    assert latency(requests, "p99", 0.3, CLAIMS).answer is answer


def test_latency_counts_while_the_rate_is_held() -> None:
    """The minute after a step is slow, up to 15 s and a replica's start."""
    wanted = scenario((60, 20), (100, 100), latency={"p99": "300ms"})
    steps = made([(60, 20), (100, 100)], slow=lambda second, _: 60 <= second < 95)
    assert verdict(wanted, steps).outcome is Outcome.PASSED
    later = made([(60, 20), (100, 100)], slow=lambda second, _: 60 <= second < 99)
    assert verdict(wanted, later).outcome is Outcome.FAILED


def test_a_rate_that_was_never_held_proves_nothing() -> None:
    assert latency([], "p99", 0.3, CLAIMS).answer is Answer.NOT_PROVEN


@pytest.mark.parametrize(("bad", "answer"), [(3, Answer.HOLDS), (4, Answer.REFUTED)])
def test_seconds_out_of_level(bad: int, answer: Answer) -> None:
    requests = made([(60, 50)], slow=lambda second, number: second < bad and number == 0)
    found = out_of_level(requests, 3)
    assert found.answer is answer
    assert found.why.startswith(f"{bad} of 60 s were")


def test_capacity_is_the_highest_rate_that_was_held() -> None:
    wanted = scenario((60, 20), (100, 100), (100, 140), capacity=5)
    rates = [(60, 20), (100, 100), (100, 140)]
    good = capacity(wanted, made(rates), BEGUN, 20.0)
    assert (good.answer, good.bound) == (Answer.HOLDS, 7)
    overrun = capacity(wanted, made(rates, slow=lambda second, n: second >= 160 and n < 5), BEGUN, 20.0)
    assert (overrun.answer, overrun.bound) == (Answer.HOLDS, 5)
    small = capacity(wanted, made(rates, slow=lambda second, n: second >= 60 and n < 5), BEGUN, 20.0)
    assert (small.answer, small.bound) == (Answer.REFUTED, 1)


@pytest.mark.parametrize(
    ("rates", "slow", "answer", "bound"),
    [
        pytest.param([(60, 20), (40, 100)], 0, Answer.NOT_PROVEN, 0, id="ended before it was held for long"),
        pytest.param([(40, 20)], 0, Answer.NOT_PROVEN, 0, id="ended before it came"),
        pytest.param([(60, 20), (100, 60), (100, 20)], 0, Answer.NOT_PROVEN, 1, id="less was sent"),
        pytest.param(
            [(60, 20), (100, 100), (100, 20), (100, 100)], 260, Answer.REFUTED, 1, id="held only once"
        ),
        pytest.param(
            [(60, 20), (100, 100), (100, 20), (100, 100)], 999, Answer.HOLDS, 5, id="held both times"
        ),
    ],
)
def test_capacity_by_all_that_was_seen_of_a_rate(
    rates: list[tuple[int, int]], slow: int, answer: Answer, bound: float
) -> None:
    """`slow`: from that second on one in twenty is, of the second time."""
    wanted = scenario((60, 20), (100, 100), (100, 20), (100, 100), capacity=5)
    requests = made(rates, slow=lambda second, number: second >= (slow or 999) and number < 5)
    found = capacity(wanted, requests, BEGUN, 20.0)
    assert (found.answer, found.bound) == (answer, bound)


@pytest.mark.parametrize("start_s", [5.0, 8.0, 9.0, 12.0])
def test_what_a_start_leaves_of_a_stage_says_nothing(start_s: float) -> None:
    stages = [(60, 20), (300, 100), (60, 20), (25, 100), (60, 20)]
    found = capacity(scenario(*stages, capacity=5), made(stages), BEGUN, start_s)
    assert (found.answer, found.bound) == (Answer.HOLDS, 5)


def test_a_run_that_holds() -> None:
    found = verdict(scenario((300, 100), availability=0.9999, latency={"p99": "300ms"}), made([(300, 100)]))
    assert found.outcome is Outcome.PASSED
    assert CODES[found.outcome] == 0
    assert found.sentence.startswith("all 2 claims hold; availability ≥ 99.99 %: 0 of 30,000 requests failed")


HOLDS = scenario((300, 100), availability=0.9999)


@pytest.mark.parametrize(
    ("requests", "sent", "more", "outcome", "says"),
    [
        pytest.param(
            made([(300, 100)], late_s=0.2),
            None,
            {},
            Outcome.INVALID,
            "the generator was late: by 200 ms",
            id="late",
        ),
        pytest.param(
            made([(300, 100)]),
            Sent(30_100, 100),
            {},
            Outcome.INVALID,
            "100 of 30,100 requests that were due weren't sent",
            id="dropped",
        ),
        pytest.param([], Sent(0, 0), {}, Outcome.INVALID, "no request was made", id="nothing"),
        pytest.param(made([(100, 100)]), None, {}, Outcome.INVALID, "the run was cut short", id="half of it"),
        pytest.param(
            made([(100, 100)]),
            None,
            {"partial": True},
            Outcome.NOT_PROVEN,
            "isn't proven",
            id="ended by hand",
        ),
        pytest.param(
            made([(300, 100)]),
            None,
            {"partial": True},
            Outcome.NOT_PROVEN,
            "ended before its time",
            id="ended by hand, late",
        ),
        pytest.param(
            made([(300, 100)]),
            None,
            {"more": [Finding(claim="a killed pod", answer=Answer.REFUTED, why="3 failed")]},
            Outcome.FAILED,
            "a killed pod is refuted: 3 failed",
            id="a fault",
        ),
        pytest.param(
            made([(300, 100)], bad=lambda second, number: "x" if number < 50 else None),
            None,
            {},
            Outcome.FAILED,
            "availability ≥ 99.99 % is refuted: 15,000 of 30,000 requests failed",
            id="half of all failed",
        ),
    ],
)
def test_what_a_run_comes_to(
    requests: list[Request], sent: Sent | None, more: dict[str, Any], outcome: Outcome, says: str
) -> None:
    found = verdict(HOLDS, requests, sent, **more)
    assert found.outcome is outcome
    assert says in found.sentence


def test_without_a_claim_nothing_is_proven() -> None:
    found = verdict(scenario((60, 100)), made([(60, 100)]))
    assert (found.outcome, found.sentence) == (Outcome.NOT_PROVEN, "nothing was claimed")


def test_an_invalid_run_never_passes_or_fails_whatever_was_answered() -> None:
    found = verdict(HOLDS, made([(300, 100)], bad=lambda *_: "x", late_s=1.0))
    assert found.outcome is Outcome.INVALID
    assert CODES[found.outcome] == 3
