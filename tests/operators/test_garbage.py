"""Cycles are freed when they are asked for, and not before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from operators.garbage import ALL_EVERY, Garbage


class _Thing:
    """One that can be in a cycle, and be watched."""

    other: object = None


def _cycle() -> weakref.ref[_Thing]:
    one, two = _Thing(), _Thing()
    one.other, two.other = two, one
    return weakref.ref(one)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


def test_nothing_is_searched_before_it_is_asked_for() -> None:
    searched = list[str]()

    def note(phase: str, _: object) -> None:
        searched.append(phase)

    with Garbage() as garbage:
        gc.callbacks.append(note)
        try:
            lost = _cycle()
            kept = [{"number": [number]} for number in range(100_000)]
            assert searched == []
            assert lost() is not None
            assert garbage.collect() >= 2
            assert lost() is None
            assert searched == ["start", "stop"]
            assert len(kept) == 100_000
        finally:
            gc.callbacks.remove(note)


def test_what_has_survived_a_search_is_found_at_the_search_of_all() -> None:
    with Garbage() as garbage:
        one, two = _Thing(), _Thing()
        one.other, two.other = two, one
        lost = weakref.ref(one)
        garbage.collect()  # they are old from here on
        del one, two
        for _ in range(ALL_EVERY - 2):
            garbage.collect()
            assert lost() is not None
        garbage.collect()
        assert lost() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_afterwards_it_is_as_before(*, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    with Garbage():
        assert not gc.isenabled()
    assert gc.isenabled() is enabled
    with pytest.raises(ValueError, match="failed"), Garbage():
        raise ValueError("failed")
    assert gc.isenabled() is enabled
