"""The ledger: a chain of entries that only grows, on a real MLflow server."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import registry
from models.aliases import Reason, promote, roll_back
from models.ledger import GENESIS, Action, Draft, Entry, Ledger, during, problems, standings
from models.rest import NotFound, Refused
from models.rest_write import Changed, RegistryWriter
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.registry_users import HEAD_TAG
from tests.fixtures_mlflow import Cuttable, Guarded, MlflowProcess
from tests.models.conftest import Register

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def draft(to: str = "2", *, hours: float = 0.0, before: str | None = "1", why: str = "better") -> Draft:
    return Draft(START + timedelta(hours=hours), Action.PROMOTE, before, to, "ana", why, "e" * 64)


def chain(*versions: str, first: str | None = "1", every_h: float = 24.0) -> list[Entry]:
    entries: list[Entry] = []
    before = first
    for number, version in enumerate(versions):
        last = entries[-1] if entries else None
        entries.append(draft(version, hours=number * every_h, before=before).after(last))
        before = version
    return entries


def head(entries: list[Entry]) -> str:
    return f"{entries[-1].number}:{entries[-1].sha256}"


@pytest.mark.parametrize(
    ("day", "versions"),
    [
        ("2026-02-28T00:00", ["1"]),
        ("2026-03-01T08:59:59", ["1"]),
        ("2026-03-01T09:00", ["2"]),
        ("2026-03-02T08:00", ["2"]),
        ("2026-03-02T09:00", ["3"]),
        ("2027-01-01T00:00", ["2"]),
    ],
)
def test_what_was_in_production_at_a_moment(day: str, versions: list[str]) -> None:
    entries = chain("2", "3", "2")
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    assert [one.version for one in during(entries, at, at)] == versions


def test_what_was_in_production_on_a_day() -> None:
    entries = chain("2", "3", every_h=30)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    found = during(entries, start, start + timedelta(days=1))
    assert [(one.version, one.entry) for one in found] == [("2", 1), ("3", 2)]
    assert during([], start, start) == []
    assert standings(chain("2", first=None))[0].since == START, "nothing was there before"


def test_a_whole_chain_has_no_problems() -> None:
    entries = chain("2", "3", "4")
    assert problems(entries, head(entries)) == []
    assert problems(entries, None) == []
    assert problems(entries, head(entries[:2])) == [], "the head is noted after the entry"
    assert problems([], None) == []


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda e: [replace(e[0], who="eve"), *e[1:]], "entry 1 was changed: entry 2 has"),
        (lambda e: [*e[:2], replace(e[2], to_version="9")], "entry 3 was changed: the registered model"),
        (lambda e: [e[0], e[2]], "entry 2 is missing"),
        (lambda e: e[1:], "entry 1 is missing"),
        (lambda e: e[:2], "entry 3 is missing at the end"),
        (lambda e: [], "entries 1 to 3 are missing at the end"),
        (lambda e: [replace(e[0], before="f" * 64), *e[1:]], "the first entry names one before it"),
    ],
)
def test_every_change_is_noticed(tamper, said: str) -> None:
    entries = chain("2", "3", "4")
    found = problems(tamper(entries), head(entries))
    assert any(said in one for one in found), found


TEXTS = st.text(max_size=30)


@given(TEXTS, TEXTS, st.none() | TEXTS, TEXTS, st.datetimes(timezones=st.just(UTC)))
def test_an_entry_is_read_as_it_was_written(
    who: str, why: str, before: str | None, to: str, at: datetime
) -> None:
    entry = Draft(at, Action.ROLL_BACK, before, to, who, why).after(None)
    assert Entry.parse(entry.text()) == entry
    assert Entry.parse(entry.text()).sha256 == entry.sha256


@given(st.integers(0, 3), st.sampled_from(["who", "why", "evidence", "to_version"]))
def test_any_other_field_is_another_hash(at: int, name: str) -> None:
    entries = chain("2", "3", "4", "5")
    assert replace(entries[at], **{name: "other"}).sha256 != entries[at].sha256  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"at": "2026-01-01", "action": "sell"}'])
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        Entry.parse(text)


@pytest.fixture
def ledger(mlflow_server: str, register: Register, model_name: str) -> Ledger:
    register(alias="champion")
    return Ledger(RegistryWriter(mlflow_server), model_name)


def test_entries_follow_each_other(ledger: Ledger, mlflow_server: str) -> None:
    assert ledger.entries() == [] and ledger.verify() == []
    first = ledger.append(draft("1", before=None))
    assert (first.number, first.before) == (1, GENESIS)
    second = ledger.append(replace(draft("1"), at=START - timedelta(days=1)))
    assert second.before == first.sha256
    assert second.at == first.at, "a clock that is slow doesn't turn the order round"
    assert ledger.entries() == [first, second]
    assert ledger.verify() == []
    assert RegistryWriter(mlflow_server).model_tags(ledger.model)[HEAD_TAG] == f"2:{second.sha256}"


def test_writers_at_once_make_one_chain(ledger: Ledger, mlflow_server: str) -> None:
    """Also the first entries, when there is no run yet to write to."""

    def write(number: int) -> Entry:
        return Ledger(RegistryWriter(mlflow_server), ledger.model).append(draft(why=f"writer {number}"))

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(8)))
    entries = ledger.entries()
    assert sorted(entry.number for entry in written) == list(range(1, 9))
    assert sorted(entry.why for entry in entries) == sorted(f"writer {n}" for n in range(8))
    writer = RegistryWriter(mlflow_server)
    assert problems(entries, writer.model_tags(ledger.model)[HEAD_TAG]) == []


def test_an_entry_is_written_once(ledger: Ledger, mlflow_server: str) -> None:
    ledger.append(draft())
    writer = RegistryWriter(mlflow_server)
    experiment = writer.experiment(ledger.experiment)
    assert experiment is not None
    (run,) = writer.runs(experiment)
    (key, value) = next((k, v) for k, v in run.params.items() if k.startswith("entry."))
    writer.log_param(run.run_id, key, value)
    with pytest.raises(Changed):
        writer.log_param(run.run_id, key, value.replace("ana", "eve"))


def test_a_ledger_that_was_tampered_with(ledger: Ledger, mlflow_process: MlflowProcess) -> None:
    """Behind MLflow's back, as only somebody at its database can."""
    for number in range(3):
        ledger.append(draft(why=f"reason {number}"))
    database = Path(mlflow_process.artifacts).parent / "mlflow.db"
    with sqlite3.connect(database, timeout=120) as connection:
        connection.execute(
            "UPDATE params SET value = replace(value, 'reason 1', 'reason 7') WHERE key = 'entry.000002' "
            "AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'switchboard.ledger' AND value = ?)",
            (ledger.model,),
        )
    assert any("entry 2 was changed" in one for one in ledger.verify())
    with pytest.raises(SwitchboardError, match="entry 2 was changed"):
        ledger.append(draft())


