"""`switchboard models promote` and `rollback` by hand, at servers that ask who you are and that don't."""

from __future__ import annotations

import getpass
import json
import shutil
import uuid
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner

from models import aliases, registry
from models.aliases import Aliases
from models.cli import app
from models.ledger import Ledger
from models.registry import Logged
from models.rest_write import RegistryWriter
from models.training import Trained
from switchboard.errors import SwitchboardError
from tests.fixtures_mlflow import Cuttable, Guarded, MlflowProcess
from tests.models.conftest import Register

GATE = "switchboard.gate"


class Person:
    """Somebody at a terminal, with a model of their own in a registry."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model, self.registry = url, model, RegistryWriter(url)

    def ran(self, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--tracking-uri", self.url], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def promotes(self, version: int, *words: str) -> str:
        return self.ran("promote", self.model, str(version), "--reason", "better on loans", *words)

    def goes_back(self, *words: str) -> str:
        return self.ran("rollback", self.model, "--reason", "complaints", *words)

    def passes(self, *versions: str) -> None:
        for version in versions:
            self.registry.set_version_tag(self.model, version, GATE, "passed")

    @property
    def aliases(self) -> Aliases:
        return aliases.read(self.registry, self.model)

    @property
    def ledger(self) -> list[tuple[str, str | None, str, str]]:
        ledger = Ledger(self.registry, self.model)
        assert ledger.verify() == []
        return [(one.action.value, one.from_version, one.to_version, one.who) for one in ledger.entries()]


@pytest.fixture
def person(mlflow_server: str, register: Register, model_name: str) -> Person:
    """Of a model with a champion, and a second version that the gate has passed."""
    found = Person(mlflow_server, model_name)
    register(alias="champion")
    register(alias="challenger")
    found.passes("2")
    return found


def test_there_and_back(person: Person) -> None:
    me = getpass.getuser()
    assert person.promotes(2).splitlines() == [
        f"{person.model}@champion is version 2 instead of version 1",
        f"entry 1 of the ledger: promote by {me}, better on loans",
    ]
    assert person.aliases == Aliases("2", None, "1")
    assert person.goes_back().splitlines() == [
        f"{person.model}@champion is version 1 instead of version 2",
        f"entry 2 of the ledger: rollback by {me}, complaints",
    ]
    assert person.aliases == Aliases("1", None, None)
    assert person.ledger == [("promote", "1", "2", me), ("rollback", "2", "1", me)]
    assert "complaints" in person.ran("history", person.model)


def test_what_a_program_reads(person: Person) -> None:
    found = json.loads(person.promotes(2, "-o", "json"))
    assert found["model"] == person.model
    assert found["steps"] == [
        {"alias": "previous", "version": "1"},
        {"alias": "champion", "version": "2"},
        {"alias": "challenger", "version": None},
    ]
    (entry,) = Ledger(person.registry, person.model).entries()
    assert found["entry"]["sha256"] == entry.sha256
    assert {
        name: found["entry"][name] for name in ("number", "action", "from_version", "to_version", "why")
    } == {
        "number": 1,
        "action": "promote",
        "from_version": "1",
        "to_version": "2",
        "why": "better on loans",
    }
    back = json.loads(person.goes_back("-o", "json"))
    assert back["entry"]["before"] == entry.sha256


def test_the_first_champion(mlflow_server: str, register: Register, model_name: str) -> None:
    person = Person(mlflow_server, model_name)
    register()
    assert f"{model_name}@champion is version 1, the first one" in person.promotes(1, "--without-gate")
    assert [entry[:3] for entry in person.ledger] == [("promote", None, "1")]


REASON = ("--reason", "better on loans")
NOT_ASKED = "the offline gate hasn't been asked about {} version 3"
REFUSED: list[tuple[list[str], str, str]] = [
    (["promote", "{}", "9", *REASON], "{} has no version 9", "models list {}"),
    (["promote", "{}", "1", *REASON], "{} version 1 is the champion already", "models list {}"),
    (["promote", "{}", "3", *REASON], NOT_ASKED, "judge it: switchboard models gate models:/{}/3"),
    (["promote", "{}", "3", *REASON], NOT_ASKED, "or go without: --without-gate"),
    (["promote", "{}", "2", "--reason", " "], "a reason has 1 to 512 characters, this has 0", "--reason"),
    (["promote", "{}", "2", "--reason", "x" * 513], "1 to 512 characters, this has 513", "--reason"),
    (["promote", "t-none", "2", *REASON], "t-none not found", "models list"),
    (
        ["rollback", "{}", *REASON],
        "there is no version of {} to go back to from 1",
        "promote one that is good",
    ),
    (["rollback", "t-none", *REASON], "t-none not found", "models list"),
]


@pytest.mark.parametrize(("words", "says", "step"), REFUSED)
def test_what_is_refused_moves_nothing(
    person: Person, register: Register, words: list[str], says: str, step: str
) -> None:
    register()
    before = person.aliases
    with pytest.raises(SwitchboardError) as refused:
        person.ran(*(word.replace("{}", person.model) for word in words))
    assert says.replace("{}", person.model) in str(refused.value)
    assert step.replace("{}", person.model) in (refused.value.next_step or "")
    assert person.aliases == before
    assert person.ledger == []


def test_one_that_failed_the_gate_and_goes_all_the_same(person: Person) -> None:
    person.registry.set_version_tag(person.model, "2", GATE, "failed")
    with pytest.raises(SwitchboardError, match="didn't pass the offline gate"):
        person.promotes(2)
    person.promotes(2, "--without-gate")
    assert person.aliases.champion == "2"


def test_a_model_without_champion_has_nothing_to_go_back_from(
    mlflow_server: str, register: Register, model_name: str
) -> None:
    register()
    with pytest.raises(SwitchboardError, match="has no champion: there is nothing to go back from"):
        Person(mlflow_server, model_name).goes_back()


def test_going_back_from_one_version_isnt_going_back_twice(person: Person) -> None:
    """The answer was lost after it was written: who calls again doesn't take out the one before, too."""
    person.promotes(2)
    assert "instead of version 2" in person.goes_back("--from", "2")
    with pytest.raises(SwitchboardError, match="is version 1, not 2: it was taken out already") as error:
        person.goes_back("--from", "2")
    assert "models history" in str(error.value)
    assert (person.aliases.champion, len(person.ledger)) == ("1", 2)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_files_that_were_changed_reach_nobody(
    person: Person, register: Register, small: Trained, mlflow_process: MlflowProcess, command: str
) -> None:
    register(small)  # in a run of its own: the others share theirs
    person.passes("3")
    if command == "rollback":
        person.promotes(3)
        person.promotes(2)
    root = person.registry.artifact_root(person.model, "3")
    path = mlflow_process.artifacts / root / "artifacts" / "classifier" / "classifier.npz"
    shutil.copy(path, path.with_suffix(".kept"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = person.aliases
    with pytest.raises(SwitchboardError, match=r"version 3 can't be served: classifier.npz was changed"):
        person.promotes(3) if command == "promote" else person.goes_back()
    assert person.aliases == before


class Breaking(RegistryWriter):
    """Goes away after so many aliases and entries."""

    left = 0

    def _send(self, verb: str, method: str, body: Any) -> dict[str, Any]:
        if method in ("registered-models/alias", "runs/log-parameter"):
            if Breaking.left == 0:
                raise OSError("interrupted")
            Breaking.left -= 1
        return super()._send(verb, method, body)


@pytest.mark.parametrize(
    ("command", "done"), [*(("promote", n) for n in range(4)), *(("rollback", n) for n in range(3))]
)
def test_the_same_command_finishes_what_was_interrupted(
    person: Person, command: str, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call doesn't go back a second time."""
    if command == "rollback":
        person.promotes(2)
        act, after, told = person.goes_back, Aliases("1"), [("promote", "1", "2"), ("rollback", "2", "1")]
    else:
        act, after, told = partial(person.promotes, 2), Aliases("2", None, "1"), [("promote", "1", "2")]
    with monkeypatch.context() as breaking:
        Breaking.left = done
        breaking.setattr("models.rest_write.RegistryWriter", Breaking)
        with pytest.raises(OSError, match="interrupted"):
            act()
    act()
    assert person.aliases == after
    assert [entry[:3] for entry in person.ledger] == told


def test_a_damaged_ledger_is_found_before_anything_moves(person: Person) -> None:
    person.promotes(2)
    person.registry.set_model_tag(person.model, "switchboard.ledger_head", f"1:{'0' * 64}")
    before = person.aliases
    with pytest.raises(SwitchboardError, match=r"the ledger of .* is damaged(.|\n)*history"):
        person.goes_back()
    assert person.aliases == before


def test_a_registry_that_is_away(person: Person, link: Cuttable) -> None:
    link.down()
    with pytest.raises(SwitchboardError, match=r"no answer from MLflow(.|\n)*same command"):
        Person(link.url, person.model).promotes(2)


class Team:
    """Users of a registry that asks who they are, with a model of theirs."""

    def __init__(self, server: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server, self._monkeypatch = server, monkeypatch
        self.model = f"t-{uuid.uuid4().hex[:8]}"

    def __call__(self, user: str) -> Person:
        """Be `user` from here on."""
        for variable, value in self._server.login(user).items():
            self._monkeypatch.setenv(variable, value)
        return Person(self._server.url, self.model)


@pytest.fixture(scope="module")
def guarded_run(guarded: Guarded, small: Trained) -> Logged:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in guarded.login("trainer").items():
            patch.setenv(variable, value)
        return registry.log_run(small, [], name=f"t-{uuid.uuid4().hex[:8]}", tracking_uri=guarded.url)


@pytest.fixture
def team(guarded: Guarded, guarded_run: Logged, monkeypatch: pytest.MonkeyPatch) -> Team:
    """Two versions, the first of which is the champion."""
    found = Team(guarded, monkeypatch)
    li = found("li")
    for alias in ("champion", "challenger"):
        registry.make_version(guarded_run, name=found.model, tracking_uri=guarded.url, alias=alias)
    li.passes("2")
    return found


def test_who_is_the_user_of_the_registry(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    chen = team("chen")
    assert "promote by chen, better on loans" in chen.promotes(2)
    assert chen.aliases == Aliases("2", None, "1")
    team("release").goes_back()
    assert chen.ledger == [("promote", "1", "2", "chen"), ("rollback", "2", "1", "release")]


@pytest.mark.parametrize("user", ["li", "wu", "admin"])
def test_others_are_sent_to_a_release(team: Team, user: str) -> None:
    team("chen").promotes(2)
    person = team(user)
    before, told = person.aliases, person.ledger
    for act, step in (
        (partial(person.promotes, 1, "--without-gate"), "start 1"),
        (person.goes_back, "abort"),
    ):
        with pytest.raises(SwitchboardError) as refused:
            act()
        assert f"MLflow refused ({user})" in str(refused.value)
        assert f"switchboard canary {step}" in (refused.value.next_step or "")
    assert (person.aliases, person.ledger) == (before, told)


def test_a_trainer_may_set_a_first_champion_and_yet_not_promote(
    guarded: Guarded, guarded_run: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lets them set what nobody has set before; a promotion is in a ledger, which isn't theirs to write."""
    team = Team(guarded, monkeypatch)
    li = team("li")
    registry.make_version(guarded_run, name=team.model, tracking_uri=guarded.url)
    with pytest.raises(SwitchboardError, match=r"only releases make them(.|\n)*canary start 1"):
        li.promotes(1, "--without-gate")
    assert li.aliases == Aliases()
    team("chen").promotes(1, "--without-gate")
    assert li.aliases == Aliases("1")


def test_a_wrong_password(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    person = team("chen")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    with pytest.raises(SwitchboardError, match=r"doesn't know the user chen(.|\n)*credentials chen"):
        person.promotes(2)
