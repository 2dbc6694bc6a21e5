"""Puts one request to a service, over a connection that is kept.

A customer's own program does so; whether it asks once more, `loadtests.customers` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gevent
from geventhttpclient import URL, HTTPClient

from loadtests.agreed import TIMEOUT_S

MOST_CONNECTIONS = 20_000
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status and body; or status 0, and why there is none."""

    status: int
    body: bytes = b""
    error: str = ""


class Door:
    """An address that requests may be put to; its connections are kept and used again."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """
        Raises:
            ValueError: that is no address.
        """
        where = URL(url)
        if where.scheme not in ("http", "https") or not where.host:
            raise ValueError(f"{url!r} is no address; it must begin with http:// or https://")
        self.url, self.timeout_s = url, timeout_s
        self._path = where.path.rstrip("/")
        self._client = HTTPClient.from_url(
            where, concurrency=MOST_CONNECTIONS, connection_timeout=timeout_s, network_timeout=timeout_s
        )

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Whatever happens is a reply."""
        try:
            with gevent.Timeout(self.timeout_s):
                response = self._client.request("POST", self._path + path, body, dict(headers))
                try:
                    return Reply(response.status_code, bytes(response.read(MOST_BYTES)))
                finally:
                    response.release()
        except gevent.Timeout:
            return Reply(0, error=f"no answer in {self.timeout_s:g} s")
        except Exception as error:  # of sockets, of TLS, of what is no HTTP
            return Reply(0, error=f"no answer: {type(error).__name__} {error}"[:200])

    def close(self) -> None:
        self._client.close()
