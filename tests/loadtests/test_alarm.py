"""Both alarms: the kernel's, and the loop's own."""

from __future__ import annotations

import pytest

from tests.loadtests import loops


def told(kind: str, program: str) -> str:
    head = f"""
    import time
    import gevent
    from loadtests.alarm import {kind} as Alarm
    alarm = Alarm()
    """
    return loops.told(head, program)


KINDS = pytest.mark.parametrize("kind", ["KernelAlarm", "LoopAlarm"])


@KINDS
def test_never_before_its_time(kind: str) -> None:
    found = told(
        kind,
        """
        for wanted in (0.0, 0.0001, 0.003, 0.05, 0.0003):
            begun = time.perf_counter()
            alarm.wait(wanted)
            print(time.perf_counter() - begun >= wanted - 0.001)
        """,
    )
    assert found.split() == ["True"] * 5


@KINDS
def test_others_go_on_meanwhile_and_may_wake_it(kind: str) -> None:
    found = told(
        kind,
        """
        said = []
        def other():
            gevent.sleep(0.01)
            said.append("other")
            alarm.wake()
        gevent.spawn(other)
        alarm.wait(float("inf"))
        said.append("woken")
        begun = time.perf_counter()
        alarm.wait(0.2)
        said.append(str(time.perf_counter() - begun > 0.1))
        print(*said)
        """,
    )
    assert found == "other woken True", "and one that was woken is as good as new"
