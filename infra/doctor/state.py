"""Is the stack's Pulumi state sound: who is at work on it, what was cut off, and does it tell what is in the clusters?

The state is read as it lies in the stack's folder (embedded stacks; others keep theirs where Pulumi is logged in).
Drift is counted cheaply: an object counts as changed when the API server raised its `generation` since Pulumi wrote it
(its specification is another), or gave it another UID (it was made anew); what has no generation is looked for by its
UID.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import config, locks, pulumi_cli
from infra.doctor.report import Finding, failed, ok, one_line, skipped, warning
from infra.plugin.kinds import BUILT_IN, Unsupported, parse_token
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.kube import ApiError, Credentials, Kind, Kube, Object, Unreachable

TIMEOUT_S = 3.0
_SHOWN = 4


@dataclass(frozen=True)
class Recorded:
    """An object as Pulumi's state has it."""

    kubeconfig: str
    context: str
    kind: Kind
    namespace: str | None
    name: str
    uid: str | None
    generation: int | None

    @property
    def words(self) -> str:
        return f"{self.kind.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class Drift:
    """How the clusters differ from the state; `unasked` says why some couldn't be compared."""

    compared: int = 0
    gone: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """The state as it lies there. `at_work` and `damaged` are empty where there is nothing to tell."""

    stack: str
    at_work: str = ""
    locks: tuple[locks.Lock, ...] = ()
    exists: bool = True
    damaged: str = ""
    pending: tuple[str, ...] = ()
    resources: int = 0
    drift: Drift | None = None


def judge(facts: Facts) -> list[Finding]:
    """Locks, then what was cut off, then drift."""
    return [_lock(facts), *_checkpoint(facts)]


def _lock(facts: Facts) -> Finding:
    check = "state/lock"
    if holders := [facts.at_work] * bool(facts.at_work) + [each.owner for each in facts.locks if each.held]:
        return warning(
            check, f"{' and '.join(holders)} at work", "wait until it ends: no other can change it"
        )
    if dead := [each for each in facts.locks if not each.held]:
        return warning(
            check,
            f"left by {dead[0].owner}, which has ended without letting go",
            f"`switchboard up` clears it, or `switchboard pulumi --stack {facts.stack} -- cancel`",
        )
    return ok(check, "nobody is at work on the stack")


def _checkpoint(facts: Facts) -> list[Finding]:
    if not facts.exists:
        return [skipped("state/checkpoint", "none yet", "`make up` makes it")]
    if facts.damaged:
        return [
            failed(
                "state/checkpoint",
                f"can't be read: {facts.damaged}",
                f"restore the .bak beside it, or `switchboard clean --stack {facts.stack}` to start over",
            )
        ]
    found = [ok("state/checkpoint", f"{facts.resources} resources")]
    if facts.pending:
        busy = bool(facts.at_work) or any(each.held for each in facts.locks)
        told = f"{len(facts.pending)} unfinished: {_some(facts.pending)}"
        found = [
            skipped("state/checkpoint", f"{told}, by who is at work")
            if busy
            else warning("state/checkpoint", told, "`switchboard up` looks what came of them, and goes on")
        ]
    return [*found, _drift(facts)]


def _drift(facts: Facts) -> Finding:
    check = "state/drift"
    drift = facts.drift
    if drift is None or not (drift.compared or drift.unasked):
        return skipped(check, "nothing to compare with: no site runs")
    parts = [
        f"{len(names)} {what}: {_some(names)}"
        for names, what in (
            (drift.gone, "gone"),
            (drift.replaced, "made anew by somebody else"),
            (drift.changed, "changed by somebody else"),
        )
        if names
    ]
    if parts:
        return warning(
            check,
            f"of {drift.compared} objects {'; '.join(parts)}",
            f"`switchboard pulumi --stack {facts.stack} -- up --refresh` puts them right"
            " (`preview --refresh --diff` shows it first)",
        )
    if drift.unasked:
        return skipped(check, f"not all could be compared: {'; '.join(drift.unasked)}")
    return ok(check, f"{drift.compared} objects are there as Pulumi left them")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def compare(recorded: Sequence[Recorded], live: Mapping[tuple[Kind, str | None, str], Object]) -> Drift:
    """What became of the recorded objects, by kind, namespace and name."""
    gone, replaced, changed = [], [], []
    for each in recorded:
        found = live.get((each.kind, each.namespace, each.name))
        if found is None:
            gone.append(each.words)
            continue
        meta = found["metadata"]
        if each.uid is not None and meta.get("uid") != each.uid:
            replaced.append(each.words)
        elif each.generation is not None and meta.get("generation", each.generation) > each.generation:
            changed.append(each.words)
    return Drift(len(recorded), tuple(gone), tuple(replaced), tuple(changed))


