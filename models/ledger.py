"""The ledger of a model: what was in production when, who decided it, why, and on what evidence. It only grows.

It lives in MLflow: one run of the experiment `<model>-releases`, which stays open, an entry for each parameter. A
parameter is written once (MLflow refuses another value), so of two writers of the same entry one wins and the other
reads again: the chain can't fork. Each entry has the SHA-256 of the one before it, and the registered model has the
number and the hash of the last as a tag: an entry that was changed, or that is missing, even the last, is noticed.

The entries and what follows from them are pure; `Ledger` reads and appends, with the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from models.rest import NotFound, Unreachable
from models.rest_write import Changed, RegistryWriter, Run
from switchboard.errors import SwitchboardError
from switchboard.registry_users import ENTRY, HEAD_TAG, LEDGER_SUFFIX

LEDGER_TAG: Final = "switchboard.ledger"
"""On the run: which model's ledger it is."""
GENESIS: Final = "0" * 64
"""What the first entry has for the hash of the one before."""
MAX_CHARACTERS: Final = 6000
"""Of an entry. MLflow cuts a longer parameter off without a word."""
_WITHDRAWN: Final = "KILLED"
"""The status of a run that its writer stepped back from. (Runs aren't deleted: a release may not.)"""
_TRIES: Final = 8


class Action(StrEnum):
    PROMOTE = "promote"
    ROLL_BACK = "rollback"


