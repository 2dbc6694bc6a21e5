"""A live copy of a list of Kubernetes objects: list, watch, list again when the watch is lost.

The copy survives the API server's absence: it stays as it was last seen (`synced` stays set, `connected` tells), so
that whoever uses it goes on with what it knew. Lists come in pages, so that one of many thousand objects is never in
memory as a whole where only facts of them are kept (`compact`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from switchboard.kube import ApiError, Kind, Kube, Object, Unreachable

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace (empty for cluster-wide kinds) and name."""


PAGE = 500
"""Objects in one answer to a list."""


def key_of(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Informer:
    """Keeps `items` up to date and calls `on_change(key, old, new)` for each change (None: absent).

    `on_change` is called in the event loop and must not block; it is also called for what a new list shows to have
    come, changed or gone while the watch was lost. `compact` gives what is kept of an object (by default all of it): it
    has to leave namespace, name and resourceVersion in place, and `old` is what it left.
    """

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_change: Callable[[Key, Object | None, Object | None], None] | None = None,
        compact: Callable[[Object], Object] | None = None,
    ) -> None:
        self._kube = kube
        self.kind = kind
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change
        self._compact = compact
        self.items: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self.connected = False

    async def run(self) -> None:
        """Until cancelled; every failure is logged once per outage and tried again with back-off up to 5 s."""
        failures = 0
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                    failures = 0
                async for event in self._kube.watch(
                    self.kind,
                    self._namespace,
                    resource_version=version,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                ):
                    failures = 0
                    self.connected = True
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        self._put(key_of(event.object), None if event.type == "DELETED" else event.object)
            except (ApiError, Unreachable) as error:
                self.connected = False
                stale = isinstance(error, ApiError) and error.status == 410 and version is not None
                version = None if isinstance(error, ApiError) else version
                if stale:
                    continue  # what happened meanwhile is forgotten: list again, at once
                if failures == 0:
                    log.warning("watch of %s lost: %s", self.kind.plural, error)
                failures += 1
                # Jittered, so that the agents of a site don't come back all at once.
                await asyncio.sleep(min(5.0, 0.1 * 2 ** min(failures, 6)) * random.uniform(0.5, 1.0))  # noqa: S311

    async def _list(self) -> str:
        gone = set(self.items)
        token: str | None = None
        while True:
            found = await self._kube.list_raw(
                self.kind,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=PAGE,
                token=token,
            )
            for item in found["items"]:
                gone.discard(key_of(item))
                self._put(key_of(item), item)
            token = found["metadata"].get("continue")
            if not token:
                break
        for key in gone:
            self._put(key, None)
        self.connected = True
        self.synced.set()
        return found["metadata"]["resourceVersion"]

    def _put(self, key: Key, new: Object | None) -> None:
        old = self.items.get(key)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = self._compact(new) if self._compact is not None else new
        if old is new or (
            old and new and old["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]
        ):
            return
        if self._on_change is not None:
            try:
                self._on_change(key, old, new)
            except Exception:
                log.exception("handler of %s %s failed", self.kind.plural, key)
