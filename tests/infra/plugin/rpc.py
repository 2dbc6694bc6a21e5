"""The provider behind its gRPC face: what `Resources` offers, spoken over the protocol as the engine speaks it.

With it the small engine of `conftest` drives the servicer itself, messages and errors included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from infra.plugin.check import Failure, Naming
from infra.plugin.diff import Change, Difference
from infra.plugin.host import Host
from infra.plugin.resources import Found
from infra.plugin.servicer import Provider
from infra.plugin.wire import Properties, decode, encode
from infra.plugin.writer import InitFailed

_CHANGES = {
    provider_pb2.PropertyDiff.ADD: Change.ADD,
    provider_pb2.PropertyDiff.ADD_REPLACE: Change.ADD,
    provider_pb2.PropertyDiff.UPDATE: Change.UPDATE,
    provider_pb2.PropertyDiff.UPDATE_REPLACE: Change.UPDATE,
    provider_pb2.PropertyDiff.DELETE: Change.DELETE,
    provider_pb2.PropertyDiff.DELETE_REPLACE: Change.DELETE,
}


class Refusal(Exception):
    """A call that the plugin answered with an error: its message, as the user reads it."""


class Remote:
    """A provider on the other side of a channel."""

    def __init__(self, channel: Any) -> None:
        self.stub = provider_pb2_grpc.ResourceProviderStub(channel)

    async def configure(self, **settings: Any) -> None:
        await _call(self.stub.Configure(provider_pb2.ConfigureRequest(args=encode(settings))))

    async def check(
        self, type_: str, news: Properties, olds: Properties | None, naming: Naming
    ) -> tuple[Properties, list[Failure]]:
        request = provider_pb2.CheckRequest(
            urn=_urn(type_, naming.resource_name), news=encode(news), randomSeed=naming.seed
        )
        if olds is not None:
            request.olds.CopyFrom(encode(olds))
        answer = await _call(self.stub.Check(request))
        return decode(answer.inputs), [Failure(item.property, item.reason) for item in answer.failures]

    async def diff(
        self, type_: str, state: Properties, old_inputs: Properties, news: Properties, ignore: list[str]
    ) -> Difference:
        answer = await _call(
            self.stub.Diff(
                provider_pb2.DiffRequest(
                    urn=_urn(type_),
                    olds=encode(state),
                    old_inputs=encode(old_inputs),
                    news=encode(news),
                    ignoreChanges=ignore,
                )
            )
        )
        changes = {path: _CHANGES[item.kind] for path, item in answer.detailedDiff.items()}
        assert (answer.changes == provider_pb2.DiffResponse.DIFF_SOME) is bool(changes or answer.replaces)
        return Difference(changes, tuple(answer.replaces), answer.deleteBeforeReplace)

    async def create(
        self, urn: str, type_: str, inputs: Properties, timeout_s: float, preview: bool
    ) -> tuple[str, Properties]:
        answer = await _call(
            self.stub.Create(
                provider_pb2.CreateRequest(
                    urn=urn, properties=encode(inputs), timeout=timeout_s, preview=preview
                )
            )
        )
        return answer.id, decode(answer.properties)

    async def read(self, type_: str, id_: str, state: Properties, inputs: Properties) -> Found:
        answer = await _call(
            self.stub.Read(
                provider_pb2.ReadRequest(
                    urn=_urn(type_), id=id_, properties=encode(state), inputs=encode(inputs)
                )
            )
        )
        return Found(answer.id, decode(answer.properties), decode(answer.inputs))

    async def update(
        self,
        urn: str,
        type_: str,
        state: Properties,
        news: Properties,
        ignore: list[str],
        timeout_s: float,
        preview: bool,
    ) -> Properties:
        answer = await _call(
            self.stub.Update(
                provider_pb2.UpdateRequest(
                    urn=urn,
                    olds=encode(state),
                    news=encode(news),
                    ignoreChanges=ignore,
                    timeout=timeout_s,
                    preview=preview,
                )
            )
        )
        return decode(answer.properties)

    async def delete(self, urn: str, type_: str, id_: str, state: Properties, timeout_s: float) -> None:
        await _call(
            self.stub.Delete(
                provider_pb2.DeleteRequest(urn=urn, id=id_, properties=encode(state), timeout=timeout_s)
            )
        )

    async def cancel(self) -> None:
        await _call(self.stub.Cancel(empty_pb2.Empty()))


def _urn(type_: str, name: str = "x") -> str:
    return f"urn:pulumi:t::p::{type_}::{name}"


async def _call(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _failure(error) from None


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    details = error.details() or ""
    assert "Traceback" not in details, details
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if packed is None:
        return Refusal(details)
    found = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(found)
    assert found.reasons[0] == details
    return InitFailed(
        found.id, details, decode(found.properties), decode(found.inputs), list(found.reasons)[1:]
    )


@asynccontextmanager
async def served(host: Host) -> AsyncIterator[Remote]:
    """A servicer of our own process, and a channel to it."""
    server = grpc.aio.server()
    provider = Provider(host)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Remote(channel)
    await provider.close()
    await server.stop(None)
