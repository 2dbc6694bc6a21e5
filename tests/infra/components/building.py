"""One component alone, by Pulumi's mocks: what it declares, and what it puts out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi

from infra import config
from infra.components.site import SiteNamespace
from infra.namespaces import of_role
from tests.infra.components.rendered import stack_of

Object = dict[str, Any]
ADDRESS = "127.99.0.9"


@dataclass
class Built(pulumi.runtime.Mocks):
    """What was declared, by kind and name, and the values of the outputs that were asked for."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    components: dict[str, str] = field(default_factory=dict)
    """Names of components by their type."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, Object]:
        state = dict(args.inputs)
        kind = args.typ.rpartition(":")[2]
        if args.typ.startswith("kubernetes:"):
            state["metadata"] = {"name": f"{args.name}-0a1b2c3d", **state["metadata"]}
            assert (kind, state["metadata"]["name"]) not in self.objects
            self.objects[kind, state["metadata"]["name"]] = state
            if state.get("spec", {}).get("type") == "LoadBalancer":
                state = {**state, "status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
        elif args.typ.startswith("switchboard:"):
            self.components[kind] = args.name
        return args.name, state

    def call(self, args: pulumi.runtime.MockCallArgs) -> Object:
        raise AssertionError(f"unexpected call {args.token}")

    def kinds(self) -> dict[str, set[str]]:
        """The names of each kind's objects, the namespace itself left out."""
        found: dict[str, set[str]] = {}
        for kind, name in self.objects:
            if kind != "Namespace":
                found.setdefault(kind, set()).add(name)
        return found


def build(role: str, make: Callable[[SiteNamespace, config.Stack], dict[str, pulumi.Output[Any]]]) -> Built:
    """Run `make` in a namespace of the local stack's site of that role; it returns the outputs to look at."""
    stack = stack_of("local")
    built = Built()

    def run() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            pulumi.runtime.set_mocks(built, project="switchboard", stack="test", preview=False)

            @pulumi.runtime.test
            def program() -> pulumi.Output[Any]:
                site = stack.private if role == "private" else stack.public[0]
                namespace = SiteNamespace(site, of_role(site.role), state=Path("/state"))
                return pulumi.Output.all(**make(namespace, stack)).apply(built.outputs.update)

            program()
        finally:
            loop.close()

    with ThreadPoolExecutor(1) as pool:  # Pulumi's SDK wants an event loop of its own
        pool.submit(run).result()
    return built
