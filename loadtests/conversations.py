"""What customers say: conversations of several turns, in Chinese and English, of real questions. No effects.

Requests are due by a schedule; each is the next turn of a conversation whose customer has read the last answer and
thought for a while, or, where there is none, the first turn of a new one. So arrivals are as open as the schedule is,
and nobody asks on before an answer is there.
"""

from __future__ import annotations

import heapq
import itertools
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MOST_TURNS: Final = 5
MOST_CHANGES: Final = 2
"""Of the model's version in a conversation."""
THINK_S: Final = (1.0, 6.0)
"""From an answer until the next question, anything between."""


@dataclass(frozen=True, slots=True)
class Question:
    """`intent`: what it is about to those who wrote it, and in a run where the service is known to know it;
    `recording`: where it is spoken, its name (`loadtests.spoken`)."""

    text: str
    language: str
    intent: str | None = None
    recording: str | None = None


@dataclass(slots=True)
class Conversation:
    """A customer's: `session` is its own, `left` are its turns to come."""

    session: str
    language: str
    left: int
    turn: int = 0
    version: str | None = None
    changes: int = 0

    def keeps_thread(self, version: str) -> bool:
        """Whether an answer by this version of the model goes with those before it: a release gives a session to its
        candidate, and may take it back, and that is all."""
        self.changes += self.version not in (None, version)
        self.version = version
        return self.changes <= MOST_CHANGES


class Conversations:
    """Those that are going on; `begin` gives each request its turn, `answered` lets the conversation go on."""

    def __init__(self, questions: Mapping[str, Sequence[Question]], chance: random.Random) -> None:
        """`questions` by their language."""
        if not any(questions.values()):
            raise ValueError("nothing to ask")
        self._questions = {language: tuple(some) for language, some in questions.items() if some}
        self._chance = chance
        self._idle: list[tuple[float, int, Conversation]] = []
        self._number = itertools.count()

    def begin(self, now: float) -> tuple[Conversation, Question]:
        """Whose turn it is, and what is asked."""
        if self._idle and self._idle[0][0] <= now:
            conversation = heapq.heappop(self._idle)[2]
        else:
            session = uuid.UUID(int=self._chance.getrandbits(128), version=4).hex
            language = self._chance.choice(sorted(self._questions))
            conversation = Conversation(session, language, self._chance.randint(1, MOST_TURNS))
        conversation.turn += 1
        conversation.left -= 1
        return conversation, self._chance.choice(self._questions[conversation.language])

    def answered(self, conversation: Conversation, now: float) -> None:
        """The customer reads, thinks, and goes on; or was content."""
        if conversation.left > 0:
            ready = now + self._chance.uniform(*THINK_S)
            heapq.heappush(self._idle, (ready, next(self._number), conversation))
