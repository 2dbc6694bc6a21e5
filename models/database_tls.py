"""TLS to MLflow's database whose certificate is checked: `?plugin=verified-tls` in a SQLAlchemy URL.

pg8000, the PostgreSQL driver, encrypts by default where the server offers it, and checks nothing: whoever sits between
could say that there is no TLS, or show a certificate of his own. MLflow opens its database by a URL alone, in processes
of its own, so what it can't be told by arguments is told by this plugin, which SQLAlchemy finds by its entry point.
"""

from __future__ import annotations

import ssl
from typing import Any

from sqlalchemy.engine import URL, CreateEnginePlugin

NAME = "verified-tls"
"""In the URL: `?plugin=verified-tls`, and `&ca_file=PATH` where the server's certificate is of a CA of one's own."""


class VerifiedTls(CreateEnginePlugin):
    """Makes the engine of a `postgresql+pg8000` URL insist on TLS, on a certificate of a known CA and on its name."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        ca_file = url.query.get("ca_file")
        context = ssl.create_default_context(cafile=ca_file if isinstance(ca_file, str) else None)
        kwargs["connect_args"] = {**kwargs.get("connect_args", {}), "ssl_context": context}

    def update_url(self, url: URL) -> URL:
        """The URL without what is this plugin's own."""
        return url.difference_update_query(["ca_file"])
