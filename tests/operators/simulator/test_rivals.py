"""The other autoscalers against cases worked by hand from their published algorithms."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from operators.simulator.metrics import Metrics
from operators.simulator.plant import Second
from operators.simulator.rivals import Bounds, HpaOnConcurrency, HpaOnRate, Keda, Kpa, RayServe, Target
from operators.simulator.rivals.base import Autoscaler, Replicas
from operators.simulator.rivals.hpa import Behaviour, external_metric, pods_metric

BOUNDS = Bounds(1, 100)
TARGET = Target(in_flight=2.0, rps=20.0)


def metrics(*parts: tuple[float, int]) -> Metrics:
    """In flight for so many seconds each; ten times as many requests/s arrive."""
    found = Metrics(delay_s=0)
    for value, seconds in parts:
        for _ in range(seconds):
            found.add(Second(0, value * 10, value * 10, value, 0.0, 0))
    return found


def known_to(found: Metrics) -> int:
    return len(found._samples) - 1


def ask(
    autoscaler: Autoscaler, parts: Sequence[tuple[float, int]], ready: int, size: int | None = None
) -> int:
    found = metrics(*parts)
    return autoscaler.decide(known_to(found), found, Replicas(ready, ready if size is None else size))


# Knative


@pytest.mark.parametrize(
    ("parts", "ready", "expected", "why"),
    [
        ([(20, 60)], 10, 10, "20 in flight at 2 each"),
        ([(21, 60)], 10, 11, "rounded up"),
        ([(0, 60)], 10, 5, "at most halved in a tick"),
        ([(10, 54), (30, 6)], 6, 15, "stable (540 + 180) / 60 = 12: 6; panic 30: 15, which is 2.5x of 6"),
        ([(10, 54), (22, 6)], 6, 6, "stable 11.2: 6; panic 22: 11, less than twice 6"),
        ([(40, 60)], 0, 20, "no replica counts as one"),
    ],
)
def test_kpa(parts: list[tuple[float, int]], ready: int, expected: int, why: str) -> None:
    kpa = Kpa(TARGET, BOUNDS)
    kpa.decide(0, Metrics(0), Replicas(1, 1))  # it starts beside one pod, so in no panic
    assert ask(kpa, parts, ready) == expected, why


def test_kpa_in_panic_only_goes_up_until_a_minute_after() -> None:
    kpa, found = Kpa(TARGET, BOUNDS), metrics((4, 60), (40, 6))
    answers, size = [], 2
    for _ in range(70):
        now = known_to(found)
        size = kpa.decide(now, found, Replicas(size, size))
        answers.append(size)
        for _ in range(2):
            found.add(Second(0, 0, 0, 4.0, 0.0, 0))
    assert answers[0] == 20
    assert answers[:31] == [20] * 31
    assert answers[31] == 10, "halved in each tick, then"
    assert answers[-1] == 2


@pytest.mark.parametrize(
    ("ready", "kept", "why"),
    [
        (20, 20, "4 in flight at 2 each are 2, but in panic nothing goes down"),
        (2, 2, ""),
        (1, 2, "one pod is no panic, and two are wanted"),
    ],
)
def test_a_kpa_that_starts_keeps_what_is_ready_for_a_minute(ready: int, kept: int, why: str) -> None:
    """`newAutoscaler`: "always start in the panic mode, if the deployment is scaled up over 1 pod"."""
    kpa, found = Kpa(TARGET, BOUNDS), metrics((4, 60))
    for start in (60, 500):
        size, sizes = ready, {}
        for now in range(start, start + 100, 2):
            while known_to(found) < now:
                found.add(Second(0, 0, 0, 4.0, 0.0, 0))
            size = sizes[now] = kpa.decide(now, found, Replicas(size, size))
        assert {sizes[now] for now in range(start, start + 61, 2)} == {kept}, why
        assert sizes[start + 62] == max(2, kept // 2), "halved in each tick, then"
        assert size == 2
        kpa.restart()


def test_a_kpa_that_starts_while_nothing_is_known_is_in_panic_by_then() -> None:
    kpa = Kpa(TARGET, BOUNDS)
    assert kpa.decide(2, Metrics(0), Replicas(6, 6)) == 6
    assert kpa.decide(60, metrics((4, 60)), Replicas(6, 6)) == 6
    assert kpa.decide(64, metrics((4, 64)), Replicas(6, 6)) == 3, "62 s after it started"


# The HPA


@pytest.mark.parametrize(
    ("total", "ready", "size", "expected", "why"),
    [
        (21.9, 10, 10, 10, "within the tolerance of 10 %"),
        (22.2, 10, 10, 12, "beyond it"),
        (18, 10, 10, 10, ""),
        (17.8, 10, 10, 9, ""),
        (40, 10, 20, 20, "with the ten that aren't ready as idle, it's right"),
        (60, 10, 20, 30, "with them, 1.5x of 20"),
        (30, 10, 20, 20, "with them it would go down: it stays"),
        (10, 10, 20, 5, "down goes by those that are ready"),
        (10, 0, 4, 4, "no pod, no metric"),
    ],
)
def test_hpa_on_a_metric_of_pods(total: float, ready: int, size: int, expected: int, why: str) -> None:
    assert pods_metric(total, 2.0, ready, size) == expected, why


@pytest.mark.parametrize(
    ("total", "size", "expected"), [(210, 10, 10), (230, 10, 12), (1, 10, 1), (50, 0, 3)]
)
def test_hpa_on_one_value(total: float, size: int, expected: int) -> None:
    assert external_metric(total, 20.0, size) == expected


def test_hpa_goes_up_by_double_or_four_in_15_s() -> None:
    behaviour = Behaviour(BOUNDS)
    assert behaviour.limit(0, 2, 50) == 6, "four more than two"
    assert behaviour.limit(5, 6, 50) == 6, "that was all for 15 s"
    assert behaviour.limit(15, 6, 50) == 12
    assert behaviour.limit(30, 12, 50) == 24


def test_hpa_goes_down_to_the_highest_of_5_min() -> None:
    behaviour = Behaviour(BOUNDS)
    assert behaviour.limit(0, 10, 10) == 10
    assert behaviour.limit(15, 10, 4) == 10
    assert behaviour.limit(285, 10, 3) == 10
    assert behaviour.limit(300, 10, 3) == 4
    assert behaviour.limit(315, 4, 3) == 3


@pytest.mark.parametrize("kind", [HpaOnRate, HpaOnConcurrency, Keda])
def test_an_hpa_that_starts_keeps_what_it_finds_for_5_min(
    kind: type[HpaOnRate | HpaOnConcurrency | Keda],
) -> None:
    """`recordInitialRecommendation`: the present number is the first; KEDA's is an HPA above one."""
    hpa, found = kind(TARGET, BOUNDS), metrics((8, 60))
    for start in (60, 600):
        size, sizes = 20, {}
        for now in range(start, start + 331, 15):
            while known_to(found) < now:
                found.add(Second(0, 80, 80, 8.0, 0.0, 0))
            size = sizes[now] = hpa.decide(now, found, Replicas(size, size))
        assert {sizes[now] for now in range(start, start + 300, 15)} == {20}
        assert sizes[start + 300] == 4, "8 in flight at 2 each, 80 requests/s at 20 each"
        hpa.restart()


