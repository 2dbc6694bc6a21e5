"""The plugin as a process: it speaks the protocol, tells the user what it waits for, and ends when it should."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2

from infra.plugin.install import install
from infra.plugin.servicer import VERSION
from infra.plugin.wire import UNKNOWN, Properties, Secret, decode, encode
from switchboard.kube import NAMESPACES, Credentials, Kube
from tests.conftest import ControlPlane
from tests.infra.plugin.conftest import CONFIG_MAP, DEPLOYMENT, deployment


class EngineLog(engine_pb2_grpc.EngineServicer):
    """The engine's side of the conversation."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.arrived = asyncio.Event()

    async def Log(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.messages.append(request)
        self.arrived.set()
        return empty_pb2.Empty()

    async def until(self, words: str) -> Any:
        while True:
            for message in self.messages:
                if words in message.message:
                    return message
            self.arrived.clear()
            async with asyncio.timeout(60):
                await self.arrived.wait()


class Plugin:
    """A running plugin and the calls that Pulumi makes."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: EngineLog) -> None:
        self.process = process
        self.log = log
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)

    @staticmethod
    def urn(type_: str, name: str) -> str:
        return f"urn:pulumi:t::p::{type_}::{name}"

    async def configure(self, **settings: Any) -> None:
        await self.stub.Configure(provider_pb2.ConfigureRequest(args=encode(settings)))

    async def check(self, type_: str, name: str, news: Properties) -> Any:
        return await self.stub.Check(
            provider_pb2.CheckRequest(urn=self.urn(type_, name), news=encode(news), randomSeed=b"seed")
        )

    async def create(self, type_: str, name: str, inputs: Any, **more: Any) -> Any:
        return await self.stub.Create(
            provider_pb2.CreateRequest(urn=self.urn(type_, name), properties=inputs, **more)
        )


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Plugin]:
    log = EngineLog()
    engine = grpc.aio.server()
    engine_pb2_grpc.add_EngineServicer_to_server(log, engine)
    address = f"127.0.0.1:{engine.add_insecure_port('127.0.0.1:0')}"
    await engine.start()
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        install(tmp_path), address, stdout=asyncio.subprocess.PIPE, env=environ, cwd=tmp_path
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        port = int(await process.stdout.readline())
    running = Plugin(process, port, log)
    yield running
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        await process.wait()
    await running.channel.close()
    await engine.stop(None)


@pytest.fixture
async def namespace(control_plane: ControlPlane) -> AsyncIterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": name}})
        yield name
        await kube.delete(NAMESPACES, name)


async def test_a_conversation(plugin: Plugin, control_plane: ControlPlane, namespace: str) -> None:
    stub = plugin.stub
    hello = await stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address=""))
    assert hello.accept_secrets
    assert not hello.accept_outputs
    assert (await stub.GetPluginInfo(empty_pb2.Empty())).version == VERSION
    await plugin.configure(kubeconfig=str(control_plane.kubeconfig))
    said = await plugin.log.until("stand-in")
    assert said.severity == engine_pb2.INFO

    secret = Secret("hunter2")
    news = {"metadata": {"namespace": namespace}, "data": {"a": "1", "b": secret}}
    checked = (await plugin.check(CONFIG_MAP, "c", news)).inputs
    preview = await plugin.create(CONFIG_MAP, "c", checked, preview=True)
    assert preview.id == ""
    assert decode(preview.properties)["data"] == {"a": "1", "b": secret}
    made = await plugin.create(CONFIG_MAP, "c", checked)
    assert made.id.startswith(f"{namespace}/c-")

    changed = decode(checked) | {"data": {"a": UNKNOWN, "b": secret}}
    urn = plugin.urn(CONFIG_MAP, "c")
    difference = await stub.Diff(
        provider_pb2.DiffRequest(urn=urn, id=made.id, olds=made.properties, news=encode(changed))
    )
    assert difference.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert list(difference.replaces) == ["data.a"]
    assert difference.detailedDiff["data.a"].kind == provider_pb2.PropertyDiff.UPDATE_REPLACE
    assert not difference.deleteBeforeReplace

    read = await stub.Read(
        provider_pb2.ReadRequest(urn=urn, id=made.id, properties=made.properties, inputs=checked)
    )
    assert read.id == made.id
    assert read.inputs == checked
    await stub.Delete(provider_pb2.DeleteRequest(urn=urn, id=made.id, properties=made.properties))
    gone = await stub.Read(provider_pb2.ReadRequest(urn=urn, id=made.id, properties=made.properties))
    assert gone.id == ""


async def test_a_wait_shows_its_progress_and_ends_with_the_state_when_cancelled(
    plugin: Plugin, control_plane: ControlPlane, namespace: str
) -> None:
    await plugin.configure(kubeconfig=str(control_plane.kubeconfig), namespace=namespace)
    checked = (await plugin.check(DEPLOYMENT, "web", deployment())).inputs
    work = asyncio.ensure_future(plugin.create(DEPLOYMENT, "web", checked, timeout=300))
    status = await plugin.log.until("0 of 1 replicas available")
    assert status.ephemeral
    assert status.urn == plugin.urn(DEPLOYMENT, "web")
    await plugin.stub.Cancel(empty_pb2.Empty())
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await work
    kept = init_failed(caught.value)
    assert kept.id == f"{namespace}/web"
    assert decode(kept.properties)["metadata"]["uid"]
    assert any("cancelled" in reason for reason in kept.reasons)


def init_failed(error: grpc.aio.AioRpcError) -> Any:
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(detail)
    return detail


@pytest.mark.parametrize(
    ("configured", "call", "message"),
    [
        (
            True,
            lambda p: p.check("kubernetes:helm.sh/v3:Release", "r", {}),
            "needs the official Kubernetes plugin",
        ),
        (False, lambda p: p.check(CONFIG_MAP, "c", {"data": {"a": "1"}}), "used before it was configured"),
        (False, lambda p: p.configure(renderYamlToDirectory="out"), "needs the official Kubernetes plugin"),
        (
            True,
            lambda p: p.stub.Construct(provider_pb2.ConstructRequest(type="kubernetes:yaml/v2:ConfigGroup")),
            "needs the official Kubernetes plugin",
        ),
        (
            True,
            lambda p: p.stub.Invoke(provider_pb2.InvokeRequest(tok="kubernetes:helm:template")),
            "needs the official Kubernetes plugin",
        ),
    ],
    ids=["helm", "not configured", "render", "component", "function"],
)
async def test_what_it_can_t_do_is_said_without_a_traceback(
    plugin: Plugin, configured: bool, call: Any, message: str
) -> None:
    if configured:
        await plugin.configure()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(plugin)
    details = caught.value.details() or ""
    assert message in details
    assert "Traceback" not in details


async def test_wrong_settings_are_found_before_anything_is_done(plugin: Plugin) -> None:
    request = provider_pb2.CheckRequest(news=encode({"deleteUnreachable": "maybe"}))
    (failure,) = (await plugin.stub.CheckConfig(request)).failures
    assert "must be true or false" in failure.reason
    unknown = provider_pb2.CheckRequest(news=encode({"kubeconfig": UNKNOWN}))
    assert not (await plugin.stub.CheckConfig(unknown)).failures


async def test_another_server_is_another_cluster(plugin: Plugin) -> None:
    def kubeconfig(server: str) -> str:
        return json.dumps(
            {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [{"name": "a", "cluster": {"server": server}}],
                "users": [{"name": "a", "user": {}}],
            }
        )

    async def diff(old: str, new: str) -> Any:
        olds, news = encode({"kubeconfig": kubeconfig(old)}), encode({"kubeconfig": kubeconfig(new)})
        return await plugin.stub.DiffConfig(provider_pb2.DiffRequest(olds=olds, news=news))

    assert list((await diff("http://a", "http://b")).replaces) == ["kubeconfig"]
    same = await diff("http://a", "http://a")
    assert same.changes == provider_pb2.DiffResponse.DIFF_NONE


async def test_it_says_what_it_is_once_for_each_engine(plugin: Plugin, tmp_path: Path) -> None:
    await plugin.configure()
    await plugin.log.until("stand-in")
    await plugin.configure()
    await plugin.stub.GetPluginInfo(empty_pb2.Empty())
    assert [m.message for m in plugin.log.messages if "stand-in" in m.message] == [
        plugin.log.messages[0].message
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_when_it_is_told_to(plugin: Plugin, number: signal.Signals) -> None:
    plugin.process.send_signal(number)
    async with asyncio.timeout(60):
        assert await plugin.process.wait() == 0


async def test_it_ends_with_its_engine(tmp_path: Path) -> None:
    # Nobody listens at this engine's address.
    process = await asyncio.create_subprocess_exec(
        install(tmp_path), "127.0.0.1:1", stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_it_starts_with_what_it_needs(tmp_path: Path) -> None:
    """Not with the SDK, and with the HTTP client only when an API server is asked."""
    heavy = ("pulumi.output", "pydantic", "rich", "typer", "cryptography", "aiohttp.client")
    code = (
        "import sys; from infra.plugin import _lean; _lean.install(); import infra.plugin.servicer;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await done.communicate()
    assert out.decode().strip() == "[]"
