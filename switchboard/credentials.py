"""How to reach a Kubernetes API server, and as whom: from a pod's service account or from a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
    client_cert: str | None = None
    client_key: str | None = None
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"
    socket: Path | None = None
    """A Unix socket on which `server` (http) is reached, such as that of `kubectl proxy`."""

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
    def of_process(cls, environ: Mapping[str, str]) -> Credentials:
        """The pod's; KUBECONFIG's for a part that runs outside of one.

        Raises:
            SwitchboardError: there is neither, or the kubeconfig can't be used.
        """
        if kubeconfig := environ.get("KUBECONFIG"):
            return cls.from_kubeconfig(Path(kubeconfig))
        return cls.in_cluster(environ)

    @classmethod
    def of_user(cls, environ: Mapping[str, str], context: str | None = None) -> Credentials:
        """As kubectl finds them: of the first of KUBECONFIG's files that has the context; without one, of the first.

        Raises:
            SwitchboardError: there is no kubeconfig, none has the context, or it can't be used.
        """
        files = [Path(one) for one in environ.get("KUBECONFIG", "").split(os.pathsep) if one]
        problem: SwitchboardError | None = None
        for file in files or [Path("~/.kube/config").expanduser()]:
            try:
                return cls.from_kubeconfig(file, context)
            except SwitchboardError as error:
                problem = problem or error
                if context is None:
                    break
        raise SwitchboardError(
            problem.what if problem is not None else "there is no kubeconfig",
            'of the local cloud: eval "$(switchboard env)"',
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
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise SwitchboardError(f"the kubeconfig {path} is not text") from None
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
        try:
            return cls._parts(cluster, user, ctx[chosen].get("namespace") or "default", base)
        except (ValueError, KeyError, OSError) as error:
            raise SwitchboardError(f"{name} is not a usable kubeconfig: {error}") from None

    @classmethod
    def _parts(cls, cluster: dict[str, str], user: dict[str, str], namespace: str, base: Path) -> Credentials:
        """From a kubeconfig's cluster and user; files it names are below `base`."""
        found = cls(server=cluster["server"].rstrip("/"), namespace=namespace)
        found.ca = _content(cluster, "certificate-authority", base)
        found.client_cert = _content(user, "client-certificate", base)
        found.client_key = _content(user, "client-key", base)
        found.token = user.get("token")
        if file := user.get("tokenFile"):
            found.token_file = base / file
        return found

    def ssl_context(self) -> ssl.SSLContext | Literal[False]:
        if not self.server.startswith("https"):
            return False
        try:
            return self._ssl_context()
        except ssl.SSLError as error:
            reason = f"its certificates can't be used: {error.reason or error}"
            raise SwitchboardError(f"the credentials for {self.server}: {reason}") from None

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca)
        if self.client_cert is not None and self.client_key is not None:
            # ssl loads a key from files only: it is on the disk for as long as that takes, and nobody else's to read.
            with tempfile.TemporaryDirectory() as folder:
                pem = Path(folder) / "client.pem"
                pem.touch(mode=0o600)
                pem.write_text(f"{self.client_cert}\n{self.client_key}")
                context.load_cert_chain(pem)
        return context

    def bearer(self) -> str | None:
        if self.token_file is not None:
            return self.token_file.read_text().strip()
        return self.token


def _content(part: dict[str, str], key: str, base: Path) -> str | None:
    """What a kubeconfig holds itself (`<key>-data`) or names the file of."""
    if data := part.get(f"{key}-data"):
        return base64.b64decode(data, validate=True).decode()
    if file := part.get(key):
        return (base / file).read_text()
    return None
