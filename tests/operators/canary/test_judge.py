"""Verdicts on candidates: what is shown, what is excluded, what isn't known, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.canary.judge import MOST_PODS, SAFE_BOUND, Comparison, harm_bound, judge
from operators.canary.values import (
    ALPHA,
    METRICS,
    Block,
    Count,
    Kinds,
    Metric,
    Standing,
    Unit,
    Verdict,
    kind_name,
)

FAILED = Metric("failed", "requests failed", 1.0, 0.005)
SLOW = Metric("slow", "requests over the latency bound", 0.5, 0.01)


def block(
    candidate: Mapping[str, tuple[float, float]], champion: Mapping[str, tuple[float, float]], pods: int = 2
) -> Block:
    """Ten seconds; each arm's events and requests, by metric, are those of all its pods together."""

    def spread(arm: str, counts: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, Count]]:
        return {
            name: {f"{arm}-{number}": Count(events / pods, of / pods) for number in range(pods)}
            for name, (events, of) in counts.items()
        }

    return Block(0.0, 10.0, spread("candidate", candidate), spread("champion", champion))


def seen(*blocks: Block, metrics: tuple[Metric, ...] = (FAILED,)) -> Comparison:
    found = Comparison()
    for one in blocks:
        found = found.add(one, metrics)
    return found


BAD = block({"failed": (20, 1000)}, {"failed": (45, 9000)})
GOOD = block({"failed": (0, 1000)}, {"failed": (0, 9000)})
LITTLE = block({"failed": (0, 100)}, {"failed": (1, 900)})


@pytest.mark.parametrize(
    ("blocks", "over", "verdict", "says"),
    [
        (
            [BAD],
            False,
            Verdict.ABORT,
            "20 of 1,000 requests (2 %) against the champion's 45 of 9,000 requests (0.5 %)",
        ),
        ([GOOD], False, Verdict.PROMOTE, "harm beyond the margin is excluded on all 1 metrics"),
        ([LITTLE], False, Verdict.CONTINUE, "requests failed: a harm of 0.5 % is not excluded yet"),
        ([LITTLE], True, Verdict.INCONCLUSIVE, "requests failed: a harm of 0.5 % could not be excluded"),
        ([], False, Verdict.CONTINUE, "nothing is known yet of requests failed"),
        ([], True, Verdict.INCONCLUSIVE, "nothing is known of requests failed"),
        ([BAD], True, Verdict.ABORT, "in the same 10 s"),
    ],
)
def test_the_verdict_and_why(blocks: list[Block], over: bool, verdict: Verdict, says: str) -> None:
    found = judge(seen(*blocks), (FAILED,), over=over)
    assert (found.verdict, says in found.sentence) == (verdict, True), found.sentence


def test_one_metric_that_shows_harm_is_enough_and_one_that_is_not_known_is_too_much() -> None:
    both = (FAILED, SLOW)
    good = block({"failed": (0, 2000), "slow": (0, 2000)}, {"failed": (0, 18000), "slow": (0, 18000)})
    bad = block({"failed": (0, 2000), "slow": (200, 2000)}, {"failed": (0, 18000), "slow": (180, 18000)})
    silent = block({"failed": (0, 2000)}, {"failed": (0, 18000)})
    assert judge(seen(good, metrics=both), both).verdict is Verdict.PROMOTE
    found = judge(seen(bad, metrics=both), both)
    assert found.verdict is Verdict.ABORT and found.sentence.startswith("requests over the latency bound")
    found = judge(seen(silent, metrics=both), both)
    assert found.verdict is Verdict.CONTINUE and found.sentence == "nothing is known yet of " + SLOW.what
    assert judge(seen(silent, metrics=both), both, over=True).verdict is Verdict.INCONCLUSIVE


DISAGREED = Metric(
    "disagreed", "answers other", 0.2, 0.15, 0.1, kinds=Kinds(share=0.5, most=3, margin=0.5, tolerated=0.25)
)


def answers(**kinds: tuple[float, float]) -> Block:
    """Of each kind, the candidate's answers other than the champion's; the baseline answers as the champion does."""
    everything = (sum(one[0] for one in kinds.values()), sum(one[1] for one in kinds.values()))
    named = {"disagreed": everything, **{kind_name("disagreed", kind): one for kind, one in kinds.items()}}
    return block(named, {name: (0, of) for name, (_, of) in named.items()}, pods=1)


