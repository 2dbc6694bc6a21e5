"""The one query of a tick, and that of the history, put to a real Prometheus: each signal has the right number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_api_client import PrometheusConnect

from operators.signals import prometheus as signals_prometheus
from operators.signals import query
from operators.signals.prometheus import Prometheus
from operators.signals.values import Key, Measured, Place, Seen, Traffic
from operators.trials.exporter import Exporter, Service
from tests.operators.prometheus import prometheus

LENGTH = 240
"""Seconds of samples, one each 2 s."""
BEIJING = 'tier="edge",region="cn-beijing"'
HANGZHOU = 'tier="edge",region="cn-hangzhou"'
CORE = 'tier="core",region="cn-shenzhen"'
ARRIVED = "envoy_http_local_rate_limit_enabled"

Value = Callable[[int], float | None]


def steady(rate: float, start: float = 1000.0) -> Value:
    """A counter that rises by `rate` a second."""
    return lambda second: start + rate * second


def arrived(service: str, gateway: str, value: Value, place: str = CORE) -> Iterator[str]:
    yield from series(
        f'{ARRIVED}{{envoy_local_http_ratelimit_prefix="{service}",{place},pod="{gateway}"}}', value
    )


def cluster(name: str, gateway: str, place: str = CORE, **metrics: Value) -> Iterator[str]:
    for metric, value in metrics.items():
        labels = f'envoy_cluster_name="{name}",{place},pod="{gateway}"'
        yield from series(f"envoy_cluster_upstream_{metric}{{{labels}}}", value)


def replica(
    server: str, pod: str, in_flight: float, rate: float, cpu: float, place: str = CORE
) -> Iterator[str]:
    labels = f'model_server="{server}",{place},pod="{pod}"'
    yield from series(f"switchboard_requests_in_flight{{{labels}}}", lambda _: in_flight)
    yield from series(f'switchboard_requests_total{{{labels},code="200"}}', steady(rate))
    yield from series(f'switchboard_requests_total{{{labels},code="503"}}', steady(1))
    yield from series(f"process_cpu_seconds_total{{{labels}}}", steady(cpu))


def series(name: str, value: Value) -> Iterator[str]:
    for second in range(0, LENGTH + 1, 2):
        if (found := value(second)) is not None:
            yield f"{name} {found} {START + second}"


START = int(time.time()) // 10 * 10 - 600 - LENGTH
NOW = START + LENGTH


def samples() -> Iterator[str]:
    # Two gateways, two replicas; traffic of the gateways' own isn't anybody's.
    yield from arrived("plain", "gateway-a", steady(3))
    yield from arrived("plain", "gateway-b", steady(7))
    yield from cluster("_agent", "gateway-a", rq_total=steady(99), rq_pending_active=lambda _: 99)
    yield from replica("plain", "plain-1", in_flight=2, rate=4, cpu=0.2)
    yield from replica("plain", "plain-2", in_flight=4, rate=5, cpu=0.3)
    # The last two samples have five times what was before.
    yield from arrived("step", "gateway-a", lambda second: 10 * second + (80 if second == LENGTH else 0))
    # Its gateway started anew 4 s before the end.
    yield from arrived(
        "anew", "gateway-a", lambda second: 10 * (second if second < LENGTH - 4 else second - LENGTH + 4)
    )
    # Each request is tried three times.
    yield from arrived("retried", "gateway-a", steady(5))
    yield from cluster("retried", "gateway-a", rq_total=steady(15), rq_retry=steady(10))
    # No replica takes any.
    yield from arrived("refused", "gateway-a", steady(4))
    yield from cluster("refused", "gateway-a", rq_total=lambda _: 0, cx_none_healthy=steady(4))
    # Some wait for a connection, some for the first replica.
    yield from arrived("waits", "gateway-a", steady(1))
    yield from cluster("waits", "gateway-a", rq_pending_active=lambda _: 2, rq_active=lambda _: 50)
    yield from cluster("waits@activator", "gateway-a", rq_pending_active=lambda _: 1, rq_active=lambda _: 3)
    # No numbers.
    yield from arrived("odd", "gateway-a", lambda _: math.nan)
    yield from cluster("odd", "gateway-a", rq_pending_active=lambda _: math.inf)
    # A gateway that isn't scraped for 20 s.
    yield from arrived("gappy", "gateway-c", lambda second: None if 90 < second < 110 else 10.0 * second)
    # An edge with replicas of its own, which get half of what arrives there, and one without.
    yield from arrived("far", "gateway-a", steady(6))
    yield from arrived("far", "edge-1", steady(5), BEIJING)
    yield from cluster(
        "far@edge",
        "edge-1",
        BEIJING,
        rq_total=steady(2),
        rq_pending_failure_eject=steady(0.25),
        rq_cancelled=steady(0.125),
        rq_pending_overflow=steady(0.0625),
        rq_active_overflow=steady(0.0625),
        rq_pending_active=lambda _: 4,
    )
    yield from cluster("far@core", "edge-1", BEIJING, rq_total=steady(3), rq_pending_active=lambda _: 5)
    yield from cluster("far@activator", "edge-1", BEIJING, rq_active=lambda _: 6)
    yield from replica("far", "far-edge-1", in_flight=1, rate=2, cpu=0.1, place=BEIJING)
    yield from replica("far", "far-core-1", in_flight=3, rate=9, cpu=0.4)
    yield from arrived("far", "edge-2", steady(1), HANGZHOU)
    # An edge of which only what was sent is known.
    yield from arrived("part", "edge-2", steady(8), HANGZHOU)
    yield from cluster("part@edge", "edge-2", HANGZHOU, rq_total=steady(2))
    yield from exported()


def exported() -> Iterator[str]:
    """What the synthetic exporter says."""
    ready: dict[str, str] = {}
    exporter = Exporter([Service("made-up", rate=12, cost_s=0.02, at=0.0)], lambda: ready, gateways=3)
    exporter.text(0.0)
    ready |= {"made-up-1": "made-up", "made-up-2": "made-up"}
    for second in range(0, LENGTH + 1, 2):
        for line in exporter.text(float(second)).splitlines():
            yield f"{line.replace('gateway-', 'exported-')} {START + second}"


@dataclass(frozen=True)
class Asked:
    """A Prometheus, asked as it was at some second."""

    client: PrometheusConnect

    def __call__(
        self, windows: Sequence[int] = (6,), pods: Sequence[str] = (), second: float = LENGTH
    ) -> Seen:
        at = {"time": START + second}
        measured = query.read_measures(self.client.custom_query(query.measures(), params=at))
        answer = self.client.custom_query(query.query(windows, pods), params=at)
        return query.read(answer, windows, START + second, measured)

    def history(self, *services: str, begin: int = 20, end: int = LENGTH) -> dict[Key, list[float]]:
        answer = self.client.custom_query_range(
            query.history(services, 10),
            datetime.fromtimestamp(START + begin, UTC),
            datetime.fromtimestamp(START + end, UTC),
            "10",
        )
        return query.read_history(answer, START + begin, (end - begin) // 10 + 1, 10)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    text = "\n".join([*samples(), "# EOF", ""])
    with prometheus(tmp_path_factory.mktemp("signals"), text) as url:
        yield Asked(PrometheusConnect(url=url, method="POST"))


CASES = [
    pytest.param(
        Key("plain"),
        {
            "rate": 10,
            "latest_rate": 10,
            "in_service": 6,
            "queued": None,
            "cpu": 0.5,
            "answered": 9,
            "measured": 2,
        },
        id="several gateways and replicas",
    ),
    pytest.param(Key("step"), {"rate": 30, "latest_rate": 50}, id="the latest rate shows a step first"),
    pytest.param(Key("retried"), {"rate": 5}, id="a request that is tried again counts once"),
    pytest.param(Key("refused"), {"rate": 4, "latest_rate": 4}, id="one that no replica takes counts"),
    pytest.param(Key("waits"), {"rate": 1, "queued": 6}, id="connections and first replicas are waited for"),
    pytest.param(
        Key("odd"), {"rate": None, "latest_rate": None, "queued": None}, id="what is no number isn't known"
    ),
    pytest.param(
        Key("far"),
        {"rate": 12, "in_service": 3, "queued": 11, "answered": 9, "cpu": 0.4, "measured": 1},
        id="the core",
    ),
    pytest.param(
        Key("far", "edge", "cn-beijing"),
        {
            "rate": 2.5,
            "latest_rate": 2.5,
            "in_service": 1,
            "queued": 4,
            "answered": 2,
            "cpu": 0.1,
            "measured": 1,
        },
        id="an edge",
    ),
    pytest.param(Key("far", "edge", "cn-hangzhou"), {"rate": None}, id="an edge without replicas of its own"),
    pytest.param(Key("part", "edge", "cn-hangzhou"), {"rate": 2}, id="an edge that counts in part"),
    pytest.param(Key("part"), {"rate": 8}, id="and its core"),
    pytest.param(
        Key("_agent"), {"rate": None, "queued": None}, id="the gateways' own traffic isn't anybody's"
    ),
    pytest.param(
        Key("made-up"),
        {"rate": 12, "queued": 0, "in_service": 0.24, "answered": 12, "cpu": 0.26, "measured": 2},
        id="the synthetic exporter",
    ),
]


@pytest.mark.parametrize(("key", "expected"), CASES)
def test_signals(asked: Asked, key: Key, expected: dict[str, Any]) -> None:
    found = asked().traffic.get((key, 6), Traffic())
    values = {name: getattr(found, name) for name in expected}
    assert values == {
        name: value if value is None else pytest.approx(value) for name, value in expected.items()
    }


def test_a_counter_that_starts_anew_never_goes_back(asked: Asked) -> None:
    rates = [asked(second=second).traffic[Key("anew"), 6].rate for second in range(LENGTH - 6, LENGTH + 1, 2)]
    assert all(rate is not None and 0 < rate <= 10.001 for rate in rates)


def test_each_window_has_its_own_mean(asked: Asked) -> None:
    seen = asked((6, 20))
    assert seen.traffic[Key("step"), 6].rate == pytest.approx(30)
    assert 10 < (seen.traffic[Key("step"), 20].rate or 0) < 20
    assert {window for _, window in seen.traffic} == {6, 20}
    assert {found.latest_rate for (key, _), found in seen.traffic.items() if key == Key("step")} == {50.0}


@pytest.mark.parametrize("window", [2, 3, 5])
def test_a_window_of_less_than_two_samples_has_a_rate(asked: Asked, window: int) -> None:
    found = asked((window,), second=LENGTH - 0.5).traffic[Key("plain"), window]
    assert (found.rate, found.in_service) == (pytest.approx(10), pytest.approx(6))


def test_all_windows_that_there_may_be(asked: Asked) -> None:
    windows = tuple(range(2, 61))
    seen = asked(windows, [f"chat-5c9d7b{number:04x}-abcde" for number in range(500)])
    assert [seen.traffic[Key("plain"), window].rate for window in windows] == pytest.approx([10] * 59)


async def test_all_pods_of_a_site(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 at once: so many names don't fit into an address. How long that takes is the machine's affair."""
    monkeypatch.setattr(signals_prometheus, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(signals_prometheus, "WAIT_S", 60.0)
    names = [f"a-model-server-with-quite-a-name-{number}-5c9d7b8f6d-abcde" for number in range(20_000)]
    seen = await Prometheus(asked.client.url).look((6,), names, NOW)
    assert isinstance(seen, Seen)


def test_without_a_model_server_the_gateways_are_counted(asked: Asked) -> None:
    assert asked(()).gateways == asked().gateways


@pytest.mark.parametrize(
    ("second", "gateways"),
    [(88, 6), (98, 5), (110, 5), (112, 6)],
    ids=["before", "in a gap", "one sample is no rate", "after"],
)
def test_gateways_that_are_in_the_view(asked: Asked, second: int, gateways: int) -> None:
    """Three and the exporter's three in the core, and one on each edge."""
    seen = asked(second=second)
    assert seen.gateways == {
        Place(): gateways,
        Place("edge", "cn-beijing"): 1,
        Place("edge", "cn-hangzhou"): 1,
    }
    there = {Place(): 6, Place("edge", "cn-beijing"): 1, Place("edge", "cn-hangzhou"): 1}
    assert seen.whole(Key("plain"), there) is (gateways == 6)
    assert seen.whole(Key("far", "edge", "cn-beijing"), there)


def test_a_gap_is_no_zero(asked: Asked) -> None:
    assert asked(second=98).traffic.get((Key("gappy"), 6), Traffic()).rate is None
    assert asked(second=88).traffic[Key("gappy"), 6].rate == pytest.approx(10)


def test_requests_in_the_replicas_that_are_asked_for(asked: Asked) -> None:
    assert asked().in_flight == {}
    assert asked(pods=["plain-2", "far-edge-1", "nobody"]).in_flight == {"plain-2": 4, "far-edge-1": 1}


@pytest.mark.parametrize("late", [0, 1.5, 60])
def test_the_age_of_the_newest_sample(asked: Asked, late: float) -> None:
    assert asked(second=LENGTH + late).age_s == pytest.approx(late)


def test_before_all_samples_nothing_is_known(asked: Asked) -> None:
    seen = asked(second=-1000)
    assert (dict(seen.traffic), seen.gateways, seen.age_s, seen.source) == ({}, {}, None, "prometheus")


def test_the_history_has_what_was_known(asked: Asked) -> None:
    found = asked.history("plain", "far", "part")
    assert found == {
        Key("plain"): pytest.approx([10] * 23),
        Key("far"): pytest.approx([12] * 23),
        Key("far", "edge", "cn-beijing"): pytest.approx([2.5] * 23),
        Key("part"): pytest.approx([8] * 23),
        Key("part", "edge", "cn-hangzhou"): pytest.approx([2] * 23),
    }


def test_a_gap_in_the_history_is_no_zero(asked: Asked) -> None:
    rates = asked.history("gappy", begin=70, end=140)[Key("gappy")]
    known = {70 + 10 * number: rate for number, rate in enumerate(rates) if not math.isnan(rate)}
    assert known == {second: pytest.approx(10) for second in (70, 80, 90, 120, 130, 140)}


def test_before_the_first_sample_the_history_is_not_known(asked: Asked) -> None:
    rates = asked.history("plain", begin=-60, end=30)[Key("plain")]
    assert [math.isnan(rate) for rate in rates] == [True] * 7 + [False] * 3


def test_a_service_without_a_history(asked: Asked) -> None:
    assert asked.history("nobody") == {}
    assert all(math.isnan(rate) for rate in asked.history("odd")[Key("odd")])


def metric(signal: str, value: Any, **labels: str) -> dict[str, Any]:
    return {"metric": {"signal": signal, **labels}, "value": [0, value]}


PLAIN = {"envoy_local_http_ratelimit_prefix": "plain"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([metric("arrived 6", "-3", **PLAIN)], id="negative"),
        pytest.param([metric("arrived 6", "NaN", **PLAIN)], id="no number"),
        pytest.param([metric("arrived 6", "+Inf", **PLAIN)], id="no end"),
        pytest.param([metric("arrived 6", "many", **PLAIN)], id="a word"),
        pytest.param([metric("arrived 6", None, **PLAIN)], id="nothing"),
        pytest.param([{"metric": {"signal": "arrived 6", **PLAIN}}], id="no value"),
        pytest.param([{"metric": {"signal": "arrived 6", **PLAIN}, "value": [1]}], id="a time only"),
        pytest.param([{"value": [0, "3"]}], id="no labels"),
        pytest.param([metric("arrived 6", "3")], id="nobody's"),
        pytest.param([{"metric": PLAIN, "value": [0, "3"]}], id="no signal"),
    ],
)
def test_what_makes_no_sense_is_left_out(answer: Iterable[dict[str, Any]]) -> None:
    assert query.read(answer, (6,), 0.0).traffic.get((Key("plain"), 6), Traffic()) == Traffic()


