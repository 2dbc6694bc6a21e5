"""The provider's configuration, as the official plugin names it, and what of it this stand-in can't do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.plugin.diff import Options
from infra.plugin.wire import Properties, reveal
from switchboard.errors import SwitchboardError
from switchboard.kube import Credentials

_ENVIRONMENT = {
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "enableServerSideApply": "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY",
    "skipUpdateUnreachable": "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
}
_IGNORED = (
    "alwaysRender",
    "helmReleaseSettings",
    "kubeClientSettings",
    "suppressDeprecationWarnings",
    "suppressHelmHookWarnings",
    "version",
    "pluginDownloadURL",
)
_KNOWN = {"kubeconfig", "context", "cluster", "namespace", "clusterIdentifier", "renderYamlToDirectory"}


@dataclass(frozen=True)
class Config:
    """One provider's configuration."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    cluster_identifier: str | None = None
    delete_unreachable: bool = False
    skip_update_unreachable: bool = False
    patch_force: bool = False
    upsert: bool = False
    options: Options = field(default_factory=Options)

    def credentials(self) -> Credentials:
        """How to reach the cluster.

        Raises:
            SwitchboardError: the kubeconfig or what it names is missing, or can't be used here.
        """
        if not self._source() and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return Credentials.in_cluster(os.environ)
        return Credentials.from_kubeconfig(json.dumps(self._document(), indent=1))

    def default_namespace(self) -> str:
        """The provider's namespace, else the context's, else `default`."""
        return self.namespace or self._active("contexts").get("namespace") or "default"

    def server(self) -> str | None:
        """The API server's address; None where it can't be told."""
        return self._active("clusters").get("server")

    def whose(self) -> str:
        """Whose credential it is, for messages: its context and where that is from."""
        if not self._source() and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return "this pod's service account"
        source = self._source() or "~/.kube/config"
        where = "the given kubeconfig" if _is_contents(source) else source
        try:
            return f"context {self._document().get('current-context')!r} ({where})"
        except SwitchboardError:
            return where

    def _source(self) -> str:
        return self.kubeconfig or os.environ.get("KUBECONFIG", "")

    def _document(self) -> dict[str, Any]:
        """The kubeconfig with this configuration's context and cluster as the current ones, and absolute paths."""
        document = _merged(_read(self._source() or "~/.kube/config"))
        return _with_overrides(document, self.context, self.cluster)

    def _active(self, section: str) -> dict[str, Any]:
        """The current context or its cluster; empty where it can't be told."""
        try:
            document = self._document()
        except SwitchboardError:
            return {}
        context = _named(document, "contexts").get(document.get("current-context"), {})
        if section == "contexts":
            return context
        return _named(document, "clusters").get(context.get("cluster"), {})


def parse(properties: Properties, environ: Mapping[str, str]) -> Config:
    """The configuration in a provider's properties (known ones: no unknown values).

    Raises:
        SwitchboardError: a key or value that this stand-in doesn't do, with what to do instead.
    """
    values = {key: value for key, value in reveal(properties).items() if key not in _IGNORED}
    if unknown := sorted(set(values) - _KNOWN - set(_ENVIRONMENT)):
        raise SwitchboardError(f"the Kubernetes provider has no setting {unknown[0]!r}")
    flags = {
        key: _flag(key, values.get(key, environ.get(variable))) for key, variable in _ENVIRONMENT.items()
    }
    if values.get("renderYamlToDirectory"):
        raise SwitchboardError(
            "renderYamlToDirectory needs the official Kubernetes plugin; this stand-in applies only"
        )
    if flags["enableServerSideApply"] is False:
        raise SwitchboardError(
            "enableServerSideApply: false needs the official Kubernetes plugin; this stand-in does nothing else"
        )
    return Config(
        kubeconfig=_kubeconfig(values.get("kubeconfig")),
        context=values.get("context") or None,
        cluster=values.get("cluster") or None,
        namespace=values.get("namespace") or None,
        cluster_identifier=values.get("clusterIdentifier") or None,
        delete_unreachable=bool(flags["deleteUnreachable"]),
        skip_update_unreachable=bool(flags["skipUpdateUnreachable"]),
        patch_force=bool(flags["enablePatchForce"]),
        upsert=bool(flags["upsertExistingObjects"]),
        options=Options(
            mutable_config_maps=bool(flags["enableConfigMapMutable"]),
            mutable_secrets=bool(flags["enableSecretMutable"]),
        ),
    )