@pytest.mark.parametrize(
    ("kinds", "standing", "says"),
    [
        ({"cards": (0, 300), "rates": (0, 300)}, Standing.SAFE, "excluded"),
        ({"cards": (40, 40), "rates": (0, 560)}, Standing.HARMFUL, "answers other (cards): 40 of 40"),
        ({"cards": (3, 4), "rates": (0, 596)}, Standing.OPEN, "answers other (cards): a harm of 50 %"),
        ({"cards": (2, 2), "rates": (0, 598)}, Standing.SAFE, "excluded"),
        ({"cards": (60, 300), "rates": (20, 300)}, Standing.OPEN, "answers other: a harm of 15 %"),
        ({"cards": (250, 300), "rates": (250, 300)}, Standing.HARMFUL, "answers other: 500 of 600"),
    ],
    ids=["none", "one of many", "too few of one to say", "too few to matter", "a little of all", "all"],
)
def test_each_kind_of_request_counts_by_itself(
    kinds: dict[str, tuple[float, float]], standing: Standing, says: str
) -> None:
    judged = judge(seen(answers(**kinds), metrics=(DISAGREED,)), (DISAGREED,))
    (found,) = judged.findings
    assert (found.standing, says in judged.sentence) == (standing, True), judged.sentence
    if standing is not Standing.HARMFUL:
        assert found.candidate.of == 600, "what a status keeps is of all requests"


def test_kinds_share_what_there_is_to_spend() -> None:
    """The fourth has no part of it, however it comes."""
    first, more = answers(a=(0, 30), b=(0, 30), c=(0, 30)), answers(d=(30, 30), a=(0, 30))
    found = seen(first, more, metrics=(DISAGREED,))
    assert sorted(found.arms) == ["disagreed", "disagreed/a", "disagreed/b", "disagreed/c"]
    (part,) = {DISAGREED.of_kind(kind).share for kind in "abc"}
    assert 3 * part == pytest.approx(DISAGREED.share / 2)
    with pytest.raises(ValueError, match="failed is not judged by kinds"):
        FAILED.of_kind("cards")


@pytest.mark.parametrize(
    ("candidate", "champion"),
    [({"failed": (50, 100)}, {}), ({}, {"failed": (0, 900)}), ({"failed": (0, 0)}, {"failed": (9, 900)})],
    ids=["the champion is not seen", "the candidate is not seen", "nobody asks the candidate"],
)
def test_what_one_arm_did_alone_is_left_out(
    candidate: dict[str, tuple[float, float]], champion: dict[str, tuple[float, float]]
) -> None:
    before = seen(LITTLE)
    assert before.add(block(candidate, champion), (FAILED,)) == before


def test_how_the_champions_pods_differ_is_learned_before() -> None:
    """Three times the failures, on one pod: harm, unless the champion's own pods differ as much."""

    def before(*events: float) -> Comparison:
        pods = {f"champion-{number}": Count(one, 20_000.0) for number, one in enumerate(events)}
        return Comparison().before(Block(0.0, 1800.0, {}, {"failed": pods}), (FAILED,))

    worse = block({"failed": (30, 2000)}, {"failed": (90, 18_000)}, pods=1)
    alike, unlike = before(*[100.0] * 8), before(20, 30, 50, 80, 100, 150, 250, 400)
    assert judge(alike.add(worse, (FAILED,)), (FAILED,)).verdict is Verdict.ABORT
    assert judge(unlike.add(worse, (FAILED,)), (FAILED,)).verdict is Verdict.CONTINUE


counts = st.tuples(st.integers(0, 30), st.integers(0, 300)).map(lambda one: (min(one), max(one)))


@given(st.lists(st.tuples(counts, counts), max_size=8))
def test_no_counts_are_too_odd_for_a_verdict(pairs: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    found = seen(*(block({"failed": one}, {"failed": other}) for one, other in pairs))
    judged = judge(found, (FAILED,))
    finding = judged.findings[0]
    assert (judged.verdict is Verdict.ABORT) == (finding.log_harm >= harm_bound(FAILED))
    assert (judged.verdict is Verdict.PROMOTE) == (
        finding.standing is Standing.SAFE and finding.log_safe >= SAFE_BOUND
    )
    assert "nan" not in judged.sentence and judged.sentence


def test_pods_that_come_and_go_are_remembered_within_bounds() -> None:
    found = Comparison()
    for number in range(2 * MOST_PODS):
        pods = {f"p-{number}": Count(1, 100)}
        found = found.add(Block(0, 10, {"failed": pods}, {"failed": pods}), (FAILED,))
    arms = found.arms["failed"]
    assert len(arms.candidate) == len(arms.champion) == len(arms.noise) == MOST_PODS


def test_the_shares_are_all_there_is_to_spend() -> None:
    assert sum(one.share for one in METRICS) == pytest.approx(1.0)
    assert [one.name for one in METRICS if one.unit is not Unit.REQUESTS] == ["restarts", "grew"]
    assert ALPHA == 0.05


@pytest.mark.parametrize(
    ("share", "margin", "tolerated", "says"),
    [
        (0.0, 0.01, 0.0, "share 0"),
        (1.5, 0.01, 0.0, "share 1.5"),
        (0.5, 0.01, 0.02, "margin 0.01"),
        (0.5, 0.0, 0.0, "margin 0"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(
    share: float, margin: float, tolerated: float, says: str
) -> None:
    with pytest.raises(ValueError, match=f"failed: {says}"):
        Metric("failed", "requests failed", share, margin, tolerated)
