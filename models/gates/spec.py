"""What a gate's file may say: each line of it is checked, and what it doesn't name isn't.

Shares are between 0 and 1. A figure is one of `models.evaluation`'s for floors, one of `models.comparison.FIGURES` for
comparisons.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from models.comparison import FIGURES
from switchboard.errors import SwitchboardError

FOLDER = Path(__file__).parent

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
FLOORS = ("accuracy", "coverage", "answered_accuracy", "precision", "out_of_scope_rejected", "macro_f1")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Floor(_Part):
    """A figure of a test that must be at least so much."""

    test: Name
    figure: Name
    at_least: Share

    @field_validator("figure")
    @classmethod
    def _known(cls, figure: str) -> str:
        if figure not in FLOORS:
            raise ValueError(f"{figure!r} is none of {', '.join(FLOORS)}")
        return figure


class NoWorse(_Part):
    """Over all tests, at the gate's confidence, worse than the champion by less than the margin."""

    figure: Name
    margin: Annotated[float, Field(gt=0, le=1)]

    @field_validator("figure")
    @classmethod
    def _known(cls, figure: str) -> str:
        return _compared(figure)


class Slices(_Part):
    """No language, intent or customer group that is worse by more than its margin, and not by chance."""

    figure: Name
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Of each; there are some thirty, so one of 0.95 would fail a model that is as good as the champion."""
    margins: dict[Annotated[str, StringConstraints(pattern="^(language|intent|customers)$")], Share]

    @field_validator("figure")
    @classmethod
    def _known(cls, figure: str) -> str:
        return _compared(figure)


class Fairness(_Part):
    """The largest difference of a figure between two customer groups, on the test that has groups."""

    accuracy_difference_at_most: Share
    hand_off_difference_at_most: Share
    more_than_champion_at_most: Share
    """How much larger than the champion's, on the same texts, either difference may be."""


class Calibration(_Part):
    """On all tests together."""

    error_at_most: Share
    brier_at_most: Share


class Latency(_Part):
    """Of one text asked alone, on the machine of the gate."""

    p99_ms_at_most: Annotated[float, Field(gt=0)]
    times_champion_at_most: Annotated[float, Field(gt=1)]
    """The candidate's median over the champion's, both asked in turn."""


class Size(_Part):
    """Of the files that a server loads."""

    bytes_at_most: Annotated[int, Field(gt=0)]


class Leak(_Part):
    """What of the tests may have been learnt."""

    bent_share_at_most: Share
    """Of a test's texts: what bending makes of a text of the training may by chance be a text of a test."""


class Refit(_Part):
    """Fitted again on the record of its training, the model must say the same."""

    confidence_difference_at_most: Share


class Gate(_Part):
    """A gate's file."""

    model: Name
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    floors: tuple[Floor, ...]
    no_worse: tuple[NoWorse, ...]
    slices: Slices
    fairness: Fairness
    calibration: Calibration
    latency: Latency
    size: Size
    leak: Leak
    refit: Refit
    licences: tuple[Name, ...]
    """SPDX identifiers that data may have."""
    sha256: Annotated[str, Field(exclude=True)] = ""
    """Of the file."""


def load(model: str, path: Path | None = None) -> Gate:
    """The gate of a model: `models/gates/<model>.yaml`, or another file.

    Raises:
        SwitchboardError: there is none, or it says what a gate can't say.
    """
    path = path or FOLDER / f"{model}.yaml"
    try:
        content = path.read_bytes()
        raw: Any = yaml.safe_load(content)
        if not isinstance(raw, dict) or "sha256" in raw:
            raise ValueError("a mapping is needed, without sha256")
        return Gate.model_validate({"model": model} | raw | {"sha256": hashlib.sha256(content).hexdigest()})
    except OSError:
        raise SwitchboardError(
            f"there is no gate for {model}: {path} can't be read", "name one: --gate FILE"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SwitchboardError(f"{path.name} is not a gate: {where}: {first['msg']}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SwitchboardError(f"{path.name} is not a gate: {error}") from None


def _compared(figure: str) -> str:
    if figure not in FIGURES:
        raise ValueError(f"{figure!r} is none of {', '.join(FIGURES)}")
    return figure
