"""The series that the README promises, in the words of the exposition format, with the values that were told."""

from __future__ import annotations

import math

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from operators.metrics import Metrics
from operators.servers.registry import Registry
from operators.signals.values import Seen, Traffic
from tests.operators.servers.build import (
    NOW,
    UNMEASURED,
    asks,
    decided,
    deployment,
    pods,
    seen,
    server,
)

Series = dict[tuple[str, tuple[str, ...]], float]
OURS = "switchboard_operator_"


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def metrics(registry: Registry) -> Metrics:
    """Those of a leader."""
    made = Metrics(registry)
    made.leads.set(True)
    return made


def exposed(metrics: Metrics) -> Series:
    """Our samples by name (without what all have in common) and values of labels, as a scrape has them."""
    return {
        (sample.name.removeprefix(OURS), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
        if sample.name.startswith(OURS)
    }


def test_every_series_has_a_type_and_a_help(metrics: Metrics) -> None:
    families = {
        one.name.removeprefix(OURS): one
        for one in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        if one.name.startswith(OURS) and not one.name.endswith("_created")
    }
    assert {name: one.type for name, one in families.items()} == {
        "leader": "gauge",
        "look_seconds": "histogram",
        "decide_seconds": "histogram",
        "data_age_seconds": "gauge",
        "source": "gauge",
        "desired_replicas": "gauge",
        "ready_replicas": "gauge",
        "start_seconds": "gauge",
        "replica_requests_per_second": "gauge",
        "decisions": "counter",
        "signal_problems": "counter",
        "failed_ticks": "counter",
        "writes": "counter",
    }
    assert all(one.documentation for one in families.values())


def test_a_tick_tells_how_long_it_took_and_how_old_its_data_are(metrics: Metrics) -> None:
    metrics.ticked(Seen(NOW, "prometheus", age_s=1.5), 0.02, 0.001)
    metrics.ticked(Seen(NOW, "gateways", age_s=0.5), 0.3, 0.003)
    found = exposed(metrics)
    assert found["look_seconds_count", ()] == found["decide_seconds_count", ()] == 2
    assert found["look_seconds_sum", ()] == pytest.approx(0.32)
    assert found["decide_seconds_sum", ()] == pytest.approx(0.004)
    assert [found["look_seconds_bucket", (le,)] for le in ("0.01", "0.025", "0.5", "+Inf")] == [0, 1, 2, 2]
    assert found["data_age_seconds", ()] == 0.5
    assert [found["source", (one,)] for one in ("prometheus", "gateways", "nobody")] == [0, 1, 0]

    metrics.ticked(Seen(NOW, "nobody"), 1.5, 0.001)
    found = exposed(metrics)
    assert math.isnan(found["data_age_seconds", ()]), "nothing is known: no age is small enough for that"
    assert [found["source", (one,)] for one in ("prometheus", "gateways", "nobody")] == [0, 0, 1]
    assert [one.source for one in metrics.ticks] == ["prometheus", "gateways", "nobody"]


@pytest.mark.parametrize(
    ("found", "direction", "reason"),
    [
        pytest.param(asks(9), "up", "in-flight", id="up"),
        pytest.param(asks(2), "down", "in-flight", id="down"),
        pytest.param(asks(5), "none", "in-flight", id="a no-op counts, too"),
        pytest.param(asks(None), "none", "unknown", id="nothing is known"),
    ],
)
def test_decisions_count_by_direction_and_reason(
    metrics: Metrics, found: Traffic, direction: str, reason: str
) -> None:
    for _ in range(2):
        metrics.decided(decided(server(), found, deployment(5), pods(5)).decision)
    counted = {
        labels: value for (name, labels), value in exposed(metrics).items() if name == "decisions_total"
    }
    assert counted == {(direction, reason): 2}


def test_of_each_model_server(registry: Registry, metrics: Metrics) -> None:
    stated, unmeasured, new = (
        server("chat", capacity={"requestsPerSecond": 40, "startSeconds": 12}),
        server("voice", **UNMEASURED),
        server("text"),
    )
    for one in (stated, unmeasured, new):
        registry.servers[one.name] = one
    decided(stated, asks(7), deployment(5), pods(5))
    decided(unmeasured, asks(None), deployment(2), pods(2))
    stated.starts.extend([20.0] * 20)
    found = exposed(metrics)
    assert (found["desired_replicas", ("chat",)], found["desired_replicas", ("voice",)]) == (7, 2)
    assert found["ready_replicas", ("chat",)] == 0, "before its status is said"
    assert found["replica_requests_per_second", ("chat",)] == 40
    assert found["replica_requests_per_second", ("voice",)] == math.inf, "it isn't known"
    assert found["start_seconds", ("chat",)] == pytest.approx(stated.capacity().start_s)
    assert found["start_seconds", ("chat",)] >= 20, "measured, no more what is stated"
    assert not any("text" in labels for _, labels in found), "nothing is wanted of it yet"


def test_who_led_has_no_more_series_of_model_servers(registry: Registry, metrics: Metrics) -> None:
    """What it remembers is as old as its term, and stands beside what the leader says."""
    registry.servers["chat"] = one = server("chat")
    decided(one, asks(7), deployment(5), pods(5))
    assert ("desired_replicas", ("chat",)) in exposed(metrics)
    metrics.ticked(Seen(NOW, "prometheus", age_s=1.5), 0.02, 0.001)
    metrics.stands_by()
    found = exposed(metrics)
    assert found["leader", ()] == 0
    assert math.isnan(found["data_age_seconds", ()])
    assert ("source", ("prometheus",)) not in found
    assert not any("chat" in labels for _, labels in found)
    metrics.leads.set(True)
    assert exposed(metrics)["desired_replicas", ("chat",)] == 7


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("problems", "signal_problems_total"),
        ("failed_ticks", "failed_ticks_total"),
        ("writes", "writes_total"),
    ],
)
def test_what_is_counted_by_others(metrics: Metrics, name: str, series: str) -> None:
    assert exposed(metrics)[series, ()] == 0, "there before the first one, so that an increase is seen"
    getattr(metrics, name).inc()
    metrics.ticked(seen(asks(3)), 0.1, 0.1)
    assert exposed(metrics)[series, ()] == 1
