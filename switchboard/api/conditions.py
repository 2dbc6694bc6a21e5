"""Conditions in Kubernetes' standard form."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from switchboard.api._base import Api

Flag = Literal["True", "False", "Unknown"]


class Condition(Api):
    """As `metav1.Condition`."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=316)]
    status: Flag
    reason: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)
    ]
    message: Annotated[str, StringConstraints(max_length=32_768)] = ""
    last_transition_time: datetime
    observed_generation: Annotated[int, Field(ge=0)] = 0


def put(
    conditions: Sequence[Condition],
    kind: str,
    status: Flag,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with this one in place of its like; its time is that of the last change of its status.

    Where nothing has changed, they are the same tuple.
    """
    before = next((one for one in conditions if one.type == kind), None)
    said = (status, reason, message, generation)
    if before is not None and said == (
        before.status,
        before.reason,
        before.message,
        before.observed_generation,
    ):
        return tuple(conditions)
    since = before.last_transition_time if before is not None and before.status == status else now
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
    if before is None:
        return (*conditions, new)
    return tuple(new if one.type == kind else one for one in conditions)
