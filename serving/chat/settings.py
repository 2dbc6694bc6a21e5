"""What a chat replica is told by its environment, checked once at the start.

A wrong value is one clear line that names the variable; nothing else in the service reads the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from switchboard.errors import SwitchboardError


@dataclass(frozen=True)
class Settings:
    """`host` is the pod's own address: a bind to all addresses would collide with other pods on one machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    model_uri: str = "models:/chat-intent@champion"
    tracking_uri: str = ""
    model_cache_dir: Path = Path("/models")
    max_concurrency: int = 32
    tier: Literal["core", "edge"] = "core"
    replica: str = ""
    """The pod's name, for metrics and logs."""
    drain_delay_s: float = 2.0
    """How long a replica that was told to stop still takes new requests, so that gateways see it leave."""
    drain_timeout_s: float = 20.0
    """How long requests under way may take after that; below the pod's grace period (30 s)."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Settings from the variables that the pod's manifest sets; what is missing has its default.

        Raises:
            SwitchboardError: a value that can't be meant, named with its variable.
        """
        tier = environ.get("SERVICE_TIER") or "core"
        if tier not in ("core", "edge"):
            raise SwitchboardError(f"SERVICE_TIER is {tier!r}; it must be core or edge")
        host = environ.get("POD_IP") or cls.host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise SwitchboardError(f"POD_IP is {host!r}, which is no IP address") from None
        if address.is_unspecified:
            raise SwitchboardError(
                f"POD_IP is {host}: a replica binds its own address, not all of them",
                "set POD_IP from status.podIP",
            )
        return cls(
            host=host,
            port=int(_number(environ, "PORT", cls.port, low=1, high=65535, whole=True)),
            model_uri=environ.get("MODEL_URI") or cls.model_uri,
            tracking_uri=environ.get("MLFLOW_TRACKING_URI", ""),
            model_cache_dir=Path(environ.get("MODEL_CACHE_DIR") or cls.model_cache_dir),
            max_concurrency=int(
                _number(environ, "MAX_CONCURRENCY", cls.max_concurrency, low=1, high=10_000, whole=True)
            ),
            tier=cast(Literal["core", "edge"], tier),
            replica=environ.get("POD_NAME", ""),
            drain_delay_s=_number(environ, "DRAIN_DELAY_S", cls.drain_delay_s, low=0, high=300),
            drain_timeout_s=_number(environ, "DRAIN_TIMEOUT_S", cls.drain_timeout_s, low=0, high=3600),
        )


def _number(
    environ: Mapping[str, str], name: str, default: float, *, low: float, high: float, whole: bool = False
) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise SwitchboardError(f"{name} is {text!r}; it must be {kind} from {low:g} to {high:g}")
    return value
