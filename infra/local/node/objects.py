"""Config maps, secrets and volumes of the node's pods: asked of the API server, kept on disk for when it is away.

A node may read only what its pods name, one object at a time (the Node authorizer), and learns of that with a short
delay; hence the second try after `Forbidden`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Iterable

from infra.local.node.checkpoint import ObjectCache
from infra.local.node.podspec import ConfigError
from switchboard.kube import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    SECRETS,
    ApiError,
    Kind,
    Kube,
    Object,
    Unreachable,
)

log = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {
    kind.kind: kind for kind in (CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES)
}
_FORBIDDEN_RETRIES_S = (0.05, 0.15, 0.4)
_AWAY_S = 10.0
_REMEMBERED = 256


class Objects:
    """Reads objects by kind, namespace and name, with the last known copy where the API server doesn't answer.

    While it is known to be away, a copy is taken without asking: a line that swallows everything would hold each
    question up until its time-out, and a node that is cut off has to start its pods now.
    """

    def __init__(self, kube: Kube, cache: ObjectCache) -> None:
        self._kube = kube
        self._cache = cache
        self._away_until = 0.0
        self._answers: OrderedDict[str, tuple[float, Object | None]] = OrderedDict()

    @property
    def away(self) -> bool:
        """Was the site lately found to be out of reach?"""
        return asyncio.get_running_loop().time() < self._away_until

    def site_is_away(self) -> None:
        """It didn't answer; believed for a while."""
        self._away_until = asyncio.get_running_loop().time() + _AWAY_S

    def site_is_back(self) -> None:
        self._away_until = 0.0

    async def get(self, kind: str, namespace: str, name: str, *, max_age_s: float = 0.0) -> Object | None:
        """The object; None where it doesn't exist. An answer that any pod got at most `max_age_s` ago will do: a
        hundred pods that look at the same root certificate need to ask once.

        Raises:
            ConfigError: not to be had now: no answer and no copy, or refused.
        """
        key = f"{kind}.{namespace}.{name}"
        now = asyncio.get_running_loop().time()
        at, answer = self._answers.get(key, (-math.inf, None))
        if now - at < max_age_s:
            return answer
        if self.away and (known := self._cache.load(key)) is not None:
            return known
        try:
            found = await self._ask(KINDS[kind], namespace, name)
        except (Unreachable, ApiError) as error:
            if isinstance(error, Unreachable):
                self.site_is_away()
            if isinstance(error, ApiError) and error.status < 500 and error.status != 429:
                raise ConfigError(f'{kind.lower()} "{name}": {error.message}') from error
            if (known := self._cache.load(key)) is None:
                raise ConfigError(
                    f'{kind.lower()} "{name}": the API server doesn\'t answer ({error}) and there is no copy'
                ) from error
            return known
        self._remember(key, now, found)
        if found is None:
            self._cache.drop(key)
            return None
        found["metadata"].pop("managedFields", None)
        known = self._cache.load(key)
        if known is None or known["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            try:
                self._cache.save(key, found)
            except OSError as error:
                log.error("no copy of %s can be kept: %s", key, error)
        return found

    async def _ask(self, kind: Kind, namespace: str, name: str) -> Object | None:
        for wait_s in (*_FORBIDDEN_RETRIES_S, None):
            try:
                return await self._kube.get_or_none(kind, name, namespace if kind.namespaced else None)
            except ApiError as error:
                if error.status != 403 or wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _remember(self, key: str, now: float, answer: Object | None) -> None:
        self._answers[key] = (now, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)

    async def get_all(
        self, namespace: str, wanted: Iterable[tuple[str, str]], *, max_age_s: float = 0.0
    ) -> dict[tuple[str, str], Object | None]:
        """Several at once, by (kind, name)."""
        keys = sorted(set(wanted))
        found = await asyncio.gather(
            *(self.get(kind, namespace, name, max_age_s=max_age_s) for kind, name in keys)
        )
        return dict(zip(keys, found, strict=True))

    def forget(self, namespace: str, keys: Iterable[tuple[str, str]]) -> None:
        """Drop the copies that no pod of the node needs any more (secrets don't outlive their use)."""
        for kind, name in keys:
            self._answers.pop(f"{kind}.{namespace}.{name}", None)
            self._cache.drop(f"{kind}.{namespace}.{name}")
