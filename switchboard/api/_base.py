"""What the API's models have in common: camelCase in files, unknown keys are errors, values don't change.

A model's `rules` are those across its fields, in CEL, for the API server; its validators say the same in Python. A test
puts the same cases to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


@dataclass(frozen=True)
class Rule:
    """A rule in CEL over an object (`self`), the sentence for what breaks it, and the field that the sentence is about.

    The sentence names no values: to put numbers into text costs more than an API server allows a message.
    """

    cel: str
    message: str
    field: str


class Api(BaseModel):
    """A part of a custom resource."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
    rules: ClassVar[tuple[Rule, ...]] = ()
