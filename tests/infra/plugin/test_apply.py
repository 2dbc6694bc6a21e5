"""Refusals in words, and what is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.plugin.apply import Cancelled, Outage, propagation, retried
from infra.plugin.refusals import conflicts, explain
from switchboard.kube import ApiError, Unreachable

OBJ = {"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}}


def conflict(*causes: tuple[str, str]) -> ApiError:
    details = {
        "causes": [
            {"reason": "FieldManagerConflict", "message": f'conflict with "{who}" using v1', "field": field}
            for who, field in causes
        ]
    }
    return ApiError(409, "Conflict", "Apply failed", details)


def test_conflicts_are_by_manager() -> None:
    error = conflict(("kubectl", ".data.a"), ("helm", ".data.b"), ("kubectl", ".data.c"))
    assert conflicts(error) == {"kubectl": ["data.a", "data.c"], "helm": ["data.b"]}
    text = explain(error, OBJ)
    assert text.startswith("ConfigMap n/x conflicts with another field manager")
    assert '"kubectl" manages data.a, data.c; "helm" manages data.b' in text


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("refused"),
        ApiError(429, "TooManyRequests", ""),
        ApiError(503, "", ""),
        ApiError(500, "", "etcdserver: leader changed"),
        ApiError(409, "Conflict", "the object has been modified; please apply your changes"),
        ApiError(403, "Forbidden", "error looking up service account n/default"),
    ],
    ids=str,
)
async def test_what_passes_is_tried_again(error: Exception) -> None:
    errors = iter([error])

    async def once() -> str:
        if (failure := next(errors, None)) is not None:
            raise failure
        return "answer"

    assert await retried(once, asyncio.Event(), 5) == "answer"


@pytest.mark.parametrize(
    "error",
    [
        ApiError(403, "Forbidden", "exceeded quota"),
        ApiError(404, "NotFound", ""),
        ApiError(422, "Invalid", ""),
        ApiError(500, "", "a bug"),
        conflict(("kubectl", ".data.a")),
    ],
    ids=str,
)
async def test_what_stays_is_said_at_once(error: ApiError) -> None:
    tries = 0

    async def once() -> None:
        nonlocal tries
        tries += 1
        raise error

    with pytest.raises(ApiError):
        await retried(once, asyncio.Event(), 60)
    assert tries == 1


async def test_a_server_that_just_came_back_may_refuse_for_a_moment() -> None:
    denied = ApiError(403, "Forbidden", 'User "admin" cannot patch resource "configmaps"')
    answers = iter([Unreachable("refused"), denied, ApiError(401, "Unauthorized", "Unauthorized")])
    outage = Outage()

    async def once() -> str:
        if (error := next(answers, None)) is not None:
            raise error
        return "done"

    assert await retried(once, asyncio.Event(), 60, outage) == "done"
    # Other calls of the same connection know of the outage, until it is long past.
    answers = iter([denied])
    assert await retried(once, asyncio.Event(), 60, outage) == "done"
    answers = iter([denied])
    outage.seen_s -= 60
    with pytest.raises(ApiError, match="cannot patch"):
        await retried(once, asyncio.Event(), 60, outage)


async def test_a_retry_ends_when_the_user_breaks_off() -> None:
    cancelled = asyncio.Event()

    async def once() -> Any:
        cancelled.set()
        raise Unreachable("refused")

    with pytest.raises(Cancelled):
        await retried(once, cancelled, 60)


@pytest.mark.parametrize(
    ("value", "how"),
    [(None, "Foreground"), ("background", "Background"), ("Orphan", "Orphan"), ("x", "Foreground")],
)
def test_propagation(value: str | None, how: str) -> None:
    assert propagation(value) == how
