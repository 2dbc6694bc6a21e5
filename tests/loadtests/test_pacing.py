"""The pacer: what is sent is what was due, however slow the answers are; by a passed-in clock where one can be."""

from __future__ import annotations

import itertools

import pytest

from tests.loadtests import loops


def told(program: str) -> str:
    """What a program prints that may use these."""
    head = """
    import time
    import gevent
    from loadtests.arrivals import Arrivals, even
    from loadtests.pacing import Pacer
    """
    return loops.told(head, program)


def test_requests_that_hang_hold_up_none() -> None:
    found = told(
        """
        sent = []
        def send(due):
            sent.append(due)
            gevent.sleep(60)
        pacer = Pacer(even(1), send)
        pacer.set_rate(200.0)
        while len(sent) < 100:
            gevent.sleep(0.01)
        print(pacer.offered >= 100, pacer.dropped, round(sent[99] - sent[0], 3))
        """
    )
    assert found == "True 0 0.495"


def test_all_that_was_due_is_sent_once_though_the_loop_was_busy() -> None:
    """It comes late then, and says when it was due."""
    found = told(
        """
        late = []
        pacer = Pacer(even(1), lambda due: late.append(time.perf_counter() - due))
        pacer.set_rate(100.0)
        gevent.sleep(0.1)
        time.sleep(1.0)  # nothing else runs
        pacer.finish(10.0)
        print(pacer.offered, len(late), max(late) > 0.9, pacer.offered >= 100)
        """
    )
    offered, sent, was_late, all_due = found.split()
    assert offered == sent
    assert (was_late, all_due) == ("True", "True")


def test_beyond_its_bound_requests_are_dropped_and_counted() -> None:
    found = told(
        """
        pacer = Pacer(even(1), lambda due: gevent.sleep(60), most_in_flight=5)
        pacer.set_rate(100.0)
        while pacer.offered < 50:
            gevent.sleep(0.01)
        print(pacer.offered - pacer.dropped)
        """
    )
    assert found == "5"


def test_it_ends_when_all_are_answered() -> None:
    found = told(
        """
        done = []
        def send(due):
            gevent.sleep(0.3)
            done.append(due)
        pacer = Pacer(even(1), send)
        pacer.set_rate(100.0)
        while pacer.offered < 20:
            gevent.sleep(0.01)
        left = pacer.finish(60.0)
        print(left, len(done) == pacer.offered, pacer.rate)
        """
    )
    assert found == "0 True 0.0"


def test_what_is_not_answered_in_time_is_given_up_and_counted() -> None:
    found = told(
        """
        pacer = Pacer(even(1), lambda due: gevent.sleep(600))
        pacer.set_rate(100.0)
        while pacer.offered < 20:
            gevent.sleep(0.01)
        left = pacer.finish(0.2)
        print(left == pacer.offered - pacer.dropped)
        """
    )
    assert found == "True"


@pytest.mark.parametrize("rates", list(itertools.permutations([50.0, 0.0, 200.0])))
def test_a_rate_may_change_at_any_time(rates: tuple[float, ...]) -> None:
    """By a clock that is passed in: half a second at each."""
    found = told(
        f"""
        now = [0.0]
        sent = []
        pacer = Pacer(even(1), sent.append, clock=lambda: now[0])
        for rate in {rates!r}:
            pacer.set_rate(rate)
            now[0] += 0.5
        pacer.finish(10.0)
        print(pacer.offered)
        """
    )
    assert abs(int(found) - 125) <= 1


def test_answers_have_their_turn_while_the_next_request_is_near() -> None:
    """It stays awake for the last second here, and what comes meanwhile is taken at once."""
    found = told(
        """
        import os
        from gevent.socket import wait_read
        from loadtests import pacing
        pacing.NEAR_S, pacing.AWAKE = 1.0, 1.0
        come = []
        def reads(end):
            wait_read(end)
            come.append(time.perf_counter())
        end, other = os.pipe()
        pacer = Pacer(Arrivals(lambda: 1.0, first=1.0), lambda due: come.append(None))
        gevent.spawn(reads, end)
        pacer.set_rate(1.0)
        gevent.sleep(0.2)
        written = time.perf_counter()
        os.write(other, b"x")
        while not come:
            gevent.sleep(0.01)
        print(come[0] is not None and come[0] - written < 0.1)
        """
    )
    assert found == "True"