def replaces(old: Config, new: Config) -> list[str]:
    """The settings whose change makes another cluster of it, so that everything on it is made anew."""
    if new.cluster_identifier or old.cluster_identifier:
        return ["clusterIdentifier"] if old.cluster_identifier != new.cluster_identifier else []
    before, after = old.server(), new.server()
    if before is None or after is None or before == after:
        return []
    return [key for key in ("kubeconfig", "context", "cluster") if getattr(old, key) != getattr(new, key)]


def _flag(key: str, value: Any) -> bool | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    raise SwitchboardError(f"the Kubernetes provider's {key} must be true or false (it is {value!r})")


def _kubeconfig(value: Any) -> str | None:
    if isinstance(value, dict):
        return json.dumps(value)
    return value or None


def _read(source: str) -> list[dict[str, Any]]:
    """The documents of a kubeconfig, with absolute paths: contents, a path, or several paths as in $KUBECONFIG."""
    if _is_contents(source):
        return [_absolute(_load(source), Path.cwd())]
    paths = [Path(part).expanduser() for part in source.split(os.pathsep) if part]
    documents = []
    for path in paths:
        try:
            documents.append(_absolute(_load(path.read_text()), path.parent))
        except OSError as error:
            if len(paths) == 1:
                raise SwitchboardError(f"can't read the kubeconfig {path}: {error.strerror}") from None
    if not documents:
        raise SwitchboardError(f"there is no kubeconfig at {source}")
    return documents


def _is_contents(source: str) -> bool:
    return "\n" in source or source.lstrip().startswith("{")


def _merged(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """One kubeconfig of several, as kubectl merges them: the first to name a thing defines it."""
    merged: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            if isinstance(value, list):
                names = {item.get("name") for item in merged.get(key) or []}
                merged[key] = (merged.get(key) or []) + [i for i in value if i.get("name") not in names]
            else:
                merged.setdefault(key, value)
    return merged


def _load(text: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe loader in C
    except yaml.YAMLError as error:
        raise SwitchboardError(f"the kubeconfig is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise SwitchboardError("the kubeconfig is empty or not an object")
    return document


def _named(document: dict[str, Any], section: str) -> dict[Any, dict[str, Any]]:
    items = document.get(section)
    return {
        item.get("name"): item.get(section.removesuffix("s")) or {}
        for item in (items if isinstance(items, list) else [])
        if isinstance(item, dict)
    }


def _with_overrides(document: dict[str, Any], context: str | None, cluster: str | None) -> dict[str, Any]:
    contexts, clusters = _named(document, "contexts"), _named(document, "clusters")
    chosen = context or document.get("current-context")
    if context is not None and context not in contexts:
        raise SwitchboardError(f"the kubeconfig has no context {context!r}; it has {_listed(contexts)}")
    if cluster is not None:
        if cluster not in clusters:
            raise SwitchboardError(f"the kubeconfig has no cluster {cluster!r}; it has {_listed(clusters)}")
        contexts.get(chosen, {})["cluster"] = cluster
    document["current-context"] = chosen
    return document


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


def _absolute(document: dict[str, Any], base: Path) -> dict[str, Any]:
    for section, keys in (
        ("clusters", ("certificate-authority",)),
        ("users", ("client-certificate", "client-key", "tokenFile")),
    ):
        for item in _named(document, section).values():
            for key in keys:
                if isinstance(item, dict) and item.get(key):
                    item[key] = str(base / item[key])
    return document
