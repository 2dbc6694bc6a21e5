"""What a gateway pod is told by its environment, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from switchboard.errors import SwitchboardError

PORT = 8080
"""Customers' requests."""
OPS_PORT = 9902
"""Probes and statistics: `/livez`, `/ready` (also `/readyz`), `/stats/prometheus`."""


@dataclass(frozen=True)
class Settings:
    """One gateway: its address, its tier and, of an edge, its region."""

    pod_ip: str
    pod_name: str
    namespace: str
    tier: Literal["core", "edge"]
    region: str
    directory: Path
    model_servers: tuple[str, ...] = ()
    """Model servers that are known from the start: 503 rather than 404 until they have a pod."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """From POD_IP, POD_NAME, POD_NAMESPACE, GATEWAY_TIER, GATEWAY_REGION, CONFIG_DIR, MODEL_SERVERS.

        Raises:
            SwitchboardError: a variable is missing or wrong.
        """
        needed = ("POD_IP", "POD_NAME", "POD_NAMESPACE", "GATEWAY_TIER")
        if missing := [name for name in needed if not environ.get(name)]:
            raise SwitchboardError(f"the gateway's environment has no {', '.join(missing)}")
        tier, region = environ["GATEWAY_TIER"], environ.get("GATEWAY_REGION", "")
        if tier not in ("core", "edge"):
            raise SwitchboardError(f"GATEWAY_TIER must be core or edge, it is {tier!r}")
        if tier == "edge" and not region:
            raise SwitchboardError("an edge gateway needs GATEWAY_REGION")
        return cls(
            pod_ip=environ["POD_IP"],
            pod_name=environ["POD_NAME"],
            namespace=environ["POD_NAMESPACE"],
            tier=cast(Literal["core", "edge"], tier),
            region=region,
            directory=Path(environ.get("CONFIG_DIR") or "/etc/envoy"),
            model_servers=tuple(filter(None, environ.get("MODEL_SERVERS", "").split(","))),
        )

    @property
    def bootstrap(self) -> Path:
        return self.directory / "bootstrap.yaml"

    @property
    def clusters(self) -> Path:
        return self.directory / "clusters.json"

    @property
    def routes(self) -> Path:
        return self.directory / "routes.json"

    @property
    def ops_routes(self) -> Path:
        return self.directory / "ops-routes.json"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "admin.sock"

    def endpoints(self, cluster: str) -> Path:
        return self.directory / f"endpoints-{cluster}.json"

    def known_servers(self) -> set[str]:
        """Model servers that this gateway was told of, or has met before."""
        met = (path.stem.removeprefix("endpoints-") for path in self.directory.glob("endpoints-*.json"))
        return {*self.model_servers, *(name.partition("@")[0] for name in met)}
