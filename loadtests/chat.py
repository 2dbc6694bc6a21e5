"""Customers who ask the chat service (a Locust file; `locust -f loadtests/chat.py --host URL` works too).

The load is *open*: questions arrive at a set rate whatever the servers do, as real customers don't wait for each other.
A Locust user is closed (it asks again after its answer), so there are as many users as could be waiting at once: rate
x longest wait. Each asks once in `users / rate` seconds by `constant_throughput`, and gives up after `TIMEOUT_S`, which
is no longer than that: so no user is ever late for its next question, and a slow server can't slow the arrivals down.
"""

from __future__ import annotations

import os
import random
import socket
import uuid
from typing import Any

import gevent
from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser, constant_throughput, events, task

from loadtests.expected import wrong_with
from loadtests.plan import PER_USER_VARIABLE, TIMEOUT_S
from loadtests.questions import QUESTIONS
from loadtests.recorder import Recorder


class ChatUser(FastHttpUser):
    """One customer: a session, a language, a question every now and then."""

    wait_time = constant_throughput(float(os.environ.get(PER_USER_VARIABLE, "0.2")))
    network_timeout = TIMEOUT_S
    connection_timeout = TIMEOUT_S

    def on_start(self) -> None:
        self.session = uuid.uuid4().hex
        self.language = random.choice(sorted(QUESTIONS))  # noqa: S311
        # Locust starts a second's users all at once; they ask spread over that second.
        gevent.sleep(random.random())  # noqa: S311

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


def _refusal(response: Any) -> str:
    if response.status_code == 0:
        error = response.error
        return f"no answer: {type(error).__name__} {error}" if error else "no answer"
    try:
        return f"{response.status_code} {response.json()['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)


def _send_at_once(create: Any) -> Any:
    """Sockets without Nagle's algorithm: the client sends head and body one by one, and the body would wait up to
    40 ms for the head's acknowledgement, which would be measured as the server's time."""

    def create_socket(pool: ConnectionPool, *args: Any) -> Any:
        created = create(pool, *args)
        created.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return created

    return create_socket


ConnectionPool._create_tcp_socket = _send_at_once(ConnectionPool._create_tcp_socket)  # type: ignore[method-assign]
events.init.add_listener(Recorder.install)
