"""What a scenario's file may say: who comes, when, and what is claimed of it.

`loadtests/scenarios/` has those that come with Switchboard; a path to another file is as good.

Times are written as 300ms, 60s or 5m.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from loadtests.bounds import CONFIDENCE, at_most, failures_for
from loadtests.faults import Name, length_s
from loadtests.figures import GOOD_SHARE, seconds_of
from loadtests.profile import LONGEST_S, MOST_RPS, Profile, Span, read_trace, staged, traced
from switchboard.errors import SwitchboardError

FOLDER: Final = Path(__file__).with_name("scenarios")
LONGEST_TEXT: Final = 200_000
MOST_REQUESTS: Final = 5_000_000
"""Of a run: each takes half a kilobyte when it is judged."""
SETTLE_S: Final = 15.0
"""After a change of the rate, until the decision is made that settles it (beside a replica's start)."""


_NO_YAML: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""The others of values that can't be what they say: a date with 13 months, a number of 5,000 digits, `!!bool maybe`."""


def _seconds(value: Any) -> Any:
    return seconds_of(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=MOST_RPS, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Users(StrEnum):
    """Who asks."""

    CHAT = "chat"
    EDGE = "edge"
    TESTER = "tester"
    VOICE = "voice"


class Arrivals(StrEnum):
    """By chance, as customers come who know nothing of each other; or one after the other at the same distance."""

    POISSON = "poisson"
    EVEN = "even"


class Stage(Part):
    """`rate` requests/s, reached within `over`, then held `for` so long."""

    rate: Rate
    over: Seconds | None = None
    held: Annotated[Seconds | None, Field(alias="for")] = None

    @model_validator(mode="after")
    def _lasts(self) -> Stage:
        if self.over is None and self.held is None:
            raise ValueError("a stage lasts: `over`, `for`, or both")
        return self


class Trace(Part):
    """The shape of recorded traffic, in a CSV file beside the scenario's (`time_s`, `requests_per_s`)."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    length: Seconds
    peak: Annotated[float, Field(gt=0, le=MOST_RPS)]


class Claims(Part):
    """What is to be proven. `latency`: of quantiles (p50, p99, p99.9), while the rate is held: a replica's start and
    `settle` after a change of it are excepted."""

    availability: Share | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = CONFIDENCE
    latency: dict[str, Seconds] = {}
    settle: Seconds = SETTLE_S
    out_of_level: Annotated[Seconds | None, Field(alias="outOfLevel")] = None
    """So many seconds at most may be out of the service level."""
    capacity: Annotated[float | None, Field(gt=1, le=100)] = None
    """The highest rate that is held within the service level, as a multiple of the first stage's."""
    scale_down: Annotated[bool, Field(alias="scaleDown")] = False
    """No request is lost while replicas are taken away."""

    @field_validator("latency")
    @classmethod
    def _quantiles(cls, latency: dict[str, float]) -> dict[str, float]:
        for name in latency:
            quantile(name)
        return latency


class Scenario(Part):
    """A scenario as its file says."""

    summary: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    users: Annotated[dict[Users, Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1)] = {
        Users.CHAT: 1.0
    }
    """Who asks, by their weights."""
    arrivals: Arrivals = Arrivals.POISSON
    load: Annotated[list[Stage], Field(min_length=1, max_length=1000)] | Trace
    faults: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    """What is broken meanwhile, one after the other."""
    claims: Claims = Claims()
    _folder: Path = PrivateAttr(FOLDER)

    @cached_property
    def profile(self) -> Profile:
        """
        Raises:
            SwitchboardError: the trace can't be read, or the stages are none.
        """
        try:
            if isinstance(self.load, Trace):
                rows = read_trace(self._folder / self.load.file)
                return traced(rows, seconds=self.load.length, peak_rps=self.load.peak)
            return staged((one.rate, one.over or 0.0, one.held or 0.0) for one in self.load)
        except OSError as error:
            raise SwitchboardError(f"the trace {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise SwitchboardError(f"load: {error}") from None

    def held(self, start_s: float) -> list[Span]:
        """When the rate is held, and what its last change asked for is there: replicas take `start_s` to start."""
        changes = [*self.profile.changes()]
        ends = [0.0, *(span.end_s + self.claims.settle + start_s for span in changes)]
        begins = [*(span.begin_s for span in changes), self.profile.length_s]
        return [Span(begin, end) for begin, end in zip(ends, begins, strict=True) if begin < end]


def quantile(name: str) -> float:
    """`p99.9` as 0.999.

    Raises:
        ValueError: it is none.
    """
    try:
        percent = float(name.removeprefix("p")) if name.startswith("p") else math.nan
    except ValueError:
        percent = math.nan
    if not 0 < percent < 100:
        raise ValueError(f"{name!r} is no quantile; write p50, p99 or p99.9")
    return percent / 100


def names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str) -> Scenario:
    """The scenario of that name, or in that file.

    Raises:
        SwitchboardError: there is none, it can't be read, or it says what no scenario can.
    """
    file = Path(name) if "/" in name or name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(LONGEST_TEXT + 1)
        if len(text) > LONGEST_TEXT:
            raise SwitchboardError(f"the scenario {name} is longer than {LONGEST_TEXT:,} characters")
        document = yaml.safe_load(text)
    except FileNotFoundError:
        raise SwitchboardError(
            f"there is no scenario {name}", f"there are {', '.join(names())}, or the path of a YAML file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SwitchboardError(f"the scenario {name} can't be read: {error}") from None
    except _NO_YAML as error:
        raise SwitchboardError(f"the scenario {name} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise SwitchboardError(f"the scenario {name} is no mapping of keys to values")
    try:
        found = Scenario.model_validate(document)
    except ValidationError as error:
        raise SwitchboardError(f"the scenario {name}: {_first(error)}") from None
    found._folder = file.parent
    found.profile  # noqa: B018 - what it can't be is said at once
    if (needed_s := length_s(found.faults)) > found.profile.length_s and found.faults:
        raise SwitchboardError(
            f"the scenario {name}: its faults take {needed_s:g} s, and its load {found.profile.length_s:g} s"
        )
    if problem := unprovable(found):
        raise SwitchboardError(f"the scenario {name}: {problem}")
    return found


def unprovable(scenario: Scenario) -> str | None:
    """Why a claim can't be proven by a run of this load, or can't fail in it, whatever happens."""
    claims, profile = scenario.claims, scenario.profile
    requests = math.floor(profile.requests())
    if requests > MOST_REQUESTS:
        return f"{requests:,} requests are more than a run may have ({MOST_REQUESTS:,})"
    if claims.availability is not None and (
        failures_for(claims.availability, requests, claims.confidence) is None
    ):
        return (
            f"{requests:,} requests can't prove an availability of {claims.availability:.14g}: see "
            f"`switchboard loadtests plan --availability {claims.availability:.14g}`"
        )
    held = scenario.held(0.0)
    counted = sum(math.floor(profile.requests(span.begin_s, span.end_s)) for span in held)
    for name in claims.latency:
        if at_most(0, counted, claims.confidence) > 1 - quantile(name):
            return f"{counted:,} requests while the rate is held can't prove a {name}"
    if claims.out_of_level is not None and claims.out_of_level >= profile.length_s:
        return f"outOfLevel: of {profile.length_s:g} s no more than {claims.out_of_level:g} can be"
    if claims.capacity is not None:
        baseline, highest = profile.rate(0.0), max((profile.rate(span.begin_s) for span in held), default=0.0)
        wanted = claims.capacity * baseline
        if not baseline:
            return "capacity: the first stage has no rate, of which it could be a multiple"
        if not reaches(highest, wanted):
            return f"capacity: {highest:g} requests/s are held, and {claims.capacity:g}× {baseline:g} is more"
        most = max(
            profile.requests(one.begin_s, one.end_s)
            for one in held
            if reaches(profile.rate(one.begin_s), wanted)
        )
        if not provable(most, claims.confidence):
            return f"capacity: {most:,.0f} requests while that rate is held can't prove it"
    return None


def reaches(rate: float, wanted: float) -> bool:
    """Whether a rate is as high: 3.3 is 1.1 times 3, whatever floats say."""
    return rate >= wanted or math.isclose(rate, wanted)


def provable(requests: float, confidence: float) -> bool:
    """Whether so many requests, all of them good, show that GOOD_SHARE of such requests are."""
    return at_most(0, math.floor(requests), confidence) <= 1 - GOOD_SHARE


def _first(error: ValidationError) -> str:
    """One line of what pydantic found: where, and what."""
    one = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in one["loc"] if not isinstance(part, str) or "[" not in part)
    if one["type"] == "extra_forbidden":
        return f"{where} is no key of a scenario"
    return f"{where}: {one['msg'].removeprefix('Value error, ')}"
