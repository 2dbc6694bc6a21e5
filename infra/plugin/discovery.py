"""Which kinds an API server knows: asked once, and again where a kind is missing (a CRD may have come)."""

from __future__ import annotations

import asyncio
import time

from infra.plugin.kinds import BUILT_IN
from switchboard.kube import ApiError, Kind, Kube, Object

_AGE_S = 1.0


class Discovery:
    """The kinds of one API server beyond the built-in ones."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._asked_s: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def find(self, api_version: str, kind: str, *, fresh: bool = False) -> Kind | None:
        """The resource type, or None where the server doesn't serve it.

        A miss asks the server unless it was asked within the last second (`fresh`: always), so that many objects of
        a kind that isn't there yet cost one question.
        """
        key = (api_version, kind)
        if found := BUILT_IN.get(key) or self._kinds.get(key):
            return found
        async with self._lock:
            asked_s = self._asked_s.get(api_version)
            if key not in self._kinds and (fresh or asked_s is None or time.monotonic() - asked_s > _AGE_S):
                await self._ask(api_version)
                self._asked_s[api_version] = time.monotonic()
        return self._kinds.get(key)

    def forget(self) -> None:
        """A CRD was created or deleted: what was learnt may be wrong."""
        self._kinds.clear()
        self._asked_s.clear()

    async def _ask(self, api_version: str) -> None:
        # Only the version in question: one small answer, instead of the whole catalogue of groups.
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            answer = await self._kube.request("GET", root + api_version)
        except ApiError as error:
            if error.not_found:
                return
            raise
        self._kinds.update(read_resource_list(answer))


def read_resource_list(answer: Object) -> dict[tuple[str, str], Kind]:
    """The kinds in an `APIResourceList` (subresources left out)."""
    version = answer["groupVersion"]
    return {
        (version, item["kind"]): Kind(version, item["name"], item["kind"], item["namespaced"])
        for item in answer.get("resources") or []
        if "/" not in item["name"]
    }
