"""Listeners on all addresses that are in the way of pods and Services, with real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.components import alertmanager, gateway, mlflow, model_server, prometheus
from infra.local import ports
from infra.local.layout import SiteLayout
from serving.gateway import settings
from switchboard.errors import SwitchboardError
from tests.conftest import shared_networks
from tests.infra.local.runtime.conftest import Box
from tests.infra.local.test_pki import layout_at


@pytest.fixture
def layout(tmp_path: Path) -> SiteLayout:
    return layout_at(tmp_path, shared_networks()[0])


@pytest.fixture
def wildcard() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        yield held


def test_it_is_named_with_its_program_and_what_to_do(layout: SiteLayout, wildcard: socket.socket) -> None:
    port = wildcard.getsockname()[1]
    with pytest.raises(SwitchboardError, match=rf"port {port} .* pid {os.getpid()} \(.*python") as caught:
        ports.check(layout, (port,))
    assert f"kill {os.getpid()}" in (caught.value.next_step or "")
    with socket.create_server(("127.0.0.1", 0)) as other:  # so that it is nobody else's
        ports.check(layout, (other.getsockname()[1],))


def test_one_that_is_in_nobodys_way(layout: SiteLayout) -> None:
    with socket.socket(socket.AF_INET6) as held, socket.socket() as other:
        try:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held.bind(("::", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        held.listen()
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports.check(layout, (held.getsockname()[1], other.getsockname()[1]))


async def test_a_pod_of_ours_does_not_keep_the_cloud_from_coming_up(box: Box, layout: SiteLayout) -> None:
    """It has its Warning Event; the next `up` may be the one that replaces it."""
    code = "import socket as s, time; h = s.socket(); h.bind(('0.0.0.0', 0)); h.listen(); "
    code += "print(h.getsockname()[1], flush=True); time.sleep(600)"
    await box.runtime.start(box.spec("c", "/usr/bin/env", "python3", "-c", code))
    async with asyncio.timeout(120):
        while not box.lines("c", "stdout"):
            await asyncio.sleep(0.01)
    port = int(box.lines("c", "stdout")[0])
    assert ports._in_the_way(str(layout.proxy_ip), port)
    ports.check(layout, (port,))


def test_every_port_of_the_components_is_looked_at() -> None:
    used = {module.PORT for module in (alertmanager, gateway, mlflow, model_server, prometheus)}
    assert used | {gateway.STATS_PORT, settings.PORT, settings.OPS_PORT} <= set(ports.SHARED)
