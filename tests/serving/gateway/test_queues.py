from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.gateway.queues import Queues, Ticket

MOST, MOST_BYTES = 4, 100


def queues(**slots: int) -> Queues:
    made = Queues(most=MOST, most_bytes=MOST_BYTES)
    made.open(slots)
    return made


def enter(line: Queues, *names: str, size: int = 1) -> list[Ticket]:
    tickets = [line.enter(name, size) for name in names]
    return [ticket for ticket in tickets if ticket is not None]


def test_nobody_goes_before_there_is_a_replica() -> None:
    line = queues()
    one, two, three = enter(line, "chat", "chat", "chat")
    assert list(line.due()) == []
    line.open({"chat": 2})
    assert list(line.due()) == [one, two]
    assert list(line.due()) == []
    line.leave(one)
    assert list(line.due()) == [three]
    assert line.lengths() == {"chat": 2}


def test_who_comes_back_is_the_next_one() -> None:
    line = queues(chat=1)
    one, two = enter(line, "chat", "chat")
    assert list(line.due()) == [one]
    line.back(one)
    assert list(line.due()) == [one]
    line.leave(one)
    assert list(line.due()) == [two]


def test_one_model_server_does_not_wait_for_another() -> None:
    line = queues(voice=1)
    _, voice = enter(line, "chat", "voice")
    assert list(line.due()) == [voice]


def test_bounds() -> None:
    line = queues()
    assert len(enter(line, *["chat"] * 10, size=10)) == MOST
    assert len(enter(line, *["voice"] * 2, size=30)) == 2
    assert line.enter("other", 1) is None, "the bytes are used up"
    assert line.bytes == MOST_BYTES


def test_names_are_forgotten() -> None:
    line = queues(chat=1)
    for ticket in enter(line, "a", "b", "c"):
        line.leave(ticket)
    line.enter("big", MOST_BYTES + 1)
    line.open({})
    assert vars(line)["_queues"] == {}


class AnyUse(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Queues(most=MOST, most_bytes=MOST_BYTES)
        self.waiting: dict[str, list[Ticket]] = {"chat": [], "voice": []}
        self.going: list[Ticket] = []
        self.slots: dict[str, int] = {}

    @rule(name=st.sampled_from(["chat", "voice"]), size=st.integers(0, 60))
    def enter(self, name: str, size: int) -> None:
        ticket = self.line.enter(name, size)
        of_it = len(self.waiting[name]) + sum(one.server == name for one in self.going)
        used = sum(one.size for one in (*self.waiting["chat"], *self.waiting["voice"], *self.going))
        assert (ticket is None) == (of_it >= MOST or used + size > MOST_BYTES)
        if ticket is not None:
            self.waiting[name].append(ticket)

    @rule(chat=st.integers(0, 3), voice=st.integers(0, 3))
    def open(self, chat: int, voice: int) -> None:
        self.slots = {"chat": chat, "voice": voice}
        self.line.open(self.slots)

    @rule()
    def due(self) -> None:
        for ticket in self.line.due():
            assert ticket.admitted
            assert self.waiting[ticket.server].pop(0) is ticket, "first come, first served"
            self.going.append(ticket)
        for name, waiting in self.waiting.items():
            free = self.slots.get(name, 0) - sum(one.server == name for one in self.going)
            assert free <= 0 or not waiting, "nobody waits in vain"

    @precondition(lambda self: self.going)
    @rule(data=st.data())
    def back(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from(self.going))
        self.going.remove(ticket)
        self.line.back(ticket)
        self.waiting[ticket.server].insert(0, ticket)

    @precondition(lambda self: self.going or any(self.waiting.values()))
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from([*self.going, *self.waiting["chat"], *self.waiting["voice"]]))
        (self.going if ticket.admitted else self.waiting[ticket.server]).remove(ticket)
        self.line.leave(ticket)

    @invariant()
    def sums(self) -> None:
        everybody = [*self.going, *self.waiting["chat"], *self.waiting["voice"]]
        assert self.line.bytes == sum(one.size for one in everybody)
        assert sum(self.line.lengths().values()) == len(everybody)


TestAnyUse = AnyUse.TestCase
