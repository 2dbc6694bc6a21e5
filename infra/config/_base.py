"""What the parts of a stack file have in common: strictness, and the shapes of their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from switchboard import quantities


def more_than_none(value: str) -> str:
    if quantities.parse(value) == 0:
        raise ValueError(
            f"{value} is nothing: a quantity is more than 0 (Kubernetes takes a limit of 0 for none)"
        )
    return value


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
"""A DNS label of at most 32 characters."""
Quantity = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"), AfterValidator(more_than_none)
]
"""A Kubernetes quantity above zero: `500m`, `512Mi`."""
Count = Annotated[int, Field(strict=True)]
"""A whole number as YAML writes one: neither `true` nor `"3"` is."""
Host = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$", max_length=200
    ),
]
"""A host's DNS name, or an IPv4 address."""
Image = Annotated[str, Field(min_length=1, pattern=r"^\S+$")]
"""A container image; outside the embedded cloud with its digest (`infra/policy` sees to that)."""


class Strict(BaseModel):
    """Unknown keys are errors, and what was read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def strictly(model: type[BaseModel]) -> BeforeValidator:
    """A part of the API as a part of a stack file: a number is one and no text, `true` or fraction, as elsewhere here.

    By way of JSON, in which pydantic's strictness knows names of enumerations and lists for what they are.
    """

    def read(value: Any) -> Any:
        return (
            model.model_validate_json(json.dumps(value), strict=True) if isinstance(value, Mapping) else value
        )

    return BeforeValidator(read)
