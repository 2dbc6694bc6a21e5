"""How to reach a Kubernetes API server, and as whom: from a pod's service account or from a kubeconfig."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from switchboard.errors import SwitchboardError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass
class Credentials:
    """How to reach one API server, and as whom. Token files are read again for each connection's request."""

    server: str
    ca: str | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"
    _cleanup: list[Path] = field(default_factory=list)

    @classmethod
    def in_cluster(cls, environ: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> Credentials:
        """Those of the pod that this runs in.

        Raises:
            SwitchboardError: this is not a pod with a service account.
        """
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port or not (directory / "token").exists():
            raise SwitchboardError(
                "not in a pod with a service account: no token or no KUBERNETES_SERVICE_HOST"
            )
        return cls(
            server=f"https://{host}:{port}",
            ca=(directory / "ca.crt").read_text(),
            token_file=directory / "token",
            namespace=(directory / "namespace").read_text().strip(),
        )

    @classmethod
    def from_kubeconfig(cls, source: Path | str, context: str | None = None) -> Credentials:
        """Those of a kubeconfig: a path, or the contents themselves.

        Raises:
            SwitchboardError: the file or the context is missing, or it logs in by an exec plugin.
        """
        if isinstance(source, str) and "\n" in source:
            text, base, name = source, Path.cwd(), "the given kubeconfig"
        else:
            path = Path(source).expanduser()
            name, base = str(path), path.parent
            try:
                text = path.read_text()
            except OSError as error:
                raise SwitchboardError(f"can't read the kubeconfig {path}: {error.strerror}") from None
        try:
            config = yaml.safe_load(text)
            chosen = context or config.get("current-context")
            ctx = {item["name"]: item["context"] for item in config["contexts"]}
            if chosen not in ctx:
                raise SwitchboardError(
                    f"{name} has no context {chosen!r}; it has {', '.join(sorted(ctx)) or 'none'}"
                )
            cluster = {i["name"]: i["cluster"] for i in config["clusters"]}[ctx[chosen]["cluster"]]
            user = {i["name"]: i.get("user") or {} for i in config.get("users") or []}[ctx[chosen]["user"]]
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise SwitchboardError(
                f"{name} is not a usable kubeconfig: {type(error).__name__} {error}"
            ) from None
        if unsupported := {"exec", "auth-provider", "username"} & set(user):
            raise SwitchboardError(
                f"{name}: user {ctx[chosen]['user']} logs in by {unsupported.pop()}: not supported here"
            )
        found = cls(server=cluster["server"].rstrip("/"), namespace=ctx[chosen].get("namespace") or "default")
        if data := cluster.get("certificate-authority-data"):
            found.ca = base64.b64decode(data).decode()
        elif file := cluster.get("certificate-authority"):
            found.ca = (base / file).read_text()
        found.token = user.get("token")
        if file := user.get("tokenFile"):
            found.token_file = base / file
        for attribute, key in (("cert_file", "client-certificate"), ("key_file", "client-key")):
            if data := user.get(f"{key}-data"):
                handle = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115 - ssl loads from files only
                with handle:
                    handle.write(base64.b64decode(data))
                setattr(found, attribute, Path(handle.name))
                found._cleanup.append(Path(handle.name))
            elif file := user.get(key):
                setattr(found, attribute, base / file)
        return found

    def ssl_context(self) -> ssl.SSLContext | Literal[False]:
        if not self.server.startswith("https"):
            return False
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        finally:
            for path in self._cleanup:
                path.unlink(missing_ok=True)
            self._cleanup.clear()
        return context

    def bearer(self) -> str | None:
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token
