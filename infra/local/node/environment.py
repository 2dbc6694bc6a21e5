"""A container's environment and command line: `env`, `envFrom`, `valueFrom` and `$(VAR)`, as Kubernetes defines them.

Pure functions; config maps and secrets come in through `Sources`, already fetched.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.local.node.podspec import ConfigError, container
from switchboard import quantities
from switchboard.kube import Object

_NAME = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['([^']+)'\]$")


@dataclass(frozen=True)
class Sources:
    """What the environment and the volumes of a pod are made from.

    `objects` maps ("ConfigMap" or "Secret", name) to the object, or to None where it doesn't exist.
    """

    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]
    service_env: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[tuple[str, str], Object | None] = field(default_factory=dict)


def service_env(host: str, port: int) -> dict[str, str]:
    """The variables that tell a pod where its API server is."""
    return _variables("kubernetes", host, [{"name": "https", "port": port}])


def service_links(services: Iterable[Object], namespace: str) -> dict[str, str]:
    """The variables of a namespace's Services (`enableServiceLinks`): legacy, but a pod on a cluster has them too."""
    found: dict[str, str] = {}
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if meta["namespace"] == namespace and address and address != "None" and spec.get("ports"):
            found |= _variables(meta["name"], address, spec["ports"])
    return found


def _variables(service: str, host: str, ports: Sequence[Object]) -> dict[str, str]:
    name = _variable(service)
    found = {f"{name}_SERVICE_HOST": host, f"{name}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        number, protocol = str(port["port"]), port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{host}:{number}"
        if port.get("name"):
            found[f"{name}_SERVICE_PORT_{_variable(port['name'])}"] = number
        prefix = f"{name}_PORT_{number}_{protocol}"
        found.setdefault(f"{name}_PORT", url)
        found |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": number,
            f"{prefix}_ADDR": host,
        }
    return found


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` where NAME is known, leave it where it isn't; `$$` is a plain `$`.

    >>> expand("$(A)-$(B)-$$(A)", {"A": "1"})
    '1-$(B)-$(A)'
    """
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            out.append(text[at])
            at += 1
        elif text[at + 1] == "$":
            out.append("$")
            at += 2
        elif text[at + 1] == "(" and (end := text.find(")", at)) > 0:
            inner = text[at + 2 : end]
            out.append(variables.get(inner, text[at : end + 1]))
            at = end + 1
        else:
            out.append("$")
            at += 1
    return "".join(out)


def data_of(obj: Object) -> dict[str, bytes]:
    """The entries of a config map or a secret, as bytes."""
    if "type" in obj or obj.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def references(pod: Object) -> dict[tuple[str, str], bool]:
    """The config maps and secrets that the pod's containers' environments name, and whether one is needed."""
    found: dict[tuple[str, str], bool] = {}

    def add(kind: str, selector: Mapping[str, Any]) -> None:
        key = (kind, selector["name"])
        found[key] = found.get(key, False) or not selector.get("optional")

    for one in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for source in one.get("envFrom") or []:
            for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if selector := source.get(field_name):
                    add(kind, selector)
        for entry in one.get("env") or []:
            origin = entry.get("valueFrom") or {}
            for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if selector := origin.get(field_name):
                    add(kind, selector)
    return found


def pod_field(pod: Object, path: str, sources: Sources) -> str:
    """The value of a `fieldRef`.

    Raises:
        ConfigError: a path that the downward API doesn't have.
    """
    meta, spec = pod["metadata"], pod["spec"]
    if match := _SUBSCRIPT.match(path):
        return str((meta.get(match[1].split(".")[1]) or {}).get(match[2], ""))
    values = {
        "metadata.name": lambda: meta["name"],
        "metadata.namespace": lambda: meta["namespace"],
        "metadata.uid": lambda: meta["uid"],
        "metadata.labels": lambda: _lines(meta.get("labels")),
        "metadata.annotations": lambda: _lines(meta.get("annotations")),
        "spec.nodeName": lambda: spec["nodeName"],
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.hostIP": lambda: sources.host_ip,
        "status.hostIPs": lambda: sources.host_ip,
        "status.podIP": lambda: sources.pod_ip,
        "status.podIPs": lambda: sources.pod_ip,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path]())


def _lines(entries: Mapping[str, str] | None) -> str:
    quoted = {
        key: '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for key, value in (entries or {}).items()
    }
    return "\n".join(f"{key}={quoted[key]}" for key in sorted(quoted))


def resource_field(pod: Object, reference: Mapping[str, Any], own: Object | None, sources: Sources) -> str:
    """The value of a `resourceFieldRef`; a missing limit is what the node has to give.

    Raises:
        ConfigError: an unknown container or resource.
    """
    wanted = reference.get("containerName")
    one = container(pod, wanted) if wanted else own
    if one is None:
        raise ConfigError(f"resourceFieldRef names container {wanted!r}, which the pod doesn't have")
    group, _, resource = reference["resource"].partition(".")
    if group not in ("limits", "requests") or not resource:
        raise ConfigError(f"unsupported resourceFieldRef {reference['resource']!r}")
    resources = one.get("resources") or {}
    quantity = (resources.get(group) or {}).get(resource)
    if quantity is None:
        quantity = sources.allocatable.get(resource, "0") if group == "limits" else "0"
    divisor = reference.get("divisor") or "1"
    return str(quantities.in_units(quantity, divisor if divisor != "0" else "1"))


def _entry(kind: str, selector: Mapping[str, Any], sources: Sources) -> str | None:
    obj = sources.objects.get((kind, selector["name"]))
    lower = kind.lower()
    if obj is None:
        if selector.get("optional"):
            return None
        raise ConfigError(f'{lower} "{selector["name"]}" not found')
    value = data_of(obj).get(selector["key"])
    if value is None:
        if selector.get("optional"):
            return None
        raise ConfigError(f"couldn't find key {selector['key']} in {kind} {selector['name']}")
    return value.decode(errors="replace")


def _from_whole(source: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        if selector := source.get(field_name):
            obj = sources.objects.get((kind, selector["name"]))
            if obj is None:
                if selector.get("optional"):
                    return {}
                raise ConfigError(f'{kind.lower()} "{selector["name"]}" not found')
            prefix = source.get("prefix") or ""
            entries = {prefix + key: value.decode(errors="replace") for key, value in data_of(obj).items()}
            return {key: value for key, value in entries.items() if _NAME.match(key)}
    return {}


def container_env(pod: Object, one: Object, sources: Sources) -> dict[str, str]:
    """The variables of a container, in the manifest's order (later ones may refer to earlier ones).

    Raises:
        ConfigError: a config map, secret, key or field that isn't there and isn't optional.
    """
    env: dict[str, str] = dict(sources.service_env)
    for source in one.get("envFrom") or []:
        env.update(_from_whole(source, sources))
    for entry in one.get("env") or []:
        value = _value(pod, one, entry, env, sources)
        if value is not None:
            env[entry["name"]] = value
    return env


def _value(
    pod: Object, one: Object, entry: Mapping[str, Any], env: Mapping[str, str], sources: Sources
) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value") or "", env)
    if reference := origin.get("fieldRef"):
        return pod_field(pod, reference["fieldPath"], sources)
    if reference := origin.get("resourceFieldRef"):
        return resource_field(pod, reference, one, sources)
    if reference := origin.get("configMapKeyRef"):
        return _entry("ConfigMap", reference, sources)
    if reference := origin.get("secretKeyRef"):
        return _entry("Secret", reference, sources)
    raise ConfigError(f"env {entry['name']}: unsupported valueFrom {', '.join(origin)}")


def argv(
    one: Object, entrypoint: tuple[str, ...], cmd: tuple[str, ...], env: Mapping[str, str]
) -> tuple[str, ...]:
    """The whole command: `command` replaces the image's entrypoint and its cmd, `args` its cmd alone.

    Raises:
        ConfigError: nothing to run.
    """
    command = tuple(expand(word, env) for word in one.get("command") or [])
    args = tuple(expand(word, env) for word in one.get("args") or [])
    whole = command + args if command else entrypoint + (args or cmd)
    if not whole:
        raise ConfigError(f"container {one['name']}: no command specified")
    return whole
