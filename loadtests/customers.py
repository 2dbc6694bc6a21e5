"""Who asks: Locust users of which each stands for so many requests/s, and what one of those requests is.

`Customers` are the dial (`loadtests.pacing`); what they ask goes out from a `Desk`, one for each kind of them and
process.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import gevent
from locust import User, constant, task
from locust.env import Environment
from locust.exception import StopTest

from loadtests.agreed import TIMEOUT_S, Settings, settings
from loadtests.arrivals import even, poisson
from loadtests.client import Door, Reply
from loadtests.conversations import Conversation, Conversations, Question
from loadtests.expected import wrong_with
from loadtests.pacing import Pacer
from loadtests.questions import questions
from loadtests.spoken import request_of

VERSION, LATE, FIRST = "version", "late_s", "first"
"""In a request's context: which version of the model answered; how long after it was due it was sent; why the first try
failed, where there was a second."""

PAUSE_S: Final = 0.1
"""Before a request is put once more, on average."""
AGAIN: Final = frozenset({0, 429, 500, 502, 503, 504})
"""What a customer's program takes for a reason to ask once more; 0 is no answer."""
ARM_HEADER: Final = "X-Switchboard-Arm"


class Desk:
    """Puts the requests of one kind of customers, and tells Locust what they came to."""

    def __init__(
        self,
        environment: Environment,
        name: str,
        doors: list[Door],
        asked: Mapping[str, Sequence[Question]],
        more: Mapping[str, str],
        own: Settings,
    ):
        self._environment, self._name, self._doors, self._more = environment, name, doors, more
        self._chance = random.Random(f"{own.seed} {name} {_worker(environment)}")  # noqa: S311
        self._conversations = Conversations(asked, self._chance)
        seed = f"{own.seed} arrivals {name} {_worker(environment)}"
        self.pacer = Pacer((even if own.arrivals == "even" else poisson)(seed), self.ask)
        self.per_user, self._again = own.per_user, own.again
        self.users = 0
        self._closed = False

    def change(self, users: int) -> None:
        self.users += users
        if not self._closed:
            self.pacer.set_rate(self.users * self.per_user)

    def end(self) -> None:
        """No more is due, whatever becomes of the users."""
        self._closed = True
        self.pacer.set_rate(0.0)

    def close(self) -> int:
        """Wait for what is still to be answered; how many weren't waited for."""
        self.end()
        return self.pacer.finish(
            sum(door.timeout_s for door in (self._doors[0], self._doors[-1])) + 2 * PAUSE_S
        )

    def ask(self, due: float) -> None:
        """One turn of somebody's conversation, which was due at that time (of `time.perf_counter`)."""
        begun = time.perf_counter()
        wall = time.time() - (begun - due)
        conversation, question = self._conversations.begin(begun)
        path, body, kind = request_of(question)
        headers = {
            **kind,
            "X-Session-Id": conversation.session,
            "Idempotency-Key": str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
            **self._more,
        }
        context: dict[str, Any] = {LATE: begun - due}
        first, second = self._doors[0], self._doors[-1]
        reply = first.post(path, body, headers)
        problem = self._problem(reply, conversation, question, context)
        if self._again and problem is not None and reply.status in AGAIN:
            context[FIRST] = problem
            gevent.sleep(self._chance.uniform(0, 2 * PAUSE_S))
            reply = second.post(path, body, headers)
            problem = self._problem(reply, conversation, question, context)
        ended = time.perf_counter()
        self._conversations.answered(conversation, ended)
        self._environment.events.request.fire(
            request_type="POST",
            name=f"{self._name} {question.language}",
            response_time=(ended - due) * 1000,
            response_length=len(reply.body),
            exception=None if problem is None else Failed(problem),
            context=context,
            start_time=wall,
            response=None,
            url=first.url,
        )

    def _problem(
        self, reply: Reply, conversation: Conversation, question: Question, context: dict[str, Any]
    ) -> str | None:
        """Why that is no answer."""
        try:
            answer = json.loads(reply.body) if reply.status else None
        except (ValueError, RecursionError):
            answer = None
        if reply.status != 200:
            error = answer.get("error") if isinstance(answer, dict) else None
            code = error.get("code") if isinstance(error, dict) else None
            return reply.error or " ".join(map(str, filter(None, [reply.status, code])))[:200]
        if problem := wrong_with(answer, question.language, spoken=question.recording is not None):
            return problem
        assert answer is not None  # noqa: S101 - else something was wrong with it
        if question.intent is not None and answer["intent"] != question.intent:
            return f"asked for {question.intent}, answered {answer['intent']}"
        context[VERSION] = version = answer["model_version"]
        if not conversation.keeps_thread(version):
            return f"answered by version {version}, to and fro within its conversation"
        return None


class Failed(Exception):
    """A request that wasn't answered as it should; the message is why."""


class Customers(User):
    """Each stands for `Settings.per_user` requests/s."""

    abstract = True
    kind: ClassVar[str]
    timeout_s: ClassVar[float] = TIMEOUT_S
    desks: ClassVar[dict[tuple[Environment, str], Desk]] = {}
    wait_time = constant(3600)

    @task
    def be_there(self) -> None:
        """The desk asks."""

    def on_start(self) -> None:
        key = (self.environment, self.kind)
        if key not in self.desks:
            try:
                self.desks[key] = self.open(settings())
            except ValueError as error:
                raise StopTest(str(error)) from None
        self.desks[key].change(+1)

    def on_stop(self) -> None:
        self.desks[self.environment, self.kind].change(-1)

    def open(self, own: Settings) -> Desk:
        """
        Raises:
            ValueError: there is nowhere to ask.
        """
        if not self.host:
            raise ValueError("which address? give --host")
        doors = [Door(url, timeout_s=self.timeout_s) for url in self.addresses(own) if url]
        return Desk(self.environment, self.kind, doors, self.questions(own), self.headers(), own)

    def addresses(self, own: Settings) -> list[str | None]:
        """Where it asks, and where once more."""
        return [self.host, own.other]

    def headers(self) -> dict[str, str]:
        return {}

    def questions(self, own: Settings) -> Mapping[str, Sequence[Question]]:
        """What is asked, by language."""
        return questions(own.questions)


def desks_of(environment: Environment) -> list[Desk]:
    """Those that ask in its run."""
    return [desk for (whose, _), desk in Customers.desks.items() if whose is environment]


def begin(environment: Environment) -> None:
    """A run: who asked in one before it has gone."""
    for key in [one for one in Customers.desks if one[0] is environment]:
        del Customers.desks[key]


def end_all() -> None:
    """Of this process, at the end of a run: to stop its users takes Locust longer than a request may be late."""
    for desk in Customers.desks.values():
        desk.end()


def close(environment: Environment) -> int:
    """When no more is due: wait for what is still to be answered. How many weren't waited for."""
    return sum(desk.close() for desk in desks_of(environment))


def _worker(environment: Environment) -> int:
    """Of several, each has chances of its own."""
    return int(getattr(environment.runner, "worker_index", 0) or 0)
