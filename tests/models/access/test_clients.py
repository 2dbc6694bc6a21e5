"""Our clients of a tracking server that asks who they are: as the users that the stacks give them, and as others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from models import loading, registry
from models.bootstrap import bootstrap
from models.rest import Registry
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.registry_users import FOLDER_VARIABLE
from tests.fixtures_mlflow import Cuttable, Guarded

PATIENCE_S = 400.0
"""Much longer than a busy machine takes for one answer."""


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def become(monkeypatch: pytest.MonkeyPatch, server: Guarded, user: str) -> None:
    for variable, value in server.login(user).items():
        monkeypatch.setenv(variable, value)


def secret(folder: Path, server: Guarded, user: str) -> dict[str, str]:
    """A user's Secret as a pod sees it."""
    folder.mkdir()
    (folder / "username").write_text(user)
    (folder / "password").write_text(server.passwords[user])
    return {FOLDER_VARIABLE: str(folder)}


def test_training_makes_the_first_champion_and_a_replica_loads_it(
    guarded: Guarded, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a stack: each process by the files of its Secret."""
    words = [sys.executable, "-m", "models.bootstrap", "--model", name, "--timeout-s", "240"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env = {**plain, "MLFLOW_TRACKING_URI": guarded.url, **secret(tmp_path / "trainer", guarded, "trainer")}
    for _ in range(2):
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert guarded.passwords["trainer"] not in done.stdout + done.stderr
    for variable, value in secret(tmp_path / "serving", guarded, "serving").items():
        monkeypatch.setenv(variable, value)
    model = loading.load(
        f"models:/{name}@champion", tmp_path / "models", timeout_s=120, tracking_uri=guarded.url
    )
    assert (model.version, model.source) == ("1", "registry")
    run = Registry(guarded.url)._get("runs/get", {"run_id": model.run_id})["run"]
    assert run["info"]["user_id"] == "trainer"


def test_a_replica_waits_for_a_champion_that_isn_t_there(
    guarded: Guarded, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, guarded, "serving")
    with pytest.raises(SwitchboardError, match="not found"):
        loading.load(f"models:/{name}@champion", tmp_path, timeout_s=3, tracking_uri=guarded.url)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_replica_that_is_nobody_says_so_at_once_and_serves_its_copy(
    guarded: Guarded,
    small: Trained,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    password: str | None,
) -> None:
    become(monkeypatch, guarded, "trainer")
    registry.register(small, [], name=name, tracking_uri=guarded.url, alias="champion")
    become(monkeypatch, guarded, "serving")
    uri = f"models:/{name}@champion"
    loading.load(uri, tmp_path / "copies", timeout_s=120, tracking_uri=guarded.url)
    if password is None:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    started = time.monotonic()
    with pytest.raises(SwitchboardError, match=r"asks who you are|doesn't know the user"):
        loading.load(uri, tmp_path / "none", timeout_s=PATIENCE_S, tracking_uri=guarded.url)
    assert (
        loading.load(uri, tmp_path / "copies", timeout_s=PATIENCE_S, tracking_uri=guarded.url).source
        == "disk"
    )
    assert time.monotonic() - started < PATIENCE_S / 2, "nobody becomes somebody by asking again"


def test_a_replica_s_copy_serves_while_the_registry_is_away(
    guarded: Guarded, small: Trained, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, guarded, "trainer")
    registry.register(small, [], name=name, tracking_uri=guarded.url, alias="champion")
    become(monkeypatch, guarded, "serving")
    link = Cuttable(guarded.url)
    try:
        uri = f"models:/{name}@champion"
        loading.load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
        link.down()
        assert loading.load(uri, tmp_path, timeout_s=120, tracking_uri=link.url).source == "disk"
    finally:
        link.close()


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("serving", "has the role reader"),
        ("nobody", "doesn't know the user nobody"),
        (None, "asks who you are"),
    ],
)
def test_who_may_not_train_is_told_so_soon(
    guarded: Guarded, small: Trained, name: str, monkeypatch: pytest.MonkeyPatch, user: str | None, says: str
) -> None:
    if user == "nobody":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    elif user is not None:
        become(monkeypatch, guarded, user)
    started = time.monotonic()
    with pytest.raises(SwitchboardError, match=says) as caught:
        registry.register(small, [], name=name, tracking_uri=guarded.url)
    assert caught.value.next_step
    assert "hunter2" not in str(caught.value)
    if user != "serving":  # who may read is asked nothing before there is a model to log
        with pytest.raises(SwitchboardError) as caught:
            bootstrap(name, "champion", tracking_uri=guarded.url, timeout_s=PATIENCE_S)
        assert caught.value.next_step
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_trainer_does_not_move_the_champion(
    guarded: Guarded, small: Trained, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, guarded, "trainer")
    registry.register(small, [], name=name, tracking_uri=guarded.url, alias="champion")
    second = registry.register(small, [], name=name, tracking_uri=guarded.url, alias="challenger")
    with pytest.raises(SwitchboardError, match=r"is version 1: only a release moves it"):
        registry.set_alias(name, "champion", second.version, tracking_uri=guarded.url)
    become(monkeypatch, guarded, "release")
    registry.set_alias(name, "champion", second.version, tracking_uri=guarded.url)
    assert Registry(guarded.url).version_of_alias(name, "champion").version == second.version
