"""An edge location: a gateway and a basic chat server on the edge node of a region.

The gateway sends customers to the site's model servers while it can, and to its own when it can't.
"""

from __future__ import annotations

import pulumi

from infra.components.gateway import Gateway, GatewayArgs
from infra.components.model_server import ModelServerSet, Placement
from infra.components.pod_reader import PodReader
from infra.components.site import SiteNamespace
from infra.config import Edge, Stack


class EdgeLocation(pulumi.ComponentResource):
    """Outputs: `url` of the region's gateway."""

    def __init__(
        self,
        namespace: SiteNamespace,
        stack: Stack,
        edge: Edge,
        identity: PodReader,
        *,
        mlflow_url: pulumi.Input[str],
        after: list[pulumi.Resource],
    ) -> None:
        super().__init__(
            "switchboard:infra:Edge",
            f"{namespace.site.name}-{edge.region}",
            None,
            pulumi.ResourceOptions(parent=namespace),
        )
        self.region = edge.region
        self.gateway = Gateway(
            namespace,
            stack,
            GatewayArgs(
                name=f"gateway-{edge.region}",
                placement=Placement("edge", edge.region, replicas=1),
                endpoint="edge",
            ),
            identity,
            parent=self,
        )
        for server in stack.model_servers:
            if server.edge_replicas:
                ModelServerSet(
                    namespace,
                    stack,
                    server,
                    Placement("edge", edge.region, server.edge_replicas),
                    mlflow_url=mlflow_url,
                    after=after,
                    parent=self,
                )
        self.url = self.gateway.url
        self.register_outputs({"url": self.url})
