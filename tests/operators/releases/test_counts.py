"""Blocks of counts from what Prometheus says: hand-worked cases of counters, gaps, starts and losses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.canary.values import NO_POD, Block, Count
from operators.releases.counts import BLOCK_S, GROWN_BYTES, Blocks, Look, query, read, unseen

MIB = 1024 * 1024
OLD = {"new-1": 0.0, "old-1": 0.0}
"""Both have been warm for ever."""


def look(
    at: float,
    *,
    new: dict[str, float] | None = None,
    old: dict[str, float] | None = None,
    gateways: dict[str, dict[str, float]] | None = None,
) -> Look:
    usual = {"requests": at, "started": 5.0, "memory": 100.0 * MIB}
    usual |= dict.fromkeys(("failed", "slow", "handoff", "fallback"), 0.0)
    pods = {
        ("chat_candidate", "new-1"): {**usual, **(new or {})},
        ("chat", "old-1"): {**usual, **(old or {})},
    }
    return Look(at, pods, {(fleet, "gateway-1"): one for fleet, one in (gateways or {}).items()})


def after(*looks: Look, warm: dict[str, float] | None = None, shadow: bool = True) -> list[Block]:
    blocks = Blocks("chat_candidate", "chat", shadow=shadow)
    found = (blocks.add(one, OLD if warm is None else warm) for one in looks)
    return [one for one in found if one is not None]


def test_what_came_between_two_looks() -> None:
    (block,) = after(
        look(0, new={"handoff": 2, "slow": 1}),
        look(10, new={"requests": 30, "failed": 3, "handoff": 7, "slow": 1}),
    )
    assert (block.start_s, block.end_s) == (0, 10)
    assert block.candidate["failed"] == {"new-1": Count(3, 30)}
    assert block.candidate["handoff"] == {"new-1": Count(5, 30)}
    assert block.candidate["slow"] == {"new-1": Count(0, 30)}
    assert block.candidate["restarts"] == {"new-1": Count(0, 10 / 3600)}
    assert block.champion["failed"] == {"old-1": Count(0, 10)}


def test_a_process_that_begins_anew() -> None:
    (block,) = after(
        look(0, new={"requests": 500, "failed": 9}), look(10, new={"requests": 20, "failed": 1, "started": 8})
    )
    assert block.candidate["failed"] == {"new-1": Count(1, 20)}
    assert block.candidate["restarts"]["new-1"].events == 1


@pytest.mark.parametrize(("ready", "blocks"), [(0.0, 2), (5.0, 1), (20.0, 0), (None, 0)])
def test_a_pod_counts_from_when_it_is_warm(ready: float | None, blocks: int) -> None:
    warm = {"old-1": 0.0} | ({} if ready is None else {"new-1": ready})
    found = after(look(0), look(10), look(20), warm=warm)
    assert sum("failed" in one.candidate for one in found) == blocks
    assert all("failed" in one.champion for one in found)


def test_a_gap_is_no_block() -> None:
    found = after(look(0), look(10), look(60), look(70))
    assert [(one.start_s, one.end_s) for one in found] == [(0, 10), (60, 70)]


def test_a_pod_that_is_gone_for_a_look_is_no_zero() -> None:
    blocks = Blocks("chat_candidate", "chat")
    blocks.add(look(0), OLD)
    blocks.add(Look(10, {("chat", "old-1"): {"requests": 20.0}}), OLD)
    block = blocks.add(look(20, new={"requests": 900}), OLD)
    assert block is not None
    assert "failed" not in block.candidate, "what came in two blocks isn't taken for one's"


def test_what_failed_is_known_to_gateways() -> None:
    """Spread over the arm's replicas as their requests are; how those differ is in their own counts."""
    first = {"arrived": 100.0, "repeated": 5.0}
    then = {"arrived": 160.0, "repeated": 11.0, "refused": 3.0}
    (block,) = after(
        look(0, gateways={"chat_candidate": first, "chat": {"arrived": 0.0}}),
        look(
            10,
            new={"failed": 2},
            old={"failed": 1},
            gateways={"chat_candidate": then, "chat": {"arrived": 90.0}},
        ),
        shadow=False,
    )
    assert block.candidate["failed"] == {"new-1": Count(9, 60)}
    assert block.champion["failed"] == {"old-1": Count(0, 90)}
    assert block.noise["failed"] == {"old-1": Count(1, 10)}


def test_an_arm_without_a_living_replica_has_failed_too() -> None:
    blocks = Blocks("chat_candidate", "chat")
    for at, repeated in ((0, 0.0), (10, 40.0)):
        pods = {("chat", "old-1"): {"requests": float(at)}}
        known = {("chat_candidate", "gateway-1"): {"arrived": 40.0 + repeated, "repeated": repeated}}
        block = blocks.add(Look(at, pods, known), OLD)
    assert block is not None
    assert block.candidate["failed"] == {NO_POD: Count(40, 40)}


@pytest.mark.parametrize(
    ("repeated", "events"),
    [
        ((5.0, 6.0, 8.0), 3),
        ((500.0, 2.0, 3.0), 3),  # a gateway that began anew
        ((None, 7.0, 8.0), 1),  # one that is seen for the first time
        ((0.0, None, 8.0), 0),  # one that couldn't be scraped: what came in two blocks isn't taken for one's
    ],
)
def test_what_gateways_count(repeated: tuple[float | None, ...], events: int) -> None:
    looks = [
        look(
            number * 10,
            gateways={}
            if value is None
            else {"chat_candidate": {"arrived": number * 50.0, "repeated": value}},
        )
        for number, value in enumerate(repeated)
    ]
    blocks = after(*looks, shadow=False)
    found = [one.events for block in blocks for one in block.candidate.get("failed", {}).values()]
    assert sum(found) == events


