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
HOLD_S, HOLD_REQUESTS = 30.0, 100
"""A chat server's first replica takes 8 to 20 s to start."""


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
    hold_s: float = HOLD_S
    """How long a request waits for the first replica of a model server that has none."""
    hold_requests: int = HOLD_REQUESTS
    """How many of a model server's requests wait; the next ones are refused at once."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """From POD_IP, POD_NAME, POD_NAMESPACE, GATEWAY_TIER, GATEWAY_REGION, CONFIG_DIR, MODEL_SERVERS, HOLD_S,
        HOLD_REQUESTS.

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
            hold_s=_number(environ, "HOLD_S", HOLD_S, 0.1, 300),
            hold_requests=int(_number(environ, "HOLD_REQUESTS", HOLD_REQUESTS, 1, 1000)),
        )

    @property
    def bootstrap(self) -> Path:
        return self.directory / "bootstrap.yaml"

    @property
    def clusters(self) -> Path:
        return self.directory / "clusters.json"

    @property
    def bounds(self) -> Path:
        return self.directory / "bounds.json"

    @property
    def routes(self) -> Path:
        return self.directory / "routes.json"

    @property
    def released_routes(self) -> Path:
        return self.directory / "released-routes.json"

    @property
    def ops_routes(self) -> Path:
        return self.directory / "ops-routes.json"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "admin.sock"

    @property
    def activator_socket(self) -> Path:
        """Where the agent takes requests that have to wait."""
        return self.directory / "activator.sock"

    @property
    def released_socket(self) -> Path:
        """Where Envoy takes them back."""
        return self.directory / "released.sock"

    @property
    def last_known(self) -> Path:
        """The model servers that were known last."""
        return self.directory / "model-servers.json"

    @property
    def last_releases(self) -> Path:
        """The releases that were known last."""
        return self.directory / "model-releases.json"

    def endpoints(self, cluster: str) -> Path:
        return self.directory / f"endpoints-{cluster}.json"

    def known_servers(self) -> set[str]:
        """Model servers that this gateway was told of, or has met before."""
        met = (path.stem.removeprefix("endpoints-") for path in self.directory.glob("endpoints-*.json"))
        return {*self.model_servers, *(name.partition("@")[0] for name in met)}


def _number(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise SwitchboardError(f"{name} must be a number from {least:g} to {most:g}, it is {text!r}")
    return value
