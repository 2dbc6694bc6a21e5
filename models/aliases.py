"""The aliases of a model: `champion` serves, `challenger` is on its way, `previous` is what to go back to.

What is to be set, in which order, is decided by pure functions; the order is such that a reader finds a champion at
every moment. `promote` and `roll_back` carry it out and write the ledger. Both may be called again after they were
interrupted anywhere, and end in the same; the operator calls them, with the standard library alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from models.ledger import Action, Draft, Entry, Ledger
from models.rest import NotFound, Registry
from models.rest_write import RegistryWriter
from switchboard.errors import SwitchboardError
from switchboard.registry_users import CHALLENGER, CHAMPION, PREVIOUS


@dataclass(frozen=True)
class Aliases:
    """The version that each means, if any."""

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None


@dataclass(frozen=True)
class Step:
    """Let the alias mean the version, or nothing."""

    alias: str
    version: str | None


@dataclass(frozen=True)
class Reason:
    """For the ledger: who decided, why, and the SHA-256 of the bundle of evidence (empty where there is none)."""

    who: str
    why: str
    evidence: str = ""


@dataclass(frozen=True)
class Moved:
    """What was done: the steps that were still to do, and the ledger's entry."""

    from_version: str | None
    to_version: str
    steps: tuple[Step, ...]
    entry: Entry


def promotion(now: Aliases, version: str) -> tuple[Step, ...]:
    """The steps that make `version` the champion; none where all is done.

    `previous` first, then `champion`: who is interrupted in between has lost nothing. Then `challenger` goes, if it
    means this version.
    """
    steps: list[Step] = []
    if now.champion != version:
        if now.champion is not None and now.previous != now.champion:
            steps.append(Step(PREVIOUS, now.champion))
        steps.append(Step(CHAMPION, version))
    if now.challenger == version:
        steps.append(Step(CHALLENGER, None))
    return tuple(steps)


def return_to(now: Aliases, bad: str, to: str, before: str | None) -> tuple[Step, ...]:
    """The steps that take `bad` out of production for `to`; `before` is what was in production before `to`.

    `previous` never means the version that was taken out, or going back twice would bring it back.
    """
    steps: list[Step] = []
    if now.champion != to:
        steps.append(Step(CHAMPION, to))
    if now.challenger == bad:
        steps.append(Step(CHALLENGER, None))
    if now.previous != before:
        steps.append(Step(PREVIOUS, before))
    return tuple(steps)


def unrecorded(now: Aliases, entries: Sequence[Entry]) -> bool:
    """Whether the champion was promoted and the ledger wasn't told: `promote` was interrupted in between.

    A champion without an entry and without one before it is the first, which the ledger needn't know.
    """
    if now.champion is None:
        return False
    if not entries:
        return now.previous not in (None, now.champion)
    return entries[-1].to_version not in (now.champion, _returning_from(now, entries))


def to_take_out(now: Aliases, entries: Sequence[Entry]) -> str | None:
    """What going back takes out of production: the champion, or what it was going back from when it was interrupted.

    Without that, whoever calls again after an interruption would go back twice.
    """
    return _returning_from(now, entries) or now.champion


def _returning_from(now: Aliases, entries: Sequence[Entry]) -> str | None:
    """The version that was taken out without the ledger being told: its last entry still has it, and the champion is
    what that one replaced. (What was promoted without its being told has it for `previous`.)"""
    last = entries[-1].to_version if entries else None
    if last is None or last in (now.champion, now.previous):
        return None
    return last if now.champion is not None and _replaced(entries, last) == now.champion else None


def read(registry: Registry, name: str) -> Aliases:
    """What the aliases mean now.

    Raises:
        RegistryError: there is no such model, or the registry can't be reached.
    """
    by_alias = {alias: version for version, names in registry.aliases(name).items() for alias in names}
    return Aliases(by_alias.get(CHAMPION), by_alias.get(CHALLENGER), by_alias.get(PREVIOUS))