CPU = {"signal": "cpu", "model_server": "plain"}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        pytest.param(None, Traffic(rate=3.0), id="nothing was asked"),
        pytest.param({}, Traffic(rate=3.0, measured=0), id="nothing came: of no replica"),
        pytest.param(
            {Key("plain"): Measured(0.5, 9.0, 2)},
            Traffic(rate=3.0, cpu=0.5, answered=9.0, measured=2),
            id="of two",
        ),
    ],
)
def test_what_was_measured_is_part_of_a_look(measured: dict[Key, Measured] | None, expected: Traffic) -> None:
    answer = [metric("arrived 6", "3", **PLAIN)]
    assert query.read(answer, (6,), 0.0, measured).traffic[Key("plain"), 6] == expected


def test_a_placement_of_which_nothing_else_is_known_was_measured() -> None:
    seen = query.read([], (6,), 0.0, {Key("plain"): Measured(0.5, 9.0, 2)})
    assert seen.traffic[Key("plain"), 6] == Traffic(cpu=0.5, answered=9.0, measured=2)


@pytest.mark.parametrize("value", ["-3", "NaN", "many"])
def test_measures_that_make_no_sense_are_left_out(value: str) -> None:
    assert query.read_measures([{"metric": CPU, "value": [0, value]}, {"value": [0, "3"]}]) == {}
