"""What the Pulumi program declares for a stack, found without a cluster, a plugin or Pulumi's engine.

The program runs in this process against a monitor that writes down what is registered and answers as a cluster would.
What only a cluster knows (a load balancer's address) is a name that says so, `<service>.<site>.address-known-after-up`.
Secrets stay marked (`infra.plugin.wire.Secret`), so that whoever writes objects down can leave them out; those of the
stack's configuration aren't read at all, and none needs to be set.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from infra import made
from infra.components.program import deploy
from infra.config import PROJECT, Stack
from infra.plugin import wire
from infra.plugin.check import Naming, checked
from infra.plugin.kinds import BUILT_IN, parse_token
from infra.plugin.naming import metadata_of, object_id
from switchboard.errors import SwitchboardError

ADDRESS_LATER = "address-known-after-up"
"""In place of an address that a cluster gives."""

_PROVIDER = "pulumi:providers:kubernetes"


@dataclass(frozen=True)
class Declared:
    """An object of the program: the site (its provider's name) and the manifest, secrets marked."""

    site: str
    manifest: wire.Properties

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        return str((metadata_of(self.manifest) or {})["name"])

    @property
    def namespace(self) -> str | None:
        """None for what belongs to the whole cluster."""
        return (metadata_of(self.manifest) or {}).get("namespace")

    def revealed(self) -> wire.Properties:
        """The manifest as it is sent, secrets in the clear: for judging it, never for writing it down."""
        return dict(wire.to_kubernetes(self.manifest))

    def becomes(self) -> list[Declared]:
        """What the operator makes of a ModelServer; of other objects nothing."""
        if not made.is_model_server(self.manifest):
            return []
        return [Declared(self.site, manifest) for manifest in made.manifests(self.revealed())]


def declare(stack: Stack, *, name: str) -> list[Declared]:
    """All objects that the program declares for `stack`, whose name is `name`, in an order that is always the same.

    An object without a name of its own gets one that follows from its contents, as a changed one is a new object.

    Raises:
        SwitchboardError: the program asks for something that only a cluster or the engine could tell.
    """
    monitor = _Monitor()
    # A thread of its own: Pulumi's SDK wants an event loop of its own, and the caller may be in one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_run, stack, name, monitor).result()
    return sorted(
        monitor.declared, key=lambda one: (one.site, one.namespace or "", one.kind.lower(), one.name)
    )


def _run(stack: Stack, name: str, monitor: _Monitor) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        # Not a preview: there an unknown address would make all that holds it unknown, whole files for a port.
        pulumi.runtime.set_mocks(monitor.mocks, project=PROJECT, stack=name, preview=False, monitor=monitor)

        @pulumi.runtime.test
        def program() -> None:
            deploy(stack, state=Path("/state"))

        program()
    finally:
        loop.close()


class _Answers(pulumi.runtime.Mocks):
    """What is no Kubernetes object (components, providers) is as it was asked for."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return args.name, args.inputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise SwitchboardError(
            f"the program asks for {args.token}, which takes a cluster: it can't be rendered"
        )


class _Monitor(MockMonitor):
    """Pulumi's own for tests, which also writes Kubernetes objects down as they are on the wire."""

    def __init__(self) -> None:
        super().__init__(_Answers())
        self.declared: list[Declared] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        if not request.type.startswith("kubernetes:"):
            return super().RegisterResource(request)
        declared = _declared(request)
        self.declared.append(declared)
        return resource_pb2.RegisterResourceResponse(
            urn=self.make_urn(request.parent, request.type, request.name),
            id=object_id(declared.namespace, declared.name),
            object=wire.encode(_answer(declared)),
        )


def _declared(request: Any) -> Declared:
    properties = wire.decode(request.object)
    token = parse_token(request.type, properties.get("kind"))
    kind = BUILT_IN.get((token.api_version, token.kind))
    naming = Naming(request.name, seed=request.object.SerializeToString(deterministic=True))
    namespace = "default" if kind is None or kind.namespaced else None
    site = request.provider.split("::")[-2] if f"{_PROVIDER}::" in request.provider else ""
    if not site:
        raise SwitchboardError(
            f"{token.kind} {request.name} has no provider of a site: Pulumi would put it in any cluster",
            "give it the options of its namespace: `opts=namespace.child(self)`",
        )
    return Declared(site, checked(properties, None, token, naming, namespace))


def _answer(declared: Declared) -> wire.Properties:
    """The object as a cluster would answer it, as far as programs read that."""
    spec = declared.manifest.get("spec")
    if declared.kind == "Service" and isinstance(spec, dict) and spec.get("type") == "LoadBalancer":
        ingress = [{"hostname": f"{declared.name}.{declared.site}.{ADDRESS_LATER}"}]
        return {**declared.manifest, "status": {"loadBalancer": {"ingress": ingress}}}
    return declared.manifest