def test_a_ledger_that_was_taken_away(ledger: Ledger, mlflow_server: str) -> None:
    ledger.append(draft())
    writer = RegistryWriter(mlflow_server)
    experiment = writer.experiment(ledger.experiment)
    assert experiment is not None
    (run,) = writer.runs(experiment)
    writer.end_run(run.run_id, "KILLED", 1)
    assert ledger.verify() == ["entry 1 is missing at the end"]
    with pytest.raises(SwitchboardError, match="is damaged"):
        ledger.append(draft())


def test_a_champion_that_the_ledger_does_not_know(ledger: Ledger, register: Register) -> None:
    ledger.append(draft("1", before=None))
    register(alias="champion")
    assert ledger.verify() == ["the champion is version 2, the last entry says version 1"]


def test_a_reason_that_is_too_long_is_refused(ledger: Ledger) -> None:
    """MLflow would cut it off without a word."""
    with pytest.raises(SwitchboardError, match="may have 6000 characters"):
        ledger.append(draft(why="x" * 6000))
    assert ledger.entries() == []


def test_an_answer_that_is_lost_writes_no_entry_twice(ledger: Ledger, link: Cuttable) -> None:
    """The connection breaks after the entry was written; the next try finds it."""

    class Breaking(RegistryWriter):
        broken = False

        def log_param(self, run_id: str, key: str, value: str) -> None:
            super().log_param(run_id, key, value)
            if not Breaking.broken:
                Breaking.broken = True
                link.down()
                try:
                    super().log_param(run_id, key, value)
                finally:
                    link.up()

    written = Ledger(Breaking(link.url), ledger.model).append(draft())
    assert Breaking.broken
    assert ledger.entries() == [written]


def test_a_model_that_is_not_there(mlflow_server: str) -> None:
    with pytest.raises(NotFound):
        Ledger(RegistryWriter(mlflow_server), "t-none").verify()


def test_a_ledger_behind_authentication(
    guarded: Guarded, small: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release writes it, by the server's own rules; a trainer may read it, and nothing else."""
    name = f"t-{uuid.uuid4().hex[:8]}"

    def become(user: str) -> RegistryWriter:
        for variable, value in guarded.login(user).items():
            monkeypatch.setenv(variable, value)
        return RegistryWriter(guarded.url)

    become("trainer")
    for alias in ("champion", "challenger"):
        registry.register(small, [], name=name, tracking_uri=guarded.url, alias=alias)
    reason = Reason("ana", "better")
    release = become("release")
    promote(release, name, "2", reason=reason, now=START)
    roll_back(release, name, "2", reason=reason, now=START)
    trainer = become("trainer")
    ledger = Ledger(trainer, name)
    assert [entry.to_version for entry in ledger.entries()] == ["2", "1"]
    assert ledger.verify() == []
    with pytest.raises(Refused, match="only releases write it"):
        ledger.append(draft())


def test_beginners_at_once_under_authentication(
    guarded: Guarded, small: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    for variable, value in guarded.login("trainer").items():
        monkeypatch.setenv(variable, value)
    registry.register(small, [], name=name, tracking_uri=guarded.url, alias="champion")
    for variable, value in guarded.login("release").items():
        monkeypatch.setenv(variable, value)
    start = threading.Barrier(3, timeout=300)

    def write(number: int) -> Entry:
        start.wait()
        return Ledger(RegistryWriter(guarded.url), name).append(draft(why=f"writer {number}"))

    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(write, range(3)))
    assert sorted(entry.number for entry in written) == [1, 2, 3]
    assert [entry.number for entry in Ledger(RegistryWriter(guarded.url), name).entries()] == [1, 2, 3]
