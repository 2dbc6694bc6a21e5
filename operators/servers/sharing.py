"""ModelServers that answer for one service at one place. Gateways know replicas only: each gets what its own get."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from operators.servers.server import Server
from operators.signals.values import Key


def shares(servers: Iterable[Server], ready: Callable[[Server], int]) -> dict[str, float]:
    """The part of its placement's traffic that each gets, for those that aren't alone there; together 1 at each place.

    `ready`: how many of its replicas get requests. Where none does, what arrives is for all of them alike.
    """
    alike: dict[Key, list[Server]] = defaultdict(list)
    for one in servers:
        alike[one.key].append(one)
    found: dict[str, float] = {}
    for group in alike.values():
        if len(group) < 2:
            continue
        counts = [ready(one) for one in group]
        total = sum(counts)
        for one, count in zip(group, counts, strict=True):
            found[one.name] = count / total if total else 1 / len(group)
    return found
