"""The way to the API server, that can be cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from tests.conftest import ControlPlane


class Relay:
    """TCP from `ip:port` on to `ip:target`, that can be cut with all its connections."""

    def __init__(self, ip: str, target: int, port: int) -> None:
        self._ip, self._target, self._port = ip, target, port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._ip, self._port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self._server
        far_reader, far_writer = await asyncio.open_connection(self._ip, self._target)
        if server is None or self._server is not server:  # it was cut while this one was on its way
            for one in (writer, far_writer):
                one.transport.abort()
            return
        self._writers |= {writer, far_writer}

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


def relay_to(control_plane: ControlPlane, directory: Path) -> tuple[Relay, Path]:
    """A relay to the API server, not open yet, and the kubeconfig that goes by it."""
    api, port = str(control_plane.layout.control_plane_ip), 16443
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{api}:{port}"
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return Relay(api, 6443, port), kubeconfig
