"""What the API's models have in common: camelCase in files, unknown keys are errors, values don't change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Api(BaseModel):
    """A part of a custom resource."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
