"""Customers who ask the chat service (a Locust file; `locust -f loadtests/chat.py --host URL` works too).

The load is *open*: questions arrive at a set rate whatever the servers do, as real customers don't wait for each other.
Each of Locust's users stands for one question a second: what its web page calls users is the rate. `switchboard
loadtests run` sets more by `loadtests.agreed`: a scenario's shape, who asks beside them, where the results go.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.agreed import SPOKEN_TIMEOUT_S, Settings, settings
from loadtests.conversations import Question
from loadtests.customers import ARM_HEADER, Customers, end_all
from loadtests.figures import VOICE
from loadtests.profile import Profile
from loadtests.questions import spoken
from loadtests.recorder import Recorder

OWN = settings()
CHAT, EDGE, TESTER = "chat", "edge", "tester"
SCALE = 1000
"""Locust's weights are whole numbers."""


class ChatCustomers(Customers):
    """Who asks at the address that the run is of."""

    kind = CHAT
    weight = 1
    abstract = bool(OWN.users) and CHAT not in OWN.users


class Testers(Customers):
    """Who asks for the candidate of a release."""

    kind = TESTER
    weight = 1
    abstract = TESTER not in OWN.users

    def headers(self) -> dict[str, str]:
        return {ARM_HEADER: "candidate"}


class Callers(Customers):
    """Who speaks: recordings are uploaded."""

    kind = VOICE
    weight = 1
    abstract = VOICE not in OWN.users
    timeout_s = SPOKEN_TIMEOUT_S

    def questions(self, own: Settings) -> Mapping[str, Sequence[Question]]:
        return spoken(own.recordings)


class EdgeCustomers(Customers):
    """Who asks at the edge of a region, and at the core where that edge doesn't answer."""

    abstract = True
    region: str

    def addresses(self, own: Settings) -> list[str | None]:
        return [own.edges[self.region], self.host]


def _weigh() -> None:
    """Each kind by its weight; each region's customers have an equal part of those at edges."""
    for kind, made in ((CHAT, ChatCustomers), (TESTER, Testers), (VOICE, Callers)):
        made.weight = max(1, round(SCALE * OWN.users.get(kind, 1.0)))
    if EDGE in OWN.users:
        for number, region in enumerate(OWN.edges):
            name = f"EdgeCustomers_{number}_{re.sub(r'[^0-9A-Za-z]', '_', region)}"
            weight = max(1, round(SCALE * OWN.users[EDGE] / len(OWN.edges)))
            own = {"abstract": False, "kind": f"{EDGE} {region}", "region": region, "weight": weight}
            globals()[name] = type(name, (EdgeCustomers,), own)


_weigh()

if OWN.points:

    class Shape(LoadTestShape):
        """The scenario's rate over time."""

        profile = Profile(OWN.points)
        ended = False

        def tick(self) -> tuple[int, float] | None:
            second = self.get_run_time()
            if self.ended or second >= self.profile.length_s:
                end_all()
                return None
            users = round(self.profile.rate(second) / OWN.per_user)
            return users, max(1.0, self.profile.most_rps / OWN.per_user)


@events.init.add_listener
def _from_now_on(**_: Any) -> None:
    """Timers count from the loop's own time, which stood still while all was imported: for seconds on a busy machine,
    by which the run would be too short."""
    gevent.get_hub().loop.update_now()


@events.init.add_listener
def _go_first(environment: Environment, **_: Any) -> None:
    """What is due goes out before whatever else the machine does: that is little, and if it is late a run measures
    itself. Not where several processes ask, which could take all processors; where it isn't allowed, it is as it is."""
    alone = not isinstance(environment.runner, MasterRunner | WorkerRunner)
    if OWN.points and alone and (os.cpu_count() or 1) > 1:
        with suppress(OSError, AttributeError):
            lowest = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, lowest)


@events.init.add_listener
def _end_when_told(environment: Environment, **_: Any) -> None:
    """Locust hears SIGTERM after a shape's end only: by then what was measured is there, before it would be gone."""
    if OWN.points and not isinstance(environment.runner, WorkerRunner):
        gevent.signal_handler(signal.SIGTERM, setattr, Shape, "ended", True)


events.init.add_listener(Recorder.install)
