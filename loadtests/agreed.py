"""What the process that starts a load test and those that run it agree on (imports nothing of ours, so both may)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

TIMEOUT_S: Final = 5.0
"""The longest that a customer waits for an answer to one try."""
SPOKEN_TIMEOUT_S: Final = 15.0
"""And who has said it."""

VARIABLE: Final = "SWITCHBOARD_LOADTEST"
"""Environment variable: the settings, as JSON. Without it (the file run by `locust` itself) they are the usual ones."""


@dataclass(frozen=True)
class Settings:
    """How a run is done.

    `per_user`: requests/s that each of Locust's users stands for; `arrivals`: poisson, or even; `seed`: of all chance;
    `again`: whether a request that failed is put once more, at `other` if there is another address; `edges`: addresses
    by region; `users`: who asks, by their weights; `points`: the rate over time, as a profile has it, where a scenario
    is run; `questions`, `recordings`: files of them, written and spoken (`loadtests.questions`); `result`, `seconds`,
    `requests`: files for the figures, for each second's counts, for each request. None: nobody wants them.
    """

    per_user: float = 1.0
    arrivals: str = "poisson"
    seed: int = 1
    again: bool = True
    other: str | None = None
    edges: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, float] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()
    questions: str | None = None
    recordings: str | None = None
    result: str | None = None
    seconds: str | None = None
    requests: str | None = None

    def variable(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def settings() -> Settings:
    """Those of this process's environment."""
    found = json.loads(os.environ.get(VARIABLE, "{}"))
    if "points" in found:
        found["points"] = tuple((float(time), float(rate)) for time, rate in found["points"])
    return Settings(**found)
