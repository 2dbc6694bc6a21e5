"""The plugin's gRPC face: Pulumi's resource provider protocol, turned into calls of `infra.plugin.resources`.

Every failure becomes a message to the user, without a traceback; a wait that failed carries the object's state, so
that the engine keeps it.
"""

# ruff: noqa: N802 - the methods are named by the protocol
from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from infra.plugin import config as configuration
from infra.plugin.apply import Cancelled
from infra.plugin.await_.waiting import WaitFailed
from infra.plugin.check import Naming
from infra.plugin.cluster import NoCluster
from infra.plugin.diff import Change, Difference
from infra.plugin.host import Host, announce_once
from infra.plugin.invoke import invoke
from infra.plugin.kinds import type_of_urn
from infra.plugin.refusals import Refused, plain, unauthorized, unreachable
from infra.plugin.resources import Resources
from infra.plugin.state import IDENTITY
from infra.plugin.wire import decode, encode, has_unknown
from infra.plugin.writer import InitFailed
from switchboard.errors import SwitchboardError
from switchboard.kube import ApiError, Unreachable

VERSION = "4.34.2"
"""The version of the official plugin that this stands in for."""

_EXPECTED = (Cancelled, NoCluster, WaitFailed, SwitchboardError, ValueError)
_KINDS = {
    (Change.ADD, False): provider_pb2.PropertyDiff.ADD,
    (Change.ADD, True): provider_pb2.PropertyDiff.ADD_REPLACE,
    (Change.UPDATE, False): provider_pb2.PropertyDiff.UPDATE,
    (Change.UPDATE, True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
    (Change.DELETE, False): provider_pb2.PropertyDiff.DELETE,
    (Change.DELETE, True): provider_pb2.PropertyDiff.DELETE_REPLACE,
}

Context: TypeAlias = Any
"""`grpc.aio.ServicerContext`, which has no types."""


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One plugin process: configured once, then asked about many resources at once."""

    def __init__(
        self, host: Host, make: Callable[[configuration.Config, Host], Resources] = Resources
    ) -> None:
        self._host = host
        self._make = make
        self._resources: Resources | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self._resources is not None:
            await self._resources.close()
        for task in self._background:
            task.cancel()
        await self._host.close()

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncIterator[None]:
        """Turn what goes wrong into the call's error."""
        config = self._resources.config if self._resources is not None else None
        try:
            yield
        except InitFailed as failure:
            await _abort_with_state(context, failure)
        except Unreachable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, unreachable(error, config))
        except (ApiError, Refused) as refusal:
            await context.abort(grpc.StatusCode.UNKNOWN, _said(refusal, config))
        except _EXPECTED as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))

    @property
    def resources(self) -> Resources:
        if self._resources is None:
            raise ValueError("the Kubernetes provider was used before it was configured")
        return self._resources

    # About the plugin.

    async def Handshake(self, request: Any, context: Context) -> Any:
        if request.engine_address:
            self._host.attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, supports_autonaming_configuration=True
        )

    async def Attach(self, request: Any, context: Context) -> Any:
        self._host.attach(request.address)
        return empty_pb2.Empty()

    async def GetPluginInfo(self, request: Any, context: Context) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    async def GetSchema(self, request: Any, context: Context) -> Any:
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "kubernetes", "version": VERSION}))

    async def Cancel(self, request: Any, context: Context) -> Any:
        if self._resources is not None:
            self._resources.cancel()
        return empty_pb2.Empty()

    # Configuration.

    async def CheckConfig(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            news = decode(request.news)
            if not has_unknown(news):
                try:
                    configuration.parse(news, os.environ)
                except SwitchboardError as error:
                    return provider_pb2.CheckResponse(
                        inputs=request.news, failures=[provider_pb2.CheckFailure(reason=str(error))]
                    )
            return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            olds, news = decode(request.olds), decode(request.news)
            changed = sorted(
                key for key in {*olds, *news} if olds.get(key) != news.get(key) and key != "version"
            )
            replaces: list[str] = []
            if changed and not has_unknown(news) and not has_unknown(olds):
                replaces = configuration.replaces(
                    configuration.parse(olds, os.environ), configuration.parse(news, os.environ)
                )
            some = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
            return provider_pb2.DiffResponse(changes=some, diffs=changed, replaces=replaces)

    async def Configure(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            self._resources = self._make(configuration.parse(decode(request.args), os.environ), self._host)
            task = asyncio.ensure_future(announce_once(self._host))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            return provider_pb2.ConfigureResponse(
                acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
            )

    # Resources.

    async def Check(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            olds = decode(request.olds) if request.HasField("olds") else None
            inputs, failures = await self.resources.check(
                type_of_urn(request.urn), decode(request.news), olds or None, _naming(request)
            )
            return provider_pb2.CheckResponse(
                inputs=encode(inputs),
                failures=[provider_pb2.CheckFailure(property=f.path, reason=f.reason) for f in failures],
            )

    async def Diff(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            difference = await self.resources.diff(
                type_of_urn(request.urn),
                decode(request.olds, IDENTITY),
                decode(request.old_inputs),
                decode(request.news),
                list(request.ignoreChanges),
            )
            return diff_response(difference)

    async def Create(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            id_, properties = await self.resources.create(
                request.urn,
                type_of_urn(request.urn),
                decode(request.properties),
                request.timeout,
                request.preview,
            )
            return provider_pb2.CreateResponse(id=id_, properties=encode(properties))

    async def Read(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            found = await self.resources.read(
                type_of_urn(request.urn), request.id, decode(request.properties), decode(request.inputs)
            )
            if not found.id:
                return provider_pb2.ReadResponse()
            return provider_pb2.ReadResponse(
                id=found.id, properties=encode(found.properties), inputs=encode(found.inputs)
            )

    async def Update(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            properties = await self.resources.update(
                request.urn,
                type_of_urn(request.urn),
                decode(request.olds, IDENTITY),
                decode(request.news),
                list(request.ignoreChanges),
                request.timeout,
                request.preview,
            )
            return provider_pb2.UpdateResponse(properties=encode(properties))

    async def Delete(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            await self.resources.delete(
                request.urn, type_of_urn(request.urn), request.id, decode(request.properties), request.timeout
            )
            return empty_pb2.Empty()

    # Functions and components.

    async def Invoke(self, request: Any, context: Context) -> Any:
        async with self._answering(context):
            response = provider_pb2.InvokeResponse()
            # The field is called `return`, which only `getattr` can say.
            getattr(response, "return").CopyFrom(encode(invoke(request.tok, decode(request.args))))
            return response

    async def Construct(self, request: Any, context: Context) -> Any:
        return await _unsupported(
            context, f"{request.type} needs the official Kubernetes plugin; declare its objects"
        )

    async def Call(self, request: Any, context: Context) -> Any:
        await _unsupported(context, f"{request.tok} needs the official Kubernetes plugin")


def _naming(request: Any) -> Naming:
    options = request.autonaming if request.HasField("autonaming") else None
    disabled = options is not None and options.mode == provider_pb2.CheckRequest.AutonamingOptions.DISABLE
    return Naming(
        resource_name=request.urn.split("::", 3)[3],
        seed=request.randomSeed,
        proposed=(options.proposed_name or None) if options is not None and not disabled else None,
        disabled=disabled,
    )


def diff_response(difference: Difference) -> Any:
    """The protocol's form of a difference; its paths are those of inputs."""
    replaces = set(difference.replaces)
    changed = bool(difference.changes or replaces)
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
        replaces=list(difference.replaces),
        deleteBeforeReplace=difference.delete_before_replace,
        diffs=sorted({path.partition(".")[0].partition("[")[0] for path in difference.changes}),
        detailedDiff={
            path: provider_pb2.PropertyDiff(kind=_KINDS[change, path in replaces], inputDiff=True)
            for path, change in difference.changes.items()
        },
        hasDetailedDiff=True,
    )


def _said(refusal: ApiError | Refused, config: configuration.Config | None) -> str:
    error = refusal.error if isinstance(refusal, Refused) else refusal
    if error.status == 401 and config is not None:
        return unauthorized(config, datetime.now(UTC))
    if isinstance(refusal, Refused):
        return str(refusal)
    return f"the Kubernetes API server refused: {plain(error.message) or error}"


async def _abort_with_state(context: Context, failure: InitFailed) -> None:
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=failure.id,
            properties=encode(failure.properties),
            inputs=encode(failure.inputs),
            reasons=failure.reasons,
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(failure), details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(grpc.StatusCode.UNKNOWN, str(failure))


async def _unsupported(context: Context, message: str) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)
