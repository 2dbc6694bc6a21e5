"""What the plugin tells the user: messages by way of the engine, beside the resource they are about."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

STAND_IN = (
    "Kubernetes objects go through Switchboard's stand-in for Pulumi's Kubernetes plugin 4.34.2 on this machine; "
    "`pulumi plugin install resource kubernetes 4.34.2` installs the official one where it can be fetched."
)


class Host:
    """The engine's log; messages are lost silently where there is no engine (any more)."""

    def __init__(self, engine_address: str | None) -> None:
        self._address = engine_address
        self._channel: grpc.aio.Channel | None = None
        self._last: OrderedDict[str, str] = OrderedDict()

    def attach(self, engine_address: str) -> None:
        self._address = engine_address

    async def info(self, text: str, urn: str = "") -> None:
        await self._log(engine_pb2.INFO, text, urn)

    async def warning(self, text: str, urn: str = "") -> None:
        await self._log(engine_pb2.WARNING, text, urn)

    async def status(self, text: str, urn: str) -> None:
        """What a resource is waiting for, shown in its line while it waits; the same text is sent once."""
        if self._last.get(urn) == text:
            return
        self._last[urn] = text
        await self._log(engine_pb2.INFO, text, urn, ephemeral=True)

    def done(self, urn: str) -> None:
        self._last.pop(urn, None)

    async def _log(
        self, severity: engine_pb2.LogSeverity.ValueType, text: str, urn: str, *, ephemeral: bool = False
    ) -> None:
        if not self._address:
            return
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address)
        request = engine_pb2.LogRequest(
            severity=severity, message=text, urn=urn, streamId=0, ephemeral=ephemeral
        )
        try:
            await engine_pb2_grpc.EngineStub(self._channel).Log(request, timeout=5)
        except grpc.RpcError:
            return

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


async def announce_once(host: Host) -> None:
    """Say, once for each run of the engine, that this is the stand-in.

    An engine starts one plugin for each provider, and again after its preview.
    """
    if await asyncio.to_thread(_first_of_engine, Path(tempfile.gettempdir())):
        await host.info(STAND_IN)


def _first_of_engine(folder: Path) -> bool:
    """Whether no other plugin of this process's parent has been here: a list of the last few engines, locked."""
    engine = f"{os.getppid()}:{_started(os.getppid())}"
    path = folder / f"switchboard-plugin-{os.getuid()}"
    try:
        handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
    except OSError:
        return True
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        seen = handle.read().split()
        if engine in seen:
            return False
        handle.seek(0)
        handle.truncate()
        handle.write("\n".join([*seen[-15:], engine]))
    return True


def _started(pid: int) -> str:
    """The process's start time, so that a process id used again isn't taken for the old one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
