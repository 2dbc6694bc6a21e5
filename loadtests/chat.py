"""Customers who ask the chat service (a Locust file; `locust -f loadtests/chat.py --host URL` works too).

The load is *open*: questions arrive at a set rate whatever the servers do, as real customers don't wait for each other.
A Locust user is closed (it asks again after its answer), so there are as many users as could be waiting at once: rate
x longest wait. Each asks once in `users / rate` seconds, and gives up after `TIMEOUT_S`, which is no longer than that:
so no user is ever late for its next question, and a slow server can't slow the arrivals down.

Each user keeps to due times of its own. Locust's `constant_throughput` counts from the user's start, and Locust starts
a second's users all at once: they would ask all at once too, and measure each other.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from typing import Any

import gevent
from locust import FastHttpUser, events, task

from loadtests.expected import wrong_with
from loadtests.plan import PER_USER_VARIABLE, TIMEOUT_S
from loadtests.questions import QUESTIONS
from loadtests.recorder import VERSION, Recorder

PERIOD_S = 1 / float(os.environ.get(PER_USER_VARIABLE, "0.2"))


class ChatUser(FastHttpUser):
    """One customer: a session, a language, a question every now and then."""

    network_timeout = TIMEOUT_S
    connection_timeout = TIMEOUT_S

    def on_start(self) -> None:
        self.session = uuid.uuid4().hex
        self.language = random.choice(sorted(QUESTIONS))  # noqa: S311
        first_s = random.random()  # noqa: S311
        self.due_s = time.perf_counter() + first_s
        gevent.sleep(first_s)

    def wait_time(self) -> float:
        """Until the next question is due."""
        self.due_s += PERIOD_S
        return max(0.0, self.due_s - time.perf_counter())

    @task
    def ask(self) -> None:
        body = {"text": random.choice(QUESTIONS[self.language]), "language": self.language}  # noqa: S311
        headers = {"X-Session-Id": self.session, "Idempotency-Key": uuid.uuid4().hex}
        with self.client.post(
            "/v1/chat", json=body, headers=headers, name=f"chat {self.language}", catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(_refusal(response))
                return
            try:
                answer = response.json()
            except ValueError:
                answer = None
            if problem := wrong_with(answer, self.language):
                response.failure(problem)
            else:
                response.request_meta["context"][VERSION] = answer["model_version"]


def _refusal(response: Any) -> str:
    if response.status_code == 0:
        error = response.error
        return f"no answer: {type(error).__name__} {error}" if error else "no answer"
    try:
        return f"{response.status_code} {response.json()['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)


@events.init.add_listener
def _from_now_on(**_: Any) -> None:
    """Timers count from the loop's own time, which stood still while all was imported: for seconds on a busy machine,
    by which the run would be too short."""
    gevent.get_hub().loop.update_now()


events.init.add_listener(Recorder.install)
