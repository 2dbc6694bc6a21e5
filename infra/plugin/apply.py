"""Writing objects: server-side apply with a field manager of the object's own, and deletion.

Applying again is harmless, so what may or may not have reached a server that went away is tried again for a while.
A field that another manager owns is a conflict, which names that manager and the fields.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from infra.plugin.annotations import DELETION_PROPAGATION, PATCH_FORCE, annotation, is_true
from infra.plugin.refusals import Refused, conflicts, explain
from switchboard.kube import ApiError, Kind, Kube, Object, Unreachable

RETRY_S = 30.0
BACK_S = 10.0
"""How long after an outage a refusal of access is taken for a part of it."""

_PAUSE_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_APPLY = "application/apply-patch+yaml"


class Cancelled(Exception):
    """The user broke the operation off."""


@dataclass
class Outage:
    """When a server was last seen away, in the event loop's seconds; one for each connection.

    An API server that has just come back refuses for a moment what it allows: it serves before it has read the rules
    of access, and service accounts' tokens, again.
    """

    seen_s: float = -math.inf

    def is_recent(self, now_s: float) -> bool:
        return now_s - self.seen_s < BACK_S


def path_of(kind: Kind, obj: Object) -> str:
    meta = obj["metadata"]
    return kind.path(meta.get("namespace") if kind.namespaced else None, meta["name"])


async def apply(
    kube: Kube,
    kind: Kind,
    obj: Object,
    *,
    field_manager: str,
    force: bool = False,
    dry_run: bool = False,
    cancelled: asyncio.Event,
    retry_s: float = RETRY_S,
    outage: Outage | None = None,
) -> Object:
    """The object as the server has it after the apply (with `dry_run`: as it would).

    Raises:
        Refused: with the reason, for a conflict with its managers and fields.
        Unreachable: no answer, for `retry_s`: it may or may not have been applied.
    """
    params = {"fieldManager": field_manager, "fieldValidation": "Strict"}
    if force or is_true(obj, PATCH_FORCE):
        params["force"] = "true"
    if dry_run:
        params["dryRun"] = "All"

    async def once() -> Object:
        return await kube.request("PATCH", path_of(kind, obj), params=params, body=obj, content_type=_APPLY)

    try:
        return await retried(once, cancelled, 0.0 if dry_run else retry_s, outage)
    except ApiError as error:
        raise Refused(explain(error, obj), error) from None


async def retried(
    once: Callable[[], Awaitable[Any]],
    cancelled: asyncio.Event,
    retry_s: float = RETRY_S,
    outage: Outage | None = None,
) -> Any:
    """The answer of `once`, tried again for `retry_s` while the server is away or asks to wait.

    Raises:
        Cancelled: the user broke off between two tries.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + retry_s
    outage = outage or Outage()
    attempt = 0
    while True:
        try:
            return await once()
        except (ApiError, Unreachable) as error:
            if isinstance(error, Unreachable):
                outage.seen_s = loop.time()
            pause_s = _PAUSE_S[min(attempt, len(_PAUSE_S) - 1)]
            if not _passing(error, outage.is_recent(loop.time())) or loop.time() + pause_s > until_s:
                raise
        attempt += 1
        try:
            await asyncio.wait_for(cancelled.wait(), pause_s)
        except TimeoutError:
            continue
        raise Cancelled("cancelled while the API server was away")


def _passing(error: ApiError | Unreachable, just_back: bool) -> bool:
    """Whether trying again can help; `just_back`: the server was away a moment ago."""
    if isinstance(error, Unreachable):
        return True
    if error.status in (429, 502, 503, 504) or (error.status == 500 and "etcdserver" in error.message):
        return True
    if error.status == 409:
        return not conflicts(error) and "object has been modified" in error.message
    if error.status in (401, 403) and just_back:
        return True
    # A new namespace's default service account comes a moment after it.
    return error.status == 403 and "error looking up service account" in error.message


async def relinquish(
    kube: Kube,
    kind: Kind,
    obj: Object,
    field_manager: str,
    cancelled: asyncio.Event,
    outage: Outage | None = None,
) -> None:
    """Give up `field_manager`'s fields: those nobody else owns are removed from the object."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace") if obj["metadata"].get(key)}
    bare = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
    await apply(kube, kind, bare, field_manager=field_manager, force=True, cancelled=cancelled, outage=outage)


async def delete(
    kube: Kube,
    kind: Kind,
    obj: Object,
    inputs: Object,
    cancelled: asyncio.Event,
    outage: Outage | None = None,
) -> Object | None:
    """Ask for the object's deletion; None where it doesn't exist.

    Dependents go first unless `pulumi.com/deletionPropagationPolicy` says otherwise.
    """
    meta = obj["metadata"]
    namespace = meta.get("namespace") if kind.namespaced else None
    how = propagation(annotation(inputs, DELETION_PROPAGATION) or annotation(obj, DELETION_PROPAGATION))

    async def once() -> Object | None:
        return await kube.delete(kind, meta["name"], namespace, propagation=how)

    return await retried(once, cancelled, outage=outage)


def propagation(value: str | None) -> Literal["Foreground", "Background", "Orphan"]:
    match (value or "").lower():
        case "background":
            return "Background"
        case "orphan":
            return "Orphan"
    return "Foreground"
