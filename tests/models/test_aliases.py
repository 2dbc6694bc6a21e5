"""Promotion and going back: the steps, and that no reader ever finds no champion, whatever is interrupted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import aliases
from models.aliases import (
    Aliases,
    Reason,
    Step,
    promote,
    promotion,
    return_to,
    roll_back,
    to_take_out,
    unrecorded,
)
from models.ledger import Action, Draft, Entry, Ledger
from models.rest import NotFound, Registry, RegistryError
from models.rest_write import RegistryWriter
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.models.conftest import Register

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
REASON = Reason("ana", "fewer wrong answers", "e" * 64)


def test_the_operator_can_afford_it() -> None:
    """Neither mlflow nor numpy is imported for the aliases, the ledger and the checks of a candidate."""
    code = (
        "import sys, models.aliases, models.eligible, models.ledger;"
        "print(sorted({'mlflow', 'numpy', 'pandas', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


VERSION = st.sampled_from(["1", "2", "3"])
ALIASES = st.builds(Aliases, st.none() | VERSION, st.none() | VERSION, st.none() | VERSION)


@pytest.mark.parametrize(
    ("now", "steps", "why"),
    [
        (Aliases(), [Step("champion", "2")], "the first champion has nothing before it"),
        (Aliases("1"), [Step("previous", "1"), Step("champion", "2")], "previous first"),
        (
            Aliases("1", "2", "0"),
            [Step("previous", "1"), Step("champion", "2"), Step("challenger", None)],
            "the challenger has arrived",
        ),
        (Aliases("1", "3"), [Step("previous", "1"), Step("champion", "2")], "another one is on its way"),
        (Aliases("1", None, "1"), [Step("champion", "2")], "interrupted after previous"),
        (Aliases("2", "2", "1"), [Step("challenger", None)], "interrupted after champion"),
        (Aliases("2", None, "1"), [], "done"),
    ],
)
def test_promotion(now: Aliases, steps: list[Step], why: str) -> None:
    assert list(promotion(now, "2")) == steps, why


@pytest.mark.parametrize(
    ("now", "before", "steps", "why"),
    [
        (Aliases("2", None, "1"), None, [Step("champion", "1"), Step("previous", None)], "back"),
        (
            Aliases("2", None, "1"),
            "0",
            [Step("champion", "1"), Step("previous", "0")],
            "there is an older one",
        ),
        (Aliases("1", None, "1"), None, [Step("previous", None)], "interrupted after champion"),
        (
            Aliases("2", "2", "1"),
            None,
            [Step("champion", "1"), Step("challenger", None), Step("previous", None)],
            "it is no challenger any more",
        ),
        (Aliases("1", "3", None), None, [], "done"),
    ],
)
def test_going_back(now: Aliases, before: str | None, steps: list[Step], why: str) -> None:
    assert list(return_to(now, "2", "1", before)) == steps, why


def entries(*told: tuple[str, str | None, str]) -> list[Entry]:
    """A ledger: what was done, from which version, to which."""
    found: list[Entry] = []
    for action, old, new in told:
        draft = Draft(NOW, Action(action), old, new, "ana", "")
        found.append(draft.after(found[-1] if found else None))
    return found


FIRST, SECOND, BACK = ("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1")


@pytest.mark.parametrize(
    ("now", "told", "left", "bad", "why"),
    [
        (Aliases(), [], False, None, "nothing was ever in production"),
        (Aliases("1"), [], False, "1", "the first one, of which a ledger needn't know"),
        (Aliases("2", None, "1"), [SECOND], False, "2", "all is told"),
        (Aliases("2", None, "1"), [], True, "2", "promoted, and nothing told yet"),
        (Aliases("2", None, "1"), [FIRST], True, "2", "the same where there was a ledger"),
        (Aliases("2", None, "2"), [FIRST, SECOND], False, "2", "`previous` was set for the next one"),
        (Aliases("3", None, "2"), [FIRST, SECOND], True, "3", "and so was the champion"),
        (Aliases("1", None, "2"), [FIRST, SECOND], True, "1", "the next one may be the one before"),
        (Aliases("1", None, "1"), [FIRST, SECOND], False, "2", "it was going back: the champion is set"),
        (Aliases("1", None, None), [FIRST, SECOND], False, "2", "and all but the ledger"),
        (Aliases("1", None, None), [FIRST, SECOND, BACK], False, "1", "it has gone back"),
        (Aliases("3", None, "1"), [FIRST, SECOND], True, "3", "somebody moved it and told no ledger"),
    ],
)
def test_what_an_interruption_left(
    now: Aliases, told: list[tuple[str, str | None, str]], left: bool, bad: str | None, why: str
) -> None:
    assert unrecorded(now, entries(*told)) is left, why
    assert to_take_out(now, entries(*told)) == bad, why


def after(now: Aliases, step: Step) -> Aliases:
    return Aliases(**{**now.__dict__, step.alias: step.version})


@given(ALIASES, VERSION, st.integers(0, 3))
def test_promotion_may_be_interrupted_anywhere(now: Aliases, version: str, done: int) -> None:
    """There is a champion after every step if there was one before, and a second call ends as the first would have."""
    whole = now
    for step in promotion(now, version):
        whole = after(whole, step)
        assert now.champion is None or whole.champion is not None
    partly = now
    for step in promotion(now, version)[:done]:
        partly = after(partly, step)
    for step in promotion(partly, version):
        partly = after(partly, step)
    assert partly == whole
    assert whole.champion == version and whole.challenger != version
    if now.champion not in (None, version):
        assert whole.previous == now.champion


@given(ALIASES, st.integers(0, 3))
def test_going_back_may_be_interrupted_anywhere(now: Aliases, done: int) -> None:
    whole = partly = now
    for step in return_to(now, "2", "1", None):
        whole = after(whole, step)
    for step in return_to(now, "2", "1", None)[:done]:
        partly = after(partly, step)
    for step in return_to(partly, "2", "1", None):
        partly = after(partly, step)
    assert partly == whole
    assert (whole.champion, whole.previous) == ("1", None)


@pytest.fixture
def registry(mlflow_server: str, register: Register) -> RegistryWriter:
    """Three versions, the first of them champion, the second challenger."""
    register(alias="champion")
    register(alias="challenger")
    register()
    return RegistryWriter(mlflow_server)


def test_a_promotion_and_a_way_back(registry: RegistryWriter, model_name: str) -> None:
    moved = promote(registry, model_name, "2", reason=REASON, now=NOW)
    assert (moved.from_version, moved.to_version) == ("1", "2")
    assert aliases.read(registry, model_name) == Aliases("2", None, "1")
    back = roll_back(registry, model_name, "2", reason=Reason("ben", "wrong on loans"), now=NOW)
    assert (back.from_version, back.to_version) == ("2", "1")
    assert aliases.read(registry, model_name) == Aliases("1", None, None)
    entries = Ledger(registry, model_name).entries()
    assert [(e.action, e.from_version, e.to_version, e.who) for e in entries] == [
        (Action.PROMOTE, "1", "2", "ana"),
        (Action.ROLL_BACK, "2", "1", "ben"),
    ]
    assert entries[0].evidence == "e" * 64
    assert Ledger(registry, model_name).verify() == []


def test_back_twice_goes_to_what_was_before(registry: RegistryWriter, model_name: str) -> None:
    promote(registry, model_name, "2", reason=REASON, now=NOW)
    promote(registry, model_name, "3", reason=REASON, now=NOW)
    roll_back(registry, model_name, "3", reason=REASON, now=NOW)
    assert aliases.read(registry, model_name) == Aliases("2", None, "1")
    roll_back(registry, model_name, "2", reason=REASON, now=NOW)
    assert aliases.read(registry, model_name) == Aliases("1", None, None)
    with pytest.raises(SwitchboardError, match=r"no version of .* to go back to from 1"):
        roll_back(registry, model_name, "1", reason=REASON, now=NOW)


def test_to_a_version_that_is_named(registry: RegistryWriter, model_name: str) -> None:
    promote(registry, model_name, "2", reason=REASON, now=NOW)
    roll_back(registry, model_name, "2", reason=REASON, now=NOW, to="3")
    assert aliases.read(registry, model_name).champion == "3"


class Dying(RegistryWriter):
    """Is killed before its nth write."""

    def __init__(self, uri: str, lives: int) -> None:
        super().__init__(uri)
        self.lives = lives

    def _request(self, verb: str, url: str, body: bytes, kind: str) -> bytes:
        if not url.endswith("runs/search"):
            if self.lives == 0:
                raise KeyboardInterrupt
            self.lives -= 1
        return super()._request(verb, url, body, kind)


@pytest.mark.parametrize("lives", range(8))
@pytest.mark.parametrize("way", ["promote", "roll back"])
def test_killed_anywhere_and_called_again(
    registry: RegistryWriter, model_name: str, lives: int, way: str
) -> None:
    if way == "roll back":
        promote(registry, model_name, "2", reason=REASON, now=NOW)

    def call(used: RegistryWriter) -> None:
        if way == "promote":
            promote(used, model_name, "2", reason=REASON, now=NOW)
        else:
            roll_back(used, model_name, "2", reason=REASON, now=NOW)

    try:
        call(Dying(registry.uri, lives))
    except KeyboardInterrupt:
        assert aliases.read(registry, model_name).champion in ("1", "2")
    call(registry)
    call(registry)
    expected = Aliases("2", None, "1") if way == "promote" else Aliases("1", None, None)
    assert aliases.read(registry, model_name) == expected
    ledger = Ledger(registry, model_name)
    moves = [(e.from_version, e.to_version) for e in ledger.entries()]
    assert moves == ([("1", "2")] if way == "promote" else [("1", "2"), ("2", "1")])
    assert ledger.verify() == []


def test_a_reader_always_finds_a_champion(registry: RegistryWriter, model_name: str) -> None:
    stop = threading.Event()
    seen: list[str] = []

    def look() -> None:
        reader = Registry(registry.uri, timeout_s=60)
        while not stop.is_set():
            try:
                seen.append(reader.version_of_alias(model_name, "champion").version)
            except RegistryError as error:
                seen.append(f"{type(error).__name__}: {error}")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(3):
            promote(registry, model_name, "2", reason=REASON, now=NOW)
            roll_back(registry, model_name, "2", reason=REASON, now=NOW)
        while len(seen) <= 5 and watcher.is_alive():
            time.sleep(0.01)
    finally:
        stop.set()
        watcher.join(120)
    assert set(seen) <= {"1", "2"} and len(seen) > 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r, n: promote(r, n, "9", reason=REASON, now=NOW), NotFound, "version 9|not found"),
        (lambda r, n: promote(r, "t-none", "1", reason=REASON, now=NOW), NotFound, "t-none"),
        (
            lambda r, n: roll_back(r, n, "3", reason=REASON, now=NOW),
            SwitchboardError,
            "version 3 is not the champion of .*: that is 1",
        ),
        (
            lambda r, n: roll_back(r, n, "1", reason=REASON, now=NOW),
            SwitchboardError,
            "no version of .* to go back to",
        ),
        (lambda r, n: roll_back(r, n, "1", reason=REASON, now=NOW, to="9"), NotFound, "9"),
    ],
)
def test_what_can_not_be_done_changes_nothing(
    registry: RegistryWriter,
    model_name: str,
    call: Callable[[RegistryWriter, str], object],
    error: type[Exception],
    message: str,
) -> None:
    before = aliases.read(registry, model_name)
    with pytest.raises(error, match=message):
        call(registry, model_name)
    assert aliases.read(registry, model_name) == before
    assert Ledger(registry, model_name).entries() == []
