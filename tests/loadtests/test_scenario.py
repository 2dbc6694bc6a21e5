"""Scenarios' files: those that come with Switchboard, and what is wrong with one, said in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.profile import Span
from loadtests.scenario import Users, load, names, quantile
from switchboard.errors import SwitchboardError


@pytest.mark.parametrize("name", names())
def test_those_that_come_with_switchboard_can_prove_what_they_claim(name: str) -> None:
    found = load(name)
    assert found.summary.endswith(".")
    assert found.profile.requests() > 0
    assert found.held(20.0)


def test_there_are_those_that_are_promised() -> None:
    assert {"smoke", "peak-5x", "spike", "soak", "trace", "canary", "faults", "voice"} <= set(names())


GOOD: dict[str, Any] = {
    "summary": "A test.",
    "users": {"chat": 3, "edge": 1},
    "load": [{"rate": 20, "for": "60s"}, {"rate": 100, "over": "1m", "for": "5m"}],
    "claims": {"availability": 0.999, "latency": {"p99": "300ms"}},
}


def written(folder: Path, **changes: Any) -> str:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return str(file)


def test_one_of_the_users_own(tmp_path: Path) -> None:
    found = load(written(tmp_path))
    assert found.users == {Users.CHAT: 3, Users.EDGE: 1}
    assert found.profile.points == ((0, 20), (60, 20), (120, 100), (420, 100))
    assert found.claims.latency == {"p99": 0.3}


def test_the_rate_is_held_when_its_last_change_is_settled(tmp_path: Path) -> None:
    """15 s until the decision, 20 s until the replicas of that are there."""
    found = load(written(tmp_path))
    assert found.held(20.0) == [Span(0, 60), Span(155, 420)]
    assert found.held(1000.0) == [Span(0, 60)]


def test_a_trace_is_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,requests_per_s\n0,1\n600,2\n")
    claims = {"availability": 0.999}
    found = load(written(tmp_path, load={"file": "t.csv", "length": "10m", "peak": 40}, claims=claims))
    assert found.profile.points == ((0, 20), (600, 40))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"laod": []}, "laod is no key of a scenario"),
        ({"load": [{"rate": 20, "fro": "60s"}]}, "fro is no key of a scenario"),
        ({"load": []}, "load"),
        ({"load": [{"rate": 20}]}, "a stage lasts"),
        ({"load": [{"rate": -1, "for": "60s"}]}, "load.0.rate"),
        ({"load": [{"rate": 0, "for": "60s"}]}, "without a request"),
        ({"load": [{"rate": 20, "for": "soon"}]}, "'soon' is no time"),
        ({"load": {"file": "away.csv", "length": "10m", "peak": 40}}, "the trace .*away.csv: No such file"),
        ({"users": {"robots": 1}}, "users"),
        ({"users": {}}, "users"),
        ({"users": {"chat": 0}}, "users.chat"),
        ({"claims": {"latency": {"fast": "300ms"}}}, "'fast' is no quantile"),
        ({"claims": {"latency": {"p100": "300ms"}}}, "'p100' is no quantile"),
        ({"claims": {"availability": 1.0}}, "claims.availability"),
        (
            {"claims": {"availability": 0.99999}},
            "34,800 requests can't prove an availability of 0.99999: see",
        ),
        ({"claims": {"latency": {"p99.999": "1s"}}}, "can't prove a p99.999"),
        ({"claims": {"outOfLevel": "7m"}}, "outOfLevel: of 420 s no more than 420 can be"),
        ({"claims": {"capacity": 6}}, "capacity: 100 requests/s are held, and 6× 20 is more"),
        (
            {"load": [{"rate": 10, "over": "60s", "for": "5m"}], "claims": {"capacity": 2}},
            "capacity: the first stage has no rate",
        ),
        (
            {"load": [{"rate": 1, "for": "60s"}, {"rate": 5, "for": "60s"}], "claims": {"capacity": 5}},
            "capacity: 225 requests while that rate is held can't prove it",
        ),
        ({"load": [{"rate": 9999, "for": "1h"}]}, "35,996,400 requests are more than a run may have"),
        ({"summary": ""}, "summary"),
        ({"faults": ["kill-cat"]}, "faults.0: Input should be 'kill-pod'"),
        ({"faults": ["kill-pod"] * 10}, "its faults take 630 s, and its load 420 s"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as raised:
        load(written(tmp_path, **changes))
    assert "\n" not in str(raised.value)


def test_a_multiple_is_one_whatever_floats_say(tmp_path: Path) -> None:
    stages = [{"rate": 3, "for": "5m"}, {"rate": 3.3, "for": "5m"}]
    assert load(written(tmp_path, load=stages, claims={"capacity": 1.1})).claims.capacity == 1.1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("summary: 2024-13-45", "is no YAML: month must be in 1..12", id="no date"),
        pytest.param("summary: !!bool maybe", "is no YAML", id="no bool"),
        pytest.param('summary: !!int ""', "is no YAML", id="no number"),
        pytest.param("summary: !!timestamp some", "is no YAML", id="no time"),
        pytest.param("summary: " + "9" * 5000, "is no YAML: Exceeds the limit", id="a number without end"),
        pytest.param("[" * 50_000, "is no YAML", id="deep"),
        pytest.param("# " + "x" * 200_000, "is longer than 200,000 characters", id="long"),
        pytest.param("summary: [", "is no YAML", id="broken"),
        pytest.param("7", "is no mapping", id="a number"),
    ],
)
def test_what_is_no_scenario_is_said_in_a_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(SwitchboardError, match=says) as raised:
        load(str(file))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("0,1\nnan,2\n", "must be finite", id="no time"),
        pytest.param("0,1\n600,inf\n", "must be finite", id="no rate"),
        pytest.param("0,1\n600," + "9" * 200_000 + "\n", "it is no CSV", id="a field without end"),
        pytest.param("0,1\n600\n", "line 3 has no two numbers", id="half a row"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said_in_a_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text("time_s,requests_per_s\n" + text)
    with pytest.raises(SwitchboardError, match=says) as raised:
        load(written(tmp_path, load={"file": "t.csv", "length": "10m", "peak": 40}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "is no mapping"),
        ("a: [", "is no YAML"),
        ("", "is no mapping"),
        (b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str | bytes, says: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SwitchboardError, match=says):
        load(str(file))


@pytest.mark.parametrize("name", ["nothing", "./nothing.yaml", "../chat"])
def test_one_that_is_not_there(name: str) -> None:
    with pytest.raises(SwitchboardError, match="there is no scenario") as raised:
        load(name)
    assert "peak-5x" in str(raised.value)


@pytest.mark.parametrize(("name", "share"), [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)])
def test_quantiles(name: str, share: float) -> None:
    assert quantile(name) == pytest.approx(share)


@pytest.mark.parametrize("name", ["", "p", "99", "p0", "p100", "pnan", "p-5", "q99"])
def test_no_quantiles(name: str) -> None:
    with pytest.raises(ValueError, match="is no quantile"):
        quantile(name)
