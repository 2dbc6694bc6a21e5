"""What an autoscaler is to the simulator, and what all of them are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from operators.simulator.metrics import Metrics


class Replicas(NamedTuple):
    """How many there are: that serve, that were asked for (pending ones counted)."""

    ready: int
    size: int


@dataclass(frozen=True)
class Bounds:
    """The least and the most replicas."""

    least: int
    most: int

    def clip(self, value: int) -> int:
        return min(self.most, max(self.least, value))


@dataclass(frozen=True)
class Target:
    """What a replica should carry on average."""

    in_flight: float
    rps: float


class Autoscaler(Protocol):
    """Asked every `every_s` seconds how many replicas there should be."""

    every_s: int

    def decide(self, now: int, metrics: Metrics, replicas: Replicas) -> int:
        """The wanted number of replicas, within the bounds."""
        ...

    def restart(self) -> None:
        """Forget everything that is in memory only."""
        ...
