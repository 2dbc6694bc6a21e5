"""What gateways count, by recordings of real ones (`tests/serving/gateway/test_statistics.py` asks them live)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard import gateway_stats
from switchboard.gateway_stats import Counters, Key, parse

RECORDED = Path(__file__).with_name("recorded")


def recorded(name: str) -> str:
    return (RECORDED / f"gateway-{name}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 7 requests wait for the first replica.
        pytest.param("core-held", {("chat", "core"): Counters(arrivals=7, queued=7)}, id="held"),
        # All that there is, not what `PATH` asks for. 87 requests: 7 were held, then one of two replicas answered with
        # 503 and the other one was killed. Envoy sent 121 times, got no connection 120 times and tried again 147 times.
        pytest.param("core", {("chat", "core"): Counters(arrivals=87, retries=147)}, id="a core gateway"),
        # 47 requests: 7 were held, 20 went to the core, and 20 to the edge, since the core's replica was killed.
        pytest.param(
            "edge",
            {("chat", "core"): Counters(arrivals=47, retries=3), ("chat", "edge"): Counters(arrivals=20)},
            id="an edge gateway",
        ),
    ],
)
def test_recordings(name: str, expected: dict[Key, Counters]) -> None:
    assert parse(recorded(name)) == expected
    assert parse(recorded(name).encode()) == expected


def changed(name: str, series: str, value: str) -> str:
    """A recording in which a series of a cluster's has another value."""
    metric, cluster = series.split("|")
    text, count = re.subn(
        rf'^(envoy_{metric}\{{[a-z_]+="{cluster}"\}}) \d+$',
        rf"\1 {value}",
        recorded(name),
        flags=re.MULTILINE,
    )
    assert count == 1
    return text


@pytest.mark.parametrize(
    ("series", "key", "expected"),
    [
        ("cluster_upstream_cx_none_healthy|chat", "core", {"refused": 5}),
        ("cluster_upstream_rq_pending_overflow|chat@core", "core", {"refused": 5}),
        ("cluster_upstream_rq_active_overflow|chat@activator", "core", {"refused": 5}),
        ("cluster_upstream_rq_pending_overflow|chat@edge", "edge", {"refused": 5, "arrivals": 25}),
        ("cluster_upstream_rq_active|chat@core", "core", {"in_service": 5}),
        ("cluster_upstream_rq_active|chat@edge", "edge", {"in_service": 5}),
        ("cluster_upstream_rq_active|chat@activator", "core", {"queued": 5}),
        ("cluster_upstream_rq_pending_active|chat@core", "core", {"queued": 5}),
        ("cluster_upstream_rq_pending_active|chat@edge", "edge", {"queued": 5}),
    ],
)
def test_what_each_series_is_for(series: str, key: str, expected: dict[str, float]) -> None:
    found = parse(changed("edge", series, "5"))["chat", "edge" if key == "edge" else "core"]
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "1e3", "9" * 16, "", "x", "0x7"])
@pytest.mark.parametrize("series", ["http_local_rate_limit_enabled|chat", "cluster_upstream_rq_active|chat"])
def test_a_value_that_can_not_be_makes_the_service_unknown(series: str, value: str) -> None:
    assert parse(changed("core", series, value)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(recorded("edge").rpartition("# TYPE")[0], "cut off", id="a part is missing"),
        pytest.param(recorded("edge")[:-2], "within a line", id="in mid-line"),
        pytest.param("x" * (gateway_stats.MAX_BYTES + 1), "bytes", id="too long"),
    ],
)
def test_what_is_not_whole_is_no_reading(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text", ["", "\n", "<html>no</html>\n", "# TYPE envoy_cluster_upstream_rq_total counter\n"]
)
def test_no_service_no_counters(text: str) -> None:
    assert parse(text) == {}


@given(st.integers(0, len(recorded("edge"))))
def test_a_text_that_is_cut_off_never_says_too_little(length: int) -> None:
    whole = parse(recorded("edge"))
    try:
        part = parse(recorded("edge")[:length])
    except ValueError:
        return
    assert part == {} or part == whole or set(part) < set(whole)


@given(st.text() | st.binary())
def test_garbage(text: str | bytes) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert found == {}


@given(
    st.lists(
        st.sampled_from(recorded("edge").splitlines(keepends=True))
        | st.text(max_size=40).map(lambda one: one + "\n")
    )
)
def test_garbage_that_looks_real(lines: list[str]) -> None:
    try:
        found = parse("".join(lines))
    except ValueError:
        return
    for one in found.values():
        assert all(
            value >= 0 for value in (one.arrivals, one.retries, one.refused, one.in_service, one.queued)
        )
