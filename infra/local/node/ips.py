"""The node's pod addresses: one of its range for each pod, not given out again while there are others.

Who holds which address is kept in the pods' records; this only hands out.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from switchboard.errors import SwitchboardError


class Addresses:
    """Addresses of a range, without the first and the last."""

    def __init__(self, network: IPv4Network) -> None:
        self._all = list(network.hosts())
        self._held: dict[str, IPv4Address] = {}
        self._next = 0

    def hold(self, owner: str, address: str) -> None:
        """Note that `owner` has this address already."""
        self._held[owner] = IPv4Address(address)
        if (ip := IPv4Address(address)) in self._all:
            self._next = max(self._next, self._all.index(ip) + 1) % len(self._all)

    def take(self, owner: str) -> str:
        """An address for `owner`: the one it has, else the next free one after the last given.

        Raises:
            SwitchboardError: all are held.
        """
        if owner not in self._held:
            taken = set(self._held.values())
            for step in range(len(self._all)):
                candidate = self._all[(self._next + step) % len(self._all)]
                if candidate not in taken:
                    self._held[owner] = candidate
                    self._next = (self._next + step + 1) % len(self._all)
                    break
            else:
                raise SwitchboardError(f"no free pod address: all {len(self._all)} of the node are held")
        return str(self._held[owner])

    def release(self, owner: str) -> None:
        self._held.pop(owner, None)