def recorded(resources: Iterable[Mapping[str, Any]]) -> list[Recorded]:
    """The Kubernetes objects among a checkpoint's resources, of the kinds that every cluster has."""
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
        meta = outputs.get("metadata")
        kind = BUILT_IN.get((token.api_version, token.kind))
        if kind is None or not isinstance(meta, dict) or token.patch or "name" not in meta:
            continue
        found.append(
            Recorded(
                str(provider.get("kubeconfig", "")),
                str(provider.get("context", "")),
                kind,
                meta.get("namespace") if kind.namespaced else None,
                meta["name"],
                meta.get("uid"),
                meta.get("generation"),
            )
        )
    return found


# --- gathering -------------------------------------------------------------------------------------------


def look(stack_name: str) -> tuple[Facts, list[Recorded]]:
    """What lies in the stack's folder, and the objects that it tells of (for `look_for_drift`)."""
    backend = pulumi_cli.backend(stack_name)
    at_work = _holder(stack_name)
    found = tuple(locks.read(backend))
    path = backend / ".pulumi" / "stacks" / config.PROJECT / f"{stack_name}.json"
    if not path.exists():
        return Facts(stack_name, at_work, found, exists=False), []
    try:
        latest = json.loads(path.read_text())["checkpoint"].get("latest") or {}
        resources = list(latest.get("resources") or [])
        pending = tuple(_pending(each) for each in latest.get("pending_operations") or [])
        objects = recorded(resources)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Facts(stack_name, at_work, found, damaged=f"{path}: {one_line(error)[:80]}"), []
    return Facts(stack_name, at_work, found, pending=pending, resources=len(resources)), objects


def _pending(operation: Mapping[str, Any]) -> str:
    resource = operation["resource"]
    return f"{operation['type']} {resource['type'].removeprefix('kubernetes:')} {resource['urn'].split('::')[-1]}"


def _holder(stack_name: str) -> str:
    """Who holds the stack's lock (`infra.local.cloud.exclusive`), in its own words; empty where nobody does."""
    path = paths.state_root() / f"{stack_name}.lock"
    try:
        with path.open() as file:
            try:
                # Shared, and let go at once: whoever comes at this very moment takes it exclusively.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another `switchboard` command"
    except OSError:
        return ""
    return ""


async def look_for_drift(objects: Sequence[Recorded], running: Iterable[Path]) -> Drift | None:
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
            for field in ("gone", "replaced", "changed", "unasked")
        ),
    )


async def _drift_of(kubeconfig: str, context: str, group: Sequence[Recorded]) -> Drift:
    places = sorted({(each.kind, each.namespace) for each in group}, key=str)
    try:
        async with Kube(Credentials.from_kubeconfig(Path(kubeconfig), context), timeout_s=TIMEOUT_S) as kube:
            lists = await asyncio.gather(
                *(kube.request("GET", kind.path(namespace)) for kind, namespace in places)
            )
    except (SwitchboardError, ApiError, Unreachable) as error:
        return Drift(unasked=(f"{context}: {one_line(error)[:100]}",))
    live = {
        (kind, namespace, item["metadata"]["name"]): item
        for (kind, namespace), answer in zip(places, lists, strict=True)
        for item in answer["items"]
    }
    return compare(group, live)