def test_an_hpa_that_starts_while_nothing_is_known_counts_from_then() -> None:
    hpa = HpaOnRate(TARGET, BOUNDS)
    assert hpa.decide(0, Metrics(0), Replicas(20, 20)) == 20
    assert hpa.decide(285, metrics((8, 285)), Replicas(20, 20)) == 20
    assert hpa.decide(300, metrics((8, 300)), Replicas(20, 20)) == 4


def test_hpa_looks_at_15_s() -> None:
    assert ask(HpaOnConcurrency(TARGET, BOUNDS), [(100, 60), (8, 15)], 3) == 4
    assert ask(HpaOnRate(TARGET, BOUNDS), [(100, 60), (8, 15)], 3) == 4
    assert HpaOnRate(TARGET, BOUNDS).decide(5, Metrics(0), Replicas(3, 3)) == 3, "nothing known"


# KEDA


def test_keda_to_none_and_back() -> None:
    keda, found = Keda(TARGET, Bounds(0, 10)), metrics((2, 30))
    size, sizes = 2, []
    for now in range(15, 601, 15):
        while known_to(found) < now:
            found.add(Second(0, 0, 0, 0.0, 0.0, 0))
        size = keda.decide(now, found, Replicas(size, size))
        sizes.append(size)
    none = sizes.index(0)
    assert 300 < (none + 1) * 15 - 15 <= 345, "the cooldown, and a poll"
    assert min(sizes[:none]) == 1
    for _ in range(30):
        found.add(Second(0, 5, 0, 0.0, 5.0, 0))
    assert keda.decide(known_to(found), found, Replicas(0, 0)) == 1


def test_keda_above_one_is_the_hpa() -> None:
    assert ask(Keda(TARGET, BOUNDS), [(8, 15)], 3) == ask(HpaOnRate(TARGET, BOUNDS), [(8, 15)], 3) == 4


# Ray Serve


def test_ray_waits_before_it_changes() -> None:
    ray, found = RayServe(TARGET, BOUNDS), metrics((4, 60))
    sizes = {}
    for second in range(1, 1000):
        found.add(Second(0, 0, 0, 20.0 if second < 200 else 4.0, 0.0, 0))
        now = known_to(found)
        sizes[second] = ray.decide(now, found, Replicas(sizes.get(second - 1, 2), sizes.get(second - 1, 2)))
    first = next(second for second, size in sizes.items() if size > 2)
    assert first == 31, "30 s of wanting more, and one"
    assert sizes[first] == 10, "the mean of the 30 s by then"
    down = next(second for second in range(200, 1000) if sizes[second] < sizes[second - 1])
    assert 600 <= down - 200 <= 632


def test_after_a_restart_ray_waits_again() -> None:
    ray = RayServe(TARGET, BOUNDS)
    found = metrics((20, 60))
    for _ in range(20):
        assert ray.decide(60, found, Replicas(2, 2)) == 2
    ray.restart()
    assert [ray.decide(60, found, Replicas(2, 2)) for _ in range(31)] == [*[2] * 30, 10]
