"""In what way a drill's candidate is bad, as its file says: wire formats, and the folder that they are read from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from models.intents import INTENTS, LANGUAGES
from switchboard.api._base import Api
from switchboard.api.model_release import MetricName
from switchboard.errors import SwitchboardError

FOLDER: Final = Path(__file__).with_name("candidates")


class Fault(Api):
    """What is wrong with a candidate's process."""

    exits_at_load: bool = False
    exits_after: Annotated[int, Field(ge=1)] | None = None
    """So many questions."""
    waits_seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    """With every answer."""
    leaks_kib: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """With every question."""
    fails: Annotated[float, Field(ge=0, le=1)] = 0.0
    """So large a part of the questions, at random."""


class Training(Api):
    """What is wrong with a candidate's model. `hands_over`: it is never sure enough to answer."""

    confused_language: str | None = None
    confused_intent: str | None = None
    taken_for: str | None = None
    hands_over: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.confused_language not in (None, *LANGUAGES):
            raise ValueError(f"{self.confused_language} is no language of ours: {', '.join(LANGUAGES)}")
        for intent in (self.confused_intent, self.taken_for):
            if intent not in (None, *INTENTS):
                raise ValueError(f"{intent} is no intent (models/intents.py)")
        if (self.confused_intent is None) != (self.taken_for is None):
            raise ValueError("an intent is confused with another: say confusedIntent and takenFor")
        return self


class Candidate(Api):
    """One of them; its name is its file's."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
    what: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    fault: Fault = Fault()
    training: Training = Training()
    ends: Literal["RolledBack", "Promoted"] = "RolledBack"
    """What is to become of it."""
    found_by: Annotated[tuple[MetricName | Literal["start"], ...], Field(max_length=8)] = ()
    """By what, any of these: a metric that is shown to be harmful, or that it doesn't start."""

    @property
    def sha256(self) -> str:
        """Of what its file says is wrong with it, hexadecimal."""
        said = self.model_dump_json(include={"name", "fault", "training"})
        return hashlib.sha256(said.encode()).hexdigest()


def read(folder: Path = FOLDER) -> tuple[Candidate, ...]:
    """All candidates of a folder, the bad ones first: a good one becomes the champion.

    Raises:
        SwitchboardError: a file isn't one, or there is none.
    """
    found = [_one(path) for path in sorted(folder.glob("*.yaml"))]
    if not found:
        raise SwitchboardError(f"there are no candidates (*.yaml) in {folder}")
    return tuple(sorted(found, key=lambda one: one.ends == "Promoted"))


def chosen(names: list[str], folder: Path = FOLDER) -> tuple[Candidate, ...]:
    """Those of these names; all where none is given.

    Raises:
        SwitchboardError: there is none of a name.
    """
    found = read(folder)
    known = {one.name for one in found}
    if missing := [name for name in names if name not in known]:
        raise SwitchboardError(
            f"there is no candidate {missing[0]} in {folder.name}/", f"there are {', '.join(sorted(known))}"
        )
    return tuple(one for one in found if not names or one.name in names)


def _one(path: Path) -> Candidate:
    try:
        return Candidate.model_validate({"name": path.stem, **(yaml.safe_load(path.read_text()) or {})})
    except (yaml.YAMLError, TypeError) as error:
        raise SwitchboardError(f"{path.name} is no candidate: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or path.stem
        raise SwitchboardError(f"{path.name}: {where}: {first['msg']}") from None
