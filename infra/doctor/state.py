"""Is the stack's Pulumi state sound: who is at work on it, what was cut off, and does it tell what is in the clusters?

The state is read as it lies in the stack's folder (embedded stacks; others keep theirs where Pulumi is logged in).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import config, locks, pulumi_cli
from infra.doctor.drift import Drift, Recorded, recorded
from infra.doctor.report import Finding, failed, ok, one_line, skipped, warning
from switchboard import paths

_SHOWN = 4


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
            (drift.written, "written by somebody else, maybe in values that the state keeps encrypted"),
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
    return ok(check, f"{drift.compared} objects are there, with all that Pulumi says of them")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# --- gathering -------------------------------------------------------------------------------------------


def look(stack_name: str) -> tuple[Facts, list[Recorded]]:
    """What lies in the stack's folder, and the objects that it tells of (for `drift.look`)."""
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
