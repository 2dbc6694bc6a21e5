"""Writing objects: server-side apply with a field manager of the object's own, and deletion.

Applying again is harmless, so what may or may not have reached a server that went away is tried again for a while.
A field that another manager owns is a conflict, which names that manager and the fields.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from infra.plugin.annotations import DELETION_PROPAGATION, PATCH_FORCE, annotation, is_true
from infra.plugin.paths import copy_at, parse_path
from switchboard.kube import ApiError, Kind, Kube, Object, Unreachable

RETRY_S = 30.0
_PAUSE_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_APPLY = "application/apply-patch+yaml"


class Refused(Exception):
    """The API server said no; the message is for the user. `error` is what it said."""

    def __init__(self, message: str, error: ApiError) -> None:
        super().__init__(message)
        self.error = error


class Cancelled(Exception):
    """The user broke the operation off."""


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
) -> Object:
    """The object as the server has it after the apply (with `dry_run`: as it would).

    Raises:
        Refused: with the reason, for a conflict with its managers and fields.
        Unreachable: no answer, for `retry_s`: it may or may not have been applied.
    """
    params = {"fieldManager": field_manager}
    if force or is_true(obj, PATCH_FORCE):
        params["force"] = "true"
    if dry_run:
        params["dryRun"] = "All"

    async def once() -> Object:
        return await kube.request("PATCH", path_of(kind, obj), params=params, body=obj, content_type=_APPLY)

    try:
        return await retried(once, cancelled, 0.0 if dry_run else retry_s)
    except ApiError as error:
        raise Refused(explain(error, obj), error) from None


async def retried(
    once: Callable[[], Awaitable[Any]], cancelled: asyncio.Event, retry_s: float = RETRY_S
) -> Any:
    """The answer of `once`, tried again for `retry_s` while the server is away or asks to wait.

    Raises:
        Cancelled: the user broke off between two tries.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + retry_s
    attempt = 0
    while True:
        try:
            return await once()
        except (ApiError, Unreachable) as error:
            pause_s = _PAUSE_S[min(attempt, len(_PAUSE_S) - 1)]
            if not _passing(error) or loop.time() + pause_s > until_s:
                raise
        attempt += 1
        try:
            await asyncio.wait_for(cancelled.wait(), pause_s)
        except TimeoutError:
            continue
        raise Cancelled("cancelled while the API server was away")


def _passing(error: ApiError | Unreachable) -> bool:
    """Whether trying again can help."""
    if isinstance(error, Unreachable):
        return True
    if error.status in (429, 502, 503, 504) or (error.status == 500 and "etcdserver" in error.message):
        return True
    if error.status == 409:
        return not conflicts(error) and "object has been modified" in error.message
    # A new namespace's default service account comes a moment after it.
    return error.status == 403 and "error looking up service account" in error.message


def conflicts(error: ApiError) -> dict[str, list[str]]:
    """The fields that other managers own, by manager."""
    found: dict[str, list[str]] = {}
    for cause in error.details.get("causes") or []:
        if cause.get("reason") == "FieldManagerConflict":
            quoted = re.search(r'conflict with "([^"]*)"', cause.get("message", ""))
            manager = quoted[1] if quoted else cause.get("message", "another manager")
            found.setdefault(manager, []).append(cause.get("field", "?").lstrip("."))
    return found


def explain(error: ApiError, obj: Object) -> str:
    """The server's refusal in words that say what to do."""
    if owners := conflicts(error):
        owned = "; ".join(f'"{manager}" manages {", ".join(fields)}' for manager, fields in owners.items())
        return (
            f"{name_of(obj)} conflicts with another field manager: {owned}. Leave these fields to it (remove them, "
            f'or `ignore_changes`), or take them over with the annotation {PATCH_FORCE}: "true"'
        )
    if error.status == 404 and error.details.get("kind") == "namespaces":
        return f"{name_of(obj)}: its namespace {error.details.get('name')} doesn't exist"
    return f"{name_of(obj)}: {error.message or error}"


def name_of(obj: Object) -> str:
    meta = obj.get("metadata") or {}
    name = f"{meta['namespace']}/{meta.get('name')}" if meta.get("namespace") else meta.get("name")
    return f"{obj.get('kind')} {name}"


def leave_ignored(obj: Object, live: Object, ignore_changes: Iterable[str]) -> None:
    """Set in `obj`, in place, what the user ignores to what it is now: an apply then changes and takes nothing over."""
    for text in ignore_changes:
        path = parse_path(text)
        if (
            path
            and path[0] not in ("apiVersion", "kind")
            and path[:2] not in (("metadata", "name"), ("metadata",))
        ):
            copy_at(path, live, obj)


async def relinquish(
    kube: Kube, kind: Kind, obj: Object, field_manager: str, cancelled: asyncio.Event
) -> None:
    """Give up `field_manager`'s fields: those nobody else owns are removed from the object."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace") if obj["metadata"].get(key)}
    bare = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}
    await apply(kube, kind, bare, field_manager=field_manager, force=True, cancelled=cancelled)


async def delete(
    kube: Kube, kind: Kind, obj: Object, inputs: Object, cancelled: asyncio.Event
) -> Object | None:
    """Ask for the object's deletion; None where it doesn't exist.

    Dependents go first unless `pulumi.com/deletionPropagationPolicy` says otherwise.
    """
    meta = obj["metadata"]
    namespace = meta.get("namespace") if kind.namespaced else None
    how = propagation(annotation(inputs, DELETION_PROPAGATION) or annotation(obj, DELETION_PROPAGATION))
    return await retried(lambda: kube.delete(kind, meta["name"], namespace, propagation=how), cancelled)


def propagation(value: str | None) -> Literal["Foreground", "Background", "Orphan"]:
    match (value or "").lower():
        case "background":
            return "Background"
        case "orphan":
            return "Orphan"
    return "Foreground"
