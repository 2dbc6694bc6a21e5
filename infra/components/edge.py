"""An edge location: a gateway and a basic chat server on the edge node of a region.

The gateway sends customers to the site's model servers while it can, and to its own when it can't.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from infra.components.gateway import Gateway, GatewayArgs
from infra.components.model_server import ModelServerArgs, ModelServerSet
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace


@dataclass(frozen=True)
class EdgeArgs:
    """An edge's region, its gateway and its model servers."""

    region: str
    gateway: GatewayArgs
    servers: Sequence[ModelServerArgs]


class EdgeLocation(pulumi.ComponentResource):
    """The edge of a region; its gateway is of the site's `identity`, its model servers come when `after` is there.

    Outputs: `url` of the region's gateway.
    """

    url: pulumi.Output[str]

    def __init__(
        self,
        namespace: SiteNamespace,
        args: EdgeArgs,
        identity: PodReader,
        *,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        super().__init__(
            "switchboard:infra:Edge",
            f"{namespace.site.name}-{args.region}",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        self.region = args.region
        self.gateway = Gateway(namespace, args.gateway, identity, parent=self)
        for server in args.servers:
            ModelServerSet(namespace, server, after=after, parent=self)
        self.url = self.gateway.url
        self.register_outputs({"url": self.url})
