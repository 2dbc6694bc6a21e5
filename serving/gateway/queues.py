"""Who waits for a model server's first replica, and who is next: plain values, without a clock and without I/O.

First come, first served, for each model server. How many go at once is what its replicas take; how many wait, and how
many bytes of all, is bounded, since a queue that is too long answers nobody in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Ticket:
    """A request's place; `admitted` once it may go."""

    server: str
    size: int
    admitted: bool = False


@dataclass(slots=True)
class _Queue:
    waiting: deque[Ticket] = field(default_factory=deque)
    admitted: int = 0
    slots: int = 0

    @property
    def length(self) -> int:
        return len(self.waiting) + self.admitted


class Queues:
    """The queues of all model servers: at most `most` requests of each, with `most_bytes` of all together."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._queues: dict[str, _Queue] = {}
        self.bytes = 0

    def enter(self, server: str, size: int) -> Ticket | None:
        """A place at the end; None where there is none."""
        queue = self._queues.setdefault(server, _Queue())
        if queue.length >= self._most or self.bytes + size > self._most_bytes:
            self._forget(server)
            return None
        ticket = Ticket(server, size)
        queue.waiting.append(ticket)
        self.bytes += size
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """It was answered, or waits no longer."""
        queue = self._queues[ticket.server]
        if ticket.admitted:
            queue.admitted -= 1
        else:
            queue.waiting.remove(ticket)
        self.bytes -= ticket.size
        self._forget(ticket.server)

    def back(self, ticket: Ticket) -> None:
        """It went and wasn't answered: it is the next one again."""
        queue = self._queues[ticket.server]
        ticket.admitted = False
        queue.admitted -= 1
        queue.waiting.appendleft(ticket)

    def open(self, slots: Mapping[str, int]) -> None:
        """How many may go at once, by model server; none of those that aren't named."""
        for server in {*self._queues, *slots}:
            self._queues.setdefault(server, _Queue()).slots = slots.get(server, 0)
            self._forget(server)

    def due(self) -> Iterator[Ticket]:
        """Those that may go now, each once."""
        for queue in self._queues.values():
            while queue.waiting and queue.admitted < queue.slots:
                ticket = queue.waiting.popleft()
                ticket.admitted = True
                queue.admitted += 1
                yield ticket

    def lengths(self) -> dict[str, int]:
        """Requests that wait or are being answered, by model server."""
        return {server: queue.length for server, queue in self._queues.items() if queue.length}

    def _forget(self, server: str) -> None:
        """Names come from requests' paths, too: they must not fill the memory."""
        queue = self._queues[server]
        if not queue.length and not queue.slots:
            del self._queues[server]