def promote(registry: RegistryWriter, name: str, version: str, *, reason: Reason, now: datetime) -> Moved:
    """Make `version` the champion and write it down.

    Whether it may be is for `models.eligible.refusal`. Called again, after an interruption or not, it does what is
    left to do, and writes one entry.

    Raises:
        SwitchboardError: the ledger is damaged; the aliases are set then.
        RegistryError: there is no such version, or the registry can't be reached: call it again.
    """
    registry.version(name, version)
    aliases = read(registry, name)
    steps = promotion(aliases, version)
    _carry_out(registry, name, steps)
    ledger = Ledger(registry, name)
    entries = ledger.entries()
    if entries and entries[-1].to_version == version and aliases.champion == version:
        return Moved(entries[-1].from_version, version, steps, entries[-1])
    # Where the champion was set before an interruption, the old one is what `previous` was set to first.
    old = aliases.champion if aliases.champion != version else aliases.previous
    entry = ledger.append(Draft(now, Action.PROMOTE, old, version, reason.who, reason.why, reason.evidence))
    return Moved(old, version, steps, entry)


def roll_back(
    registry: RegistryWriter, name: str, bad: str, *, reason: Reason, now: datetime, to: str | None = None
) -> Moved:
    """Take `bad` out of production: `to`, by default what `previous` means, is the champion again.

    Called again, after an interruption or not, it does what is left to do, and writes one entry.

    Raises:
        SwitchboardError: `bad` isn't the champion, there is nothing to go back to, or the ledger is damaged.
        RegistryError: a version isn't there, or the registry can't be reached: call it again.
    """
    aliases = read(registry, name)
    ledger = Ledger(registry, name)
    entries = ledger.entries()
    target = _target(name, aliases, bad, to, entries)
    registry.version(name, target)
    before = _before(registry, name, target, bad, entries)
    steps = return_to(aliases, bad, target, before)
    _carry_out(registry, name, steps)
    if _is_return(entries, bad, target):
        return Moved(bad, target, steps, entries[-1])
    entry = ledger.append(Draft(now, Action.ROLL_BACK, bad, target, reason.who, reason.why, reason.evidence))
    return Moved(bad, target, steps, entry)


def _target(name: str, aliases: Aliases, bad: str, to: str | None, entries: list[Entry]) -> str:
    """What is, or was already, returned to."""
    champion = aliases.champion
    if champion == bad:
        target = to or aliases.previous
        if target is None or target == bad:
            raise SwitchboardError(
                f"there is no version of {name} to go back to from {bad}", "promote one that is good"
            )
        return target
    # Interrupted before: `bad` was the champion until a moment ago, which the ledger or `previous` still says.
    begun = _is_return(entries, bad, champion) or (entries and entries[-1].to_version == bad)
    if champion is None or not begun or to not in (None, champion):
        raise SwitchboardError(
            f"version {bad} is not the champion of {name}: that is {champion or 'none'}",
            f"see what is in production: switchboard models history {name}",
        )
    return champion


def _is_return(entries: list[Entry], bad: str, target: str | None) -> bool:
    last = entries[-1] if entries else None
    return last is not None and (last.action, last.from_version, last.to_version) == (
        Action.ROLL_BACK,
        bad,
        target,
    )


def _before(registry: Registry, name: str, target: str, bad: str, entries: list[Entry]) -> str | None:
    """What was in production before `target` was promoted, if it is still there."""
    before = _replaced(entries, target)
    if before is None or before in (bad, target):
        return None
    try:
        return registry.version(name, before).version
    except NotFound:
        return None


def _replaced(entries: Sequence[Entry], version: str) -> str | None:
    """What was in production when `version` was promoted last."""
    replaced = [
        entry.from_version
        for entry in entries
        if entry.to_version == version and entry.action is Action.PROMOTE and entry.from_version is not None
    ]
    return replaced[-1] if replaced else None


def _carry_out(registry: RegistryWriter, name: str, steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.version is None:
            registry.delete_alias(name, step.alias)
        else:
            registry.set_alias(name, step.alias, step.version)
