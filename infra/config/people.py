"""People as a stack file has them: who uses MLflow, and as what."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from infra.config._base import Count, Name, Strict
from switchboard.registry_users import OF_PEOPLE, SERVICES, Role


class Person(Strict):
    """A user of MLflow. The password is made by the stack (`switchboard infra credentials`); another `turn` makes
    another one."""

    name: Name
    role: Role = Role.READER
    turn: Annotated[Count, Field(ge=1, le=10_000)] = 1

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in SERVICES:
            raise ValueError(f"{value!r} is a user that every stack has: give people names of their own")
        return value

    @field_validator("role")
    @classmethod
    def _for_people(cls, value: Role) -> Role:
        if value not in OF_PEOPLE:
            raise ValueError(f"{value!r} is no role for people, who are one of {', '.join(OF_PEOPLE)}")
        return value
