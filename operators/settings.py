"""What the operator's pod is told by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from switchboard.errors import SwitchboardError
from switchboard.releases import ReleasePolicy

PORT = 8080
"""`/metrics`, `/livez`, `/readyz`, `/decisions`."""
TICK_S = 2.0


@dataclass(frozen=True)
class Settings:
    """One replica of the operator: who it is, which namespace it looks after, whom it asks for the traffic."""

    pod_name: str
    pod_ip: str
    namespace: str
    prometheus_url: str | None = None
    port: int = PORT
    releases: ReleasePolicy = field(default_factory=ReleasePolicy)
    signing_key: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """From POD_NAME, POD_IP, POD_NAMESPACE, PROMETHEUS_URL (without it, gateways are asked), PORT, and
        RELEASE_POLICY (JSON of `switchboard.releases.ReleasePolicy`), SIGNING_KEY (a file with the seed by which
        releases' evidence is signed, in base64).

        Raises:
            SwitchboardError: a variable is missing or wrong.
        """
        needed = ("POD_NAME", "POD_IP", "POD_NAMESPACE")
        if missing := [name for name in needed if not environ.get(name)]:
            raise SwitchboardError(f"the operator's environment has no {', '.join(missing)}")
        url, port = environ.get("PROMETHEUS_URL") or None, environ.get("PORT") or str(PORT)
        if url is not None and not _is_address(url):
            raise SwitchboardError(
                f"PROMETHEUS_URL must be an address as http://prometheus:9090, it is {url!r}"
            )
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise SwitchboardError(f"PORT must be a number from 1 to 65535, it is {port!r}")
        return cls(
            environ["POD_NAME"],
            environ["POD_IP"],
            environ["POD_NAMESPACE"],
            url,
            int(port),
            _policy(environ.get("RELEASE_POLICY") or "{}"),
            Path(key) if (key := environ.get("SIGNING_KEY")) else None,
        )


def _policy(text: str) -> ReleasePolicy:
    try:
        return ReleasePolicy.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise SwitchboardError(f"RELEASE_POLICY can't be read: {place}: {first['msg']}") from None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
