"""From the inputs that a program gives to those that are kept: named, placed, with their secrets marked."""

from __future__ import annotations

from dataclasses import dataclass

from infra.plugin.annotations import WAIT_FOR, annotation
from infra.plugin.await_ import wait_for
from infra.plugin.kinds import TypeToken
from infra.plugin.naming import autoname, keep_autoname, metadata_of, with_metadata
from infra.plugin.paths import format_path
from infra.plugin.wire import UNKNOWN, Properties, Secret, reveal


@dataclass(frozen=True)
class Naming:
    """How to name an object that has no name: by `seed`, or as the engine's naming configuration says."""

    resource_name: str
    seed: bytes
    proposed: str | None = None
    disabled: bool = False


@dataclass(frozen=True)
class Failure:
    """What is wrong with the inputs: the property's path (empty: all of them) and why."""

    path: str
    reason: str


def checked(
    news: Properties, olds: Properties | None, token: TypeToken, naming: Naming, default_namespace: str | None
) -> Properties:
    """The inputs to keep; `default_namespace` is None for a kind without namespaces."""
    inputs = with_metadata({"apiVersion": token.api_version, "kind": token.kind, **news})
    if olds:
        keep_autoname(inputs, olds)
    if not token.patch and not naming.disabled:
        autoname(inputs, naming.resource_name, naming.seed, naming.proposed)
    meta = metadata_of(inputs)
    if meta is not None:
        if default_namespace is None:
            meta.pop("namespace", None)
        elif not meta.get("namespace"):
            meta["namespace"] = default_namespace
    return _secret_data(inputs, token)


def _secret_data(inputs: Properties, token: TypeToken) -> Properties:
    if (token.api_version, token.kind) != ("v1", "Secret"):
        return inputs
    return {
        key: Secret(reveal(value)) if key in ("data", "stringData") and value is not UNKNOWN else value
        for key, value in inputs.items()
    }


def failures(inputs: Properties, token: TypeToken, naming: Naming) -> list[Failure]:
    """What is wrong with inputs that were `checked`, before any API server is asked."""
    found = []
    meta = metadata_of(inputs)
    if inputs.get("metadata") is not UNKNOWN and meta is None:
        found.append(Failure("metadata", "must be an object"))
    if meta is not None:
        if meta.get("generateName") is not None:
            found.append(
                Failure(
                    "metadata.generateName", "server-side apply needs a name: leave it out to get one made up"
                )
            )
        elif meta.get("name") is None:
            found.append(Failure("metadata.name", _why_name(token, naming)))
        for key in ("name", "namespace"):
            if (why := _why_not_a_name(meta.get(key))) is not None:
                found.append(Failure(f"metadata.{key}", why))
    for key, wanted in (("apiVersion", token.api_version), ("kind", token.kind)):
        if isinstance(inputs.get(key), str) and inputs[key] != wanted:
            found.append(Failure(key, f"is {inputs[key]!r}, but the resource's type says {wanted!r}"))
    if text := annotation({"metadata": reveal(meta)}, WAIT_FOR):
        try:
            wait_for.rule(text)
        except ValueError as error:
            found.append(Failure(format_path(("metadata", "annotations", WAIT_FOR)), str(error)))
    return found


def _why_not_a_name(value: object) -> str | None:
    """Why `value` can't be part of an object's address on the server; the server checks the rest."""
    value = reveal(value)
    if value is None or value is UNKNOWN:
        return None
    if not isinstance(value, str):
        return f"must be a string (it is {value!r})"
    if value in (".", ".."):
        return f"{value!r} can't be a name"
    return next((f"{value!r} can't be a name: it has {c!r} in it" for c in "/%?#" if c in value), None)


def _why_name(token: TypeToken, naming: Naming) -> str:
    if token.patch:
        return "a patch needs the name of the object that it changes"
    if naming.disabled:
        return f"is needed: automatic naming is switched off for {naming.resource_name}"
    return "is needed"
