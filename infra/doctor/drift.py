"""How the clusters differ from what Pulumi's state says of them.

The state has each object as the API server showed it to Pulumi, and a list of a kind's objects costs one request, so
what they say is compared, not their `generation`, which labels, ConfigMaps and Roles don't have or don't raise. An
object counts as changed where a refresh of Pulumi's would find that: in a field of Pulumi's which the program doesn't
ignore. Of a kind that nobody but its users writes (no generation, no status: a ConfigMap, a Role) all that it says
counts. Values that the state keeps encrypted can't be compared: then an object is as it was while its `resourceVersion`
is, and may be another as soon as that (its `generation`, where it has one) is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.doctor.report import one_line
from infra.plugin import diff
from infra.plugin.kinds import BUILT_IN, Unsupported, parse_token
from infra.plugin.state import imported_inputs, parse, refreshed_inputs
from infra.plugin.wire import SIGNATURE, Properties
from switchboard.errors import SwitchboardError
from switchboard.kinds import MODEL_SERVERS
from switchboard.kube import ApiError, Credentials, Kind, Kube, Object, Unreachable

TIMEOUT_S = 3.0
_KINDS = BUILT_IN | {(MODEL_SERVERS.api_version, MODEL_SERVERS.kind): MODEL_SERVERS}


@dataclass(frozen=True)
class Recorded:
    """An object as Pulumi's state has it: `was` what the API server showed, `inputs` what the program said of it, and
    `ignored` the paths of those that it ignores."""

    kubeconfig: str
    context: str
    kind: Kind
    namespace: str | None
    name: str
    was: Object
    inputs: Properties = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return f"{self.kind.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class Drift:
    """How the clusters differ from the state; `written`: in what can't be compared, if at all; `unasked` says why some
    couldn't be looked at."""

    compared: int = 0
    gone: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


class Sealed(str):
    """A value that the state has encrypted only."""


def compare(recorded: Sequence[Recorded], live: Mapping[tuple[Kind, str | None, str], Object]) -> Drift:
    """What became of the recorded objects, by kind, namespace and name."""
    found: dict[str, list[str]] = {"gone": [], "replaced": [], "changed": [], "written": []}
    for each in recorded:
        if what := _became(each, live.get((each.kind, each.namespace, each.name))):
            found[what].append(each.words)
    return Drift(len(recorded), **{what: tuple(names) for what, names in found.items()})


def _became(each: Recorded, now: Object | None) -> str | None:
    if now is None:
        return "gone"
    was, meta = each.was["metadata"], now["metadata"]
    if was.get("uid") not in (None, meta.get("uid")):
        return "replaced"
    if was.get("resourceVersion") == meta.get("resourceVersion"):
        return None
    if _differs(each, _unsealed(now, each.was)):
        return "changed"
    version = "generation" if "generation" in was else "resourceVersion"
    return "written" if _has_sealed(each.was) and was.get(version) != meta.get(version) else None


def _differs(each: Recorded, now: Object) -> bool:
    if "generation" not in each.was["metadata"] and "status" not in each.was and "status" not in now:
        return imported_inputs(each.was) != imported_inputs(now)
    refreshed = refreshed_inputs(each.inputs, each.was, now)
    return bool(diff.compare(each.inputs, refreshed, ignore=each.ignored).changes)


def _unsealed(now: Any, was: Any) -> Any:
    """`now` with what `was` has encrypted as it is there: equal, as far as can be told."""
    if isinstance(was, Sealed):
        return was
    if isinstance(was, dict) and isinstance(now, dict):
        return {key: _unsealed(value, was.get(key)) for key, value in now.items()}
    if isinstance(was, list) and isinstance(now, list):
        return [_unsealed(value, was[i] if i < len(was) else None) for i, value in enumerate(now)]
    return now


def _has_sealed(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_sealed, value.values()))
    return any(map(_has_sealed, value)) if isinstance(value, list) else isinstance(value, Sealed)


def _sealed(value: Any) -> Any:
    """A checkpoint's value with its encrypted parts as such."""
    if isinstance(value, dict):
        if SIGNATURE in value:
            return Sealed(value.get("ciphertext", ""))
        return {key: _sealed(item) for key, item in value.items()}
    return [_sealed(item) for item in value] if isinstance(value, list) else value


def recorded(resources: Iterable[Mapping[str, Any]]) -> list[Recorded]:
    """The Kubernetes objects among a checkpoint's resources, of the kinds that every cluster has and of our own."""
    listed = list(resources)
    providers = {
        f"{each['urn']}::{each['id']}": each.get("inputs") or {}
        for each in listed
        if each["type"] == "pulumi:providers:kubernetes" and "id" in each
    }
    found = []
    for each in listed:
        provider = providers.get(each.get("provider", ""))
        outputs = each.get("outputs")
        if provider is None or not isinstance(outputs, dict) or each.get("delete"):
            continue
        try:
            token = parse_token(each["type"])
        except Unsupported:
            continue
        state = parse(_sealed(outputs), _sealed(each.get("inputs") or {}))
        meta = state.live.get("metadata")
        kind = _KINDS.get((token.api_version, token.kind))
        if kind is None or not isinstance(meta, dict) or token.patch or "name" not in meta:
            continue
        found.append(
            Recorded(
                str(provider.get("kubeconfig", "")),
                str(provider.get("context", "")),
                kind,
                meta.get("namespace") if kind.namespaced else None,
                meta["name"],
                state.live,
                state.inputs,
                tuple(each.get("ignoreChanges") or ()),
            )
        )
    return found


async def look(objects: Sequence[Recorded], running: Iterable[Path]) -> Drift | None:
    """Compare with the clusters of the kubeconfigs in `running` (the others are down, and say nothing)."""
    there = {str(path) for path in running}
    clusters = sorted({(each.kubeconfig, each.context) for each in objects if each.kubeconfig in there})
    groups = [
        [each for each in objects if (each.kubeconfig, each.context) == cluster] for cluster in clusters
    ]
    drifts = await asyncio.gather(
        *(_drift_of(*cluster, group) for cluster, group in zip(clusters, groups, strict=True))
    )
    if not drifts:
        return None
    return Drift(
        sum(each.compared for each in drifts),
        *(
            tuple(name for each in drifts for name in getattr(each, field))
            for field in ("gone", "replaced", "changed", "written", "unasked")
        ),
    )


async def _drift_of(kubeconfig: str, context: str, group: Sequence[Recorded]) -> Drift:
    places = sorted({(each.kind, each.namespace) for each in group}, key=str)
    try:
        async with Kube(Credentials.from_kubeconfig(Path(kubeconfig), context), timeout_s=TIMEOUT_S) as kube:
            lists = await asyncio.gather(*(_listed(kube, *place) for place in places))
    except (SwitchboardError, ApiError, Unreachable) as error:
        return Drift(unasked=(f"{context}: {one_line(error)[:100]}",))
    live = {
        # The items of a list don't say what they are.
        (kind, namespace, item["metadata"]["name"]): {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            **item,
        }
        for (kind, namespace), found in zip(places, lists, strict=True)
        for item in found
    }
    return compare(group, live)


async def _listed(kube: Kube, kind: Kind, namespace: str | None) -> list[Object]:
    """None of a kind whose definition is gone."""
    try:
        answer = await kube.request("GET", kind.path(namespace))
    except ApiError as error:
        if error.not_found:
            return []
        raise
    return list(answer["items"])
