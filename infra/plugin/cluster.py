"""One provider's cluster: connected when the first object needs it, with its discovery."""

from __future__ import annotations

import asyncio

from infra.plugin.config import Config
from infra.plugin.discovery import Discovery
from infra.plugin.kinds import BUILT_IN, TypeToken
from switchboard.errors import SwitchboardError
from switchboard.kube import Kind, Kube

_TIMEOUT_S = 30.0
_UNLIMITED = 0  # every wait holds some for its watches; Pulumi bounds how many resources it does at once


class NoCluster(Exception):
    """The cluster can't be reached as configured; the message says why."""


class Cluster:
    """A lazily made connection; `close` it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._kube: Kube | None = None
        self._discovery: Discovery | None = None
        self._lock = asyncio.Lock()

    async def kube(self) -> Kube:
        """The connection.

        Raises:
            NoCluster: the kubeconfig is missing or can't be used.
        """
        async with self._lock:
            if self._kube is None:
                try:
                    kube = Kube(
                        self.config.credentials(),
                        timeout_s=_TIMEOUT_S,
                        user_agent="switchboard-plugin",
                        max_connections=_UNLIMITED,
                    )
                    self._kube = await kube.__aenter__()
                except (SwitchboardError, OSError, ValueError) as error:
                    raise NoCluster(str(error)) from None
            return self._kube

    async def discovery(self) -> Discovery:
        kube = await self.kube()
        if self._discovery is None:
            self._discovery = Discovery(kube)
        return self._discovery

    async def find_kind(self, token: TypeToken, *, fresh: bool = False) -> Kind | None:
        """The resource type; None where the cluster doesn't serve it. Built-in ones ask nobody."""
        if found := BUILT_IN.get((token.api_version, token.kind)):
            return found
        return await (await self.discovery()).find(token.api_version, token.kind, fresh=fresh)

    def kinds_changed(self) -> None:
        if self._discovery is not None:
            self._discovery.forget()

    async def close(self) -> None:
        if self._kube is not None:
            await self._kube.__aexit__()
            self._kube = None
