"""A step trial that is told to end: the ModelServer is somebody's, and gets its own spec back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from aiohttp import web

from operators.trials.step import undoing
from switchboard.kinds import MODEL_SERVERS, PODS
from switchboard.kube import Object
from switchboard.paths import ROOT
from tests.pods import until

SPACE = "serving"
SPEC = {
    "replicas": 2,
    "resources": {"memory": "256Mi", "cpu": "1"},
    "scaling": {"mode": "paused", "maxReplicas": 12, "headroom": {"levelSeconds": 300}},
}
LONG_S = 240.0


def merged(patch: Any, into: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(into) if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(value, found.get(key))
    return found


@pytest.mark.parametrize(
    ("changes", "before"),
    [
        pytest.param({"scaling": {"maxReplicas": 8}}, SPEC, id="what was there has its value again"),
        pytest.param({"scaling": {"minReplicas": 1}}, SPEC, id="what wasn't there is gone"),
        pytest.param({"scaling": {"headroom": {"price": 0}}}, SPEC, id="also within what was there"),
        pytest.param({"capacity": {"concurrency": 4}}, SPEC, id="a part that wasn't there"),
        pytest.param({"replicas": 7}, SPEC, id="a number that a rule has set"),
        pytest.param({"replicas": 7}, {"scaling": {}}, id="a number that nobody had set"),
        pytest.param({"scaling": {"schedules": [{"a": 1}]}}, {"scaling": {"schedules": []}}, id="a list"),
        pytest.param({"scaling": None}, SPEC, id="what was taken out"),
    ],
)
def test_what_was_changed_is_undone(changes: Object, before: Object) -> None:
    changed = merged(changes, before)
    assert changed != before
    assert merged(undoing(changes, before), changed) == before
    meanwhile = merged({"image": "v2"}, changed)
    assert merged(undoing(changes, before), meanwhile) == {**before, "image": "v2"}, "others' changes stay"


class Api:
    """An API server with one ModelServer, and its customers' gateway."""

    def __init__(self) -> None:
        self.spec: Object = SPEC
        self.changes = self.questions = 0
        self.unanswered = False
        """Whether the first change is made and not answered; the second one waits until it `may_be_undone`."""
        self.may_be_undone = asyncio.Event()

    async def get(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": "chat"}, "spec": self.spec})

    async def patch(self, request: web.Request) -> web.Response:
        self.changes += 1
        if self.changes > 1:
            await self.may_be_undone.wait()
        self.spec = merged(await request.json(), {"spec": self.spec})["spec"]
        if self.changes == 1 and self.unanswered:
            await asyncio.sleep(LONG_S)
        return await self.get(request)

    async def none(self, request: web.Request) -> web.Response:
        if "watch" in request.query:
            await asyncio.sleep(LONG_S)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    async def ask(self, _: web.Request) -> web.Response:
        self.questions += 1
        return web.Response(status=503)


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, str]]:
    made, app = Api(), web.Application()
    one = MODEL_SERVERS.path(SPACE, "chat")
    app.router.add_get(one, made.get)
    app.router.add_patch(one, made.patch)
    for kind in (MODEL_SERVERS, PODS):
        app.router.add_get(kind.path(SPACE), made.none)
    app.router.add_post("/v1/chat", made.ask)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield made, f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
async def trial(api: tuple[Api, str], tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A trial in its warm-up."""
    document = {
        "clusters": [{"name": "c", "cluster": {"server": api[1]}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "public", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "operators.trials.step", "--url", api[1], "--base", "2"),
        *("--kubeconfig", str(tmp_path / "kubeconfig"), "--namespace", SPACE, "--out", str(tmp_path / "out")),
        cwd=ROOT,
        start_new_session=True,
    )
    yield process
    with suppress(ProcessLookupError):  # its customers, too, which one that fails leaves behind
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def below(process: asyncio.subprocess.Process) -> dict[psutil.Process, list[str]]:
    """Its children with their commands, but for those that have ended meanwhile."""
    found = {}
    for one in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[one] = one.cmdline()
    return found


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(LONG_S):
        return await process.wait()


async def test_told_to_end_while_customers_ask(
    api: tuple[Api, str], trial: asyncio.subprocess.Process
) -> None:
    server, _ = api
    await until(lambda: server.questions, LONG_S)
    assert server.spec == {
        "replicas": 2,
        "resources": {"memory": "256Mi", "cpu": "50m", "cpuLimit": "200m"},
        "scaling": {
            "mode": "active",
            "minReplicas": 1,
            "maxReplicas": 8,
            "stabilizationSeconds": 20,
            "headroom": {"levelSeconds": 300, "price": 0},
        },
    }
    started = below(trial)
    assert any("locust" in command for command in started.values())
    trial.send_signal(signal.SIGTERM)
    await until(lambda: server.changes == 2, LONG_S)
    assert [one for one in started if one.is_running()] == []
    trial.send_signal(signal.SIGTERM)  # an impatient one doesn't keep it from what it has to do
    await asyncio.sleep(0.1)
    server.may_be_undone.set()
    assert await ended(trial) == 128 + signal.SIGTERM
    assert server.spec == SPEC


async def test_told_to_end_while_the_spec_is_changed(
    api: tuple[Api, str], trial: asyncio.subprocess.Process
) -> None:
    server, _ = api
    server.unanswered = True
    server.may_be_undone.set()
    await until(lambda: server.spec != SPEC, LONG_S)
    trial.send_signal(signal.SIGTERM)
    assert await ended(trial) == 128 + signal.SIGTERM
    assert (server.changes, server.spec) == (2, SPEC)