def test_without_gateways_nothing_is_known_of_what_failed_for_customers() -> None:
    """Replicas know too little of it: one that was killed has counted nothing."""
    looks = [look(0), look(10, new={"failed": 2})]
    (mirrored,), (customers,) = after(*looks), after(*looks, shadow=False)
    assert mirrored.candidate["failed"] == {"new-1": Count(2, 10)}
    assert "failed" not in customers.candidate and "failed" not in customers.champion
    assert customers.candidate["slow"] == {"new-1": Count(0, 10)}
    assert customers.noise["failed"] == {"old-1": Count(0, 10)}, (
        "how the champion's pods differ is in their own"
    )
    assert unseen(looks, "chat") == ("failed",)
    assert unseen([look(0, gateways={"chat": {"arrived": 3.0}})], "chat") == ()


@pytest.mark.parametrize(
    ("gone", "unknown"),
    [
        ("requests", {"failed", "handoff", "slow", "fallback"}),
        ("slow", {"slow"}),
        ("fallback", {"fallback"}),
        ("handoff", set()),
        ("failed", set()),
        ("started", {"restarts"}),
        ("memory", {"grew"}),
    ],
)
def test_what_isnt_there_is_no_zero(gone: str, unknown: set[str]) -> None:
    """But for the labels of requests that never came."""
    looks = [look(at, new={"requests": 9.0 * at}) for at in (0, 10, 20)]
    for one in looks:
        for signals in one.pods.values():
            signals.pop(gone, None)  # type: ignore[attr-defined]
    whole = {"failed", "slow", "handoff", "fallback", "restarts", "grew"}
    found = {name for block in after(*looks) for name, pods in block.candidate.items() if pods}
    assert found == whole - unknown
    said = (
        {"failed", "handoff"} if gone == "requests" else {"failed", *unknown}
    )  # and no gateway says anything
    assert set(unseen(looks, "chat_candidate")) == said
    assert set(unseen(looks, "another")) == whole


def test_memory_is_looked_at_in_windows() -> None:
    grown = [
        look(at, new={"memory": 100 * MIB + at / 20 * (GROWN_BYTES + 1)}) for at in range(0, 50, BLOCK_S)
    ]
    found = after(*grown)
    windows = [block for block in found if "grew" in block.candidate]
    assert [block.end_s for block in windows] == [20, 40]
    assert [block.candidate["grew"]["new-1"] for block in windows] == [Count(1, 1), Count(1, 1)]
    assert [block.champion["grew"]["old-1"] for block in windows] == [Count(0, 1), Count(0, 1)]


def test_memory_of_a_process_that_began_anew_says_nothing() -> None:
    looks = [look(at, new={"started": 5.0 if at < 15 else 15.0}) for at in range(0, 30, BLOCK_S)]
    assert not any("grew" in block.candidate for block in after(*looks))


def test_reading_an_answer() -> None:
    found = read(
        [
            {
                "metric": {"signal": "requests", "model_server": "chat", "pod": "a"},
                "values": [[10, "5"], [20, "NaN"], [30, "7"]],
            },
            {
                "metric": {"signal": "repeated", "envoy_cluster_name": "chat_candidate", "pod": "g"},
                "values": [[10, "3"]],
            },
            {
                "metric": {"signal": "arrived", "envoy_local_http_ratelimit_prefix": "chat", "pod": "g"},
                "values": [[10, "9"]],
            },
            {"metric": {}, "values": [[10, "3"]]},
            {
                "metric": {"signal": "requests", "model_server": "chat", "pod": "b"},
                "values": [["x"], [30, None]],
            },
        ]
    )
    assert [one.at for one in found] == [10, 30]
    assert found[0].pods == {("chat", "a"): {"requests": 5}}
    assert found[0].gateways == {("chat_candidate", "g"): {"repeated": 3}, ("chat", "g"): {"arrived": 9}}


def test_a_shadow_is_asked_for_by_its_own_counters() -> None:
    assert 'traffic="shadow"' in query(["chat_candidate", "chat_baseline"], shadow=True)
    assert "shadow" not in query(["chat_candidate", "chat"])


COUNTERS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans(), st.integers(0, 5)),
    min_size=1,
    max_size=20,
)


@given(COUNTERS)
def test_events_are_among_what_they_are_counted_of(steps: list[tuple[int, int, bool, int]]) -> None:
    blocks = Blocks("chat_candidate", "chat")
    requests = failed = lost = 0
    for number, (more, bad, anew, gone) in enumerate(steps):
        requests, failed = (more, min(more, bad)) if anew else (requests + more, failed + min(more, bad))
        lost += gone
        at = number * BLOCK_S
        new = {"requests": float(requests), "failed": float(failed)}
        known = {"chat_candidate": {"arrived": float(requests), "repeated": float(lost)}}
        block = blocks.add(look(at, new=new, gateways=known), OLD)
        for counts in (block.candidate if block else {}).values():
            assert all(0 <= one.events <= one.of or one.of == 0 for one in counts.values())
