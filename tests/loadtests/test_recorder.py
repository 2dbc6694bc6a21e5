"""What was asked, noted by the process that asks (on Locust's own loop, so in a process of its own)."""

from __future__ import annotations

import json

from tests.loadtests.conftest import Remote
from tests.loadtests.loops import told

HEAD = """
    import json, sys
    from loadtests.chat import ChatCustomers
    import gevent
    from locust.env import Environment
    from locust.runners import STATE_RUNNING
    from loadtests.agreed import Settings
    from loadtests.recorder import Recorder
"""


def test_a_second_test_from_the_page_is_one_of_its_own(remote: Remote) -> None:
    """`locust -f loadtests/chat.py` stays, and its page has a button for another."""
    found = told(
        HEAD,
        f"""
        environment = Environment(user_classes=[ChatCustomers], host="{remote.url}")
        runner = environment.create_local_runner()
        recorder, found = Recorder(environment, Settings()), []
        for _ in range(2):
            runner.start(20, spawn_rate=20)
            with gevent.Timeout(60):
                while runner.state != STATE_RUNNING or len(recorder._requests) < 10:
                    gevent.sleep(0.05)
            runner.stop()
            found.append([len(recorder._requests), recorder._own_sent().offered, recorder._ended_s is not None])
        print(json.dumps(found))
        """,
    )
    first, second = json.loads(found.splitlines()[-1])
    assert first[0] >= 10 and second[0] >= 10
    assert first[0] == first[1] and second[0] == second[1], "all of this test, and only that"
    assert first[2] and second[2]
    assert len(remote.asked) == first[0] + second[0]