@dataclass(frozen=True)
class Entry:
    """One change of what is in production; see `Draft` for its fields."""

    number: int
    at: datetime
    action: Action
    from_version: str | None
    to_version: str
    who: str
    why: str
    evidence: str
    before: str
    """SHA-256 of the entry before this one."""

    def text(self) -> str:
        """The canonical form, that of the hash: JSON with sorted keys and without spaces."""
        raw = asdict(self) | {"at": self.at.astimezone(UTC).isoformat()}
        return json.dumps(raw, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Raises ValueError for what isn't an entry."""
        try:
            raw = json.loads(text)
            at, action = datetime.fromisoformat(raw.pop("at")), Action(raw.pop("action"))
            return cls(at=at, action=action, **raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an entry of a ledger: {error}") from None


@dataclass(frozen=True)
class Draft:
    """An entry before it has its place in the chain."""

    at: datetime
    action: Action
    from_version: str | None
    to_version: str
    who: str
    why: str
    evidence: str = ""
    """SHA-256 of the bundle of evidence; empty where there is none."""

    def after(self, last: Entry | None) -> Entry:
        """The entry that follows `last`; its time is never before that one's, whatever this machine's clock says."""
        number, before = (last.number + 1, last.sha256) if last else (1, GENESIS)
        at = max(self.at, last.at) if last else self.at
        return Entry(number=number, before=before, **(dict(self.__dict__) | {"at": at}))


@dataclass(frozen=True)
class Standing:
    """A version in production, from when until when, and the number of the entry that brought it there.

    `since` is None for what was there before the ledger began, `until` for what is there now.
    """

    version: str
    since: datetime | None
    until: datetime | None
    entry: int | None


def standings(entries: Sequence[Entry]) -> list[Standing]:
    """What was in production, oldest first."""
    found: list[Standing] = []
    if entries and entries[0].from_version is not None:
        found.append(Standing(entries[0].from_version, None, entries[0].at, None))
    ends = [*(entry.at for entry in entries[1:]), None]
    for entry, until in zip(entries, ends, strict=False):
        found.append(Standing(entry.to_version, entry.at, until, entry.number))
    return found


def during(entries: Sequence[Entry], start: datetime, end: datetime) -> list[Standing]:
    """What was in production at any time from `start` to `end`, both included; the same for both: at that moment."""
    return [
        one
        for one in standings(entries)
        if (one.since is None or one.since <= end) and (one.until is None or one.until > start)
    ]


def problems(entries: Sequence[Entry], head: str | None) -> list[str]:
    """What is wrong with a chain, a sentence each; `head` is the registered model's tag, where it has one."""
    found: list[str] = []
    before, number = GENESIS, 0
    for entry in entries:
        if entry.number != number + 1:
            found.append(f"{_named(number + 1, entry.number - 1)} missing")
        elif entry.before != before:
            what = f"entry {number} was changed" if number else "the first entry names one before it"
            found.append(f"{what}: entry {entry.number} has {entry.before[:12]}… for its hash")
        before, number = entry.sha256, entry.number
    if head is None:
        return found
    last, _, digest = head.partition(":")
    if not last.isdigit():
        return [*found, f"the tag {HEAD_TAG} is not the ledger's: {head[:40]!r}"]
    at_head = next((entry for entry in entries if entry.number == int(last)), None)
    if at_head is None:
        found.append(f"{_named(number + 1, int(last))} missing at the end")
    elif at_head.sha256 != digest:
        found.append(f"entry {last} was changed: the registered model has another hash for it")
    return found


def _named(first: int, last: int) -> str:
    return f"entry {first} is" if first >= last else f"entries {first} to {last} are"


@dataclass(frozen=True)
class _State:
    """The ledger as it is now: the run that holds it, if there is one, and the entries."""

    run: Run | None
    entries: tuple[Entry, ...]


class Ledger:
    """The ledger of one registered model; keeps nothing between calls, and may be used by several at once."""

    def __init__(self, registry: RegistryWriter, model: str) -> None:
        self.model = model
        self.experiment = f"{model}{LEDGER_SUFFIX}"
        self._registry = registry

    def entries(self) -> list[Entry]:
        """All entries, oldest first; none where nothing was ever released.

        Raises:
            SwitchboardError: an entry can't be read, or two writers are beginning the ledger at this moment.
            RegistryError: the registry can't be reached or refuses.
        """
        return list(self._read().entries)

    def verify(self) -> list[str]:
        """What is wrong, a sentence each: entries that are missing or were changed, a champion that it doesn't know.

        Raises:
            SwitchboardError, RegistryError: see `entries`.
        """
        head = self._head()
        entries = self.entries()
        found = problems(entries, head)
        try:
            champion = self._registry.version_of_alias(self.model, "champion").version
        except NotFound:
            champion = None
        if entries and champion != entries[-1].to_version:
            found.append(
                f"the champion is {_version(champion)}, the last entry says {_version(entries[-1].to_version)}"
            )
        return found

    def prepare(self) -> list[Entry]:
        """All entries, once it is sure that another one may follow: to be called before an alias is moved.

        Whoever may not write the first entry learns it here, since the run that it belongs in is made.

        Raises:
            SwitchboardError: the ledger is damaged; or see `entries`.
            RegistryError: there is no such model, or the registry can't be reached or refuses.
        """
        head = self._head()
        entries = self.entries()
        self._check(entries, head)
        if not entries:
            self._begin()
        return entries

    def append(self, draft: Draft) -> Entry:
        """Write an entry after the last; where another writer was faster, after theirs.

        Raises:
            SwitchboardError: the ledger is damaged, the entry is too long, or there was no peace to write it in.
            RegistryError: the registry can't be reached or refuses; the entry may have been written all the same.
        """
        written: Entry | None = None
        failure: Exception | None = None
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)  # noqa: S311 - so that two don't meet again
            head = self._head()
            try:
                state = self._read()
            except _BegunTwiceError:
                continue
            if written is not None and written in state.entries:
                return self._settle(written)
            self._check(state.entries, head)
            written = draft.after(state.entries[-1] if state.entries else None)
            try:
                if self._write(state, written):
                    return self._settle(written)
            except _BegunTwiceError:
                continue
            except Unreachable as error:
                # Perhaps it was written, and only the answer was lost: the next read tells.
                failure = error
        raise failure or SwitchboardError(
            f"the ledger of {self.model} couldn't be written: others were faster, {_TRIES} times",
            "try again",
        )

    def _write(self, state: _State, entry: Entry) -> bool:
        """False where another writer was first."""
        if len(text := entry.text()) > MAX_CHARACTERS:
            raise SwitchboardError(
                f"an entry of the ledger may have {MAX_CHARACTERS} characters, this has {len(text)}",
                "shorten the reason",
            )
        run = state.run or self._begin()
        try:
            self._registry.log_param(run.run_id, _key(entry.number), text)
        except Changed:
            return False
        if entry.number == 1 and any(other.run_id != run.run_id for other in self._written_runs()):
            # Two began the ledger at once, in a run each. Each looks after it has written, so at least one sees the
            # other; who sees another steps back. That leaves one run, or none and another try.
            self._registry.end_run(run.run_id, _WITHDRAWN, _now_ms())
            return False
        # Who began the run may have stepped back from it meanwhile.
        return entry in self._read().entries

    def _head(self) -> str | None:
        """The last entry as the registered model has it; to be read before the entries, which may grow meanwhile."""
        return self._registry.model_tags(self.model).get(HEAD_TAG)

    def _check(self, entries: Sequence[Entry], head: str | None) -> None:
        if wrong := problems(entries, head):
            raise SwitchboardError(
                f"the ledger of {self.model} is damaged: {wrong[0]}",
                f"switchboard models history {self.model} --verify tells all; restore the experiment "
                f"{self.experiment} from MLflow's backup",
            )

    def _settle(self, entry: Entry) -> Entry:
        """Note the last entry at the registered model; it may be a later one by now, and then that is noted."""
        last = entry
        while True:
            self._registry.set_model_tag(self.model, HEAD_TAG, f"{last.number}:{last.sha256}")
            try:
                newest = self._read().entries[-1]
            except _BegunTwiceError:
                return entry  # who begins it again will see this one and step back
            if newest.number == last.number:
                return entry
            last = newest

    def _read(self) -> _State:
        runs = self._written_runs()
        if len(runs) > 1:
            raise _BegunTwiceError(
                f"the ledger of {self.model} is in two runs: {runs[0].run_id} and {runs[1].run_id}",
                "ask again; where it stays so, delete the run that production doesn't agree with",
            )
        if not runs:
            return _State(None, ())
        try:
            entries = [Entry.parse(value) for key, value in runs[0].params.items() if key.startswith(ENTRY)]
        except ValueError as error:
            raise SwitchboardError(f"the ledger of {self.model} can't be read: {error}") from None
        return _State(runs[0], tuple(sorted(entries, key=lambda entry: entry.number)))

    def _written_runs(self) -> list[Run]:
        return [run for run in self._runs() if any(key.startswith(ENTRY) for key in run.params)]

    def _runs(self) -> list[Run]:
        experiment = self._registry.experiment(self.experiment)
        if experiment is None:
            return []
        found = self._registry.runs(experiment, f"tags.`{LEDGER_TAG}` = '{self.model}'")
        return [run for run in found if run.status != _WITHDRAWN]

    def _begin(self) -> Run:
        """The run to write to where none has an entry: one that somebody began, else a new one."""
        experiment = self._registry.make_experiment(self.experiment)
        if not self._runs():
            self._registry.make_run(experiment, "ledger", {LEDGER_TAG: self.model}, _now_ms())
        return min(self._runs(), key=lambda run: run.run_id)


class _BegunTwiceError(SwitchboardError):
    """Two runs have entries; while two writers begin a ledger at once it may be so for a moment."""


def _now_ms() -> int:
    return int(time.time() * 1000)


def _key(number: int) -> str:
    return f"{ENTRY}{number:06d}"


def _version(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
